"""Reasoning traces: a teacher answers prompts in its own words."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from vold.config import Execution, TracesConfig
from vold.data.images import check_images, text_for_teacher
from vold.data.prompts import Prompt, Trace, write_jsonl
from vold.data.reading import claim_data, read_prompts
from vold.data.sources import DataSource
from vold.files import disk_full_named, publish_directory, write_whole
from vold.models import LanguageModel, load_teacher
from vold.rewards import reward
from vold.rollout.base import Completion, RolloutEngine, RolloutRequest, Sampling
from vold.rollout.factory import build_engine
from vold.rollout.proof import weights_of
from vold.seeding import derive
from vold.training.progress import Progress, silent
from vold.training.runtime import frozen_dtype, prepare


@dataclass(frozen=True, slots=True)
class _Answer:
    """One prompt's trace as the partial file keeps it."""

    completion: str
    tokens: int
    stopped: bool
    correct: bool | None


def write_traces(
    config: TracesConfig,
    *,
    writer: Path,
    prompts: Path | DataSource,
    run: Path,
    seed: int,
    execution: Execution,
    progress: Progress = silent,
) -> None:
    """Answer the first ``n`` prompts; writes ``run/out/traces.jsonl`` and ``run/out/summary.json``.

    Answers are appended to ``run/answers.jsonl`` while it works, and a later call continues there. Completions
    that hit ``max_new_tokens`` are dropped and counted; where ``keep`` is ``correct``, so are wrong ones and those to
    prompts without a known answer. Prompts with images go the way of ``images``.
    """
    out = run / "out"
    if out.exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    loaded = read_prompts(prompts)
    claim_data(run, loaded)
    chosen = loaded[: config.n]
    check_images(chosen, config.images, "images")
    asked = [prompt for prompt in chosen if text_for_teacher(prompt, config.images) is not None]
    partial = run / "answers.jsonl"
    answers = list(_read_partial(partial))
    if len(answers) < len(asked):
        model = load_teacher(writer, dtype=frozen_dtype(execution), device=prepare(execution))
        engine = build_engine(model, config.rollout, execution)
        # Without a half-written last line, and at no moment without the answers before it.
        write_whole(partial, "".join(map(_line, answers)))
        with closing(engine), disk_full_named(partial), partial.open("a", encoding="utf-8") as file:
            if not engine.live:
                engine.sync(weights_of(model))  # nothing changes: this proves that both read the prompts alike
            while len(answers) < len(asked):
                chunk = asked[len(answers) : len(answers) + execution.rollout_batch]
                fresh = _answer(model, engine, chunk, config, seed, len(answers))
                file.writelines(map(_line, fresh))
                file.flush()
                answers += fresh
                progress(len(answers), len(asked), _shown(answers))
    with publish_directory(out) as directory:
        _publish(directory, asked, answers, config, skipped=len(chosen) - len(asked))
    partial.unlink()


def _answer(
    model: LanguageModel, engine: RolloutEngine, prompts: Sequence[Prompt], config: TracesConfig, seed: int, start: int
) -> list[_Answer]:
    sampling = Sampling(config.max_new_tokens, config.temperature, model.stop_ids, model.banned_ids)
    requests = [
        RolloutRequest(model.encode_text(prompt.in_words()), (derive(seed, "trace", start + place),))
        for place, prompt in enumerate(prompts)
    ]
    completions = [group[0] for group in engine.generate(requests, sampling)]
    return [_judged(model, c, prompt) for c, prompt in zip(completions, prompts, strict=True)]


def _judged(model: LanguageModel, completion: Completion, prompt: Prompt) -> _Answer:
    text = model.decode(completion.completion_ids)
    correct = reward(text, prompt) == 1.0 if prompt.answer else None
    return _Answer(text, len(completion.completion_ids), completion.finish_reason == "stop", correct)


def _correct_share(answers: Sequence[_Answer]) -> float | None:
    """Of the answers that could be checked; None where none could."""
    checked = [answer.correct for answer in answers if answer.correct is not None]
    return sum(checked) / len(checked) if checked else None


def _shown(answers: Sequence[_Answer]) -> dict[str, float]:
    share, tokens = _correct_share(answers), sum(answer.tokens for answer in answers) / len(answers)
    return {"tokens": tokens} if share is None else {"correct": share, "tokens": tokens}


def _line(answer: _Answer) -> str:
    return json.dumps(asdict(answer)) + "\n"


def _read_partial(path: Path) -> Iterator[_Answer]:
    """What an interrupted run left, up to the first damaged line."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    yield _Answer(**json.loads(line))
                except (ValueError, TypeError):
                    return


def _publish(
    directory: Path, prompts: Sequence[Prompt], answers: Sequence[_Answer], config: TracesConfig, *, skipped: int
) -> None:
    whole = [(p, a) for p, a in zip(prompts, answers, strict=True) if a.stopped]
    kept = [(p, a) for p, a in whole if a.correct or config.keep == "all"]
    if not kept:
        raise ValueError(
            f"none of {len(prompts)} traces can be kept: {len(prompts) - len(whole)} were cut at "
            f"{config.max_new_tokens} tokens, {len(whole)} are not known to be right; raise max_new_tokens, or set "
            "keep: all"
        )
    traces = [Trace(p.id, p.text, a.completion, a.correct, _copied(p, directory / "images")) for p, a in kept]
    write_jsonl(directory / "traces.jsonl", traces)
    lost = [a for _, a in whole if not (a.correct or config.keep == "all")]
    summary = {
        "prompts": len(prompts),
        "skipped_images": skipped,
        "written": len(kept),
        "dropped_long": len(prompts) - len(whole),
        "dropped_wrong": sum(a.correct is False for a in lost),
        "dropped_unchecked": sum(a.correct is None for a in lost),
        "correct_share": _correct_share(answers),
        "mean_tokens": sum(a.tokens for a in answers) / len(answers),
        "tokens": sum(a.tokens for a in answers),
        "tokens_written": sum(a.tokens for _, a in kept),
    }
    (directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _copied(prompt: Prompt, directory: Path) -> tuple[Path, ...]:
    """The prompt's images beside its trace, each once."""
    copies = []
    for image in prompt.images:
        copy = directory / f"{hashlib.sha256(image.read_bytes()).hexdigest()[:32]}{image.suffix}"
        if not copy.exists():
            directory.mkdir(exist_ok=True)
            shutil.copyfile(image, copy)
        copies.append(copy)
    return tuple(copies)
