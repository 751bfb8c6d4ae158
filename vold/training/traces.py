"""Reasoning traces: a teacher answers prompts in its own words, for the cold start to imitate."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from vold.config import TracesConfig
from vold.data.images import check_images, text_for_teacher
from vold.data.prompts import Prompt, Trace, write_jsonl
from vold.data.reading import claim_data, read_prompts
from vold.data.sources import DataSource
from vold.execution import Execution
from vold.files import naming_full_disk, publish_directory, write_whole
from vold.models import LanguageModel, load_teacher
from vold.rewards import reward
from vold.rollout.base import Completion, RolloutEngine, RolloutRequest, Sampling
from vold.rollout.factory import build_engine
from vold.rollout.proof import weights_of
from vold.seeding import derive
from vold.training.progress import Progress, silent
from vold.training.runtime import frozen_dtype, prepare_device


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer to one prompt, as ``run/answers.jsonl`` stores it. correct: None if it could not be checked."""

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
    """Answer the first ``n`` prompts and write ``run/out/traces.jsonl`` and ``run/out/summary.json``.

    Answers are appended to ``run/answers.jsonl`` while they arrive, and an interrupted run resumes there. Completions
    that hit ``max_new_tokens`` are dropped and counted. If ``keep`` is ``correct``, so are wrong answers and answers to
    prompts without a reference answer. The policy ``images`` decides about prompts with images.

    Raises ValueError if a prompt has images that the policy refuses, or if no trace can be kept.
    """
    out = run / "out"
    if out.exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    loaded = read_prompts(prompts)
    claim_data(run, loaded)
    first = loaded[: config.n]
    check_images(first, config.images, "images")
    readable = [prompt for prompt in first if text_for_teacher(prompt, config.images) is not None]
    partial = run / "answers.jsonl"
    answers = list(_read_answers(partial))
    if len(answers) < len(readable):
        model = load_teacher(writer, dtype=frozen_dtype(execution), device=prepare_device(execution))
        engine = build_engine(model, config.rollout, execution)
        # Remove a half-written last line, without risking the answers before it.
        write_whole(partial, "".join(map(_line, answers)))
        with closing(engine), naming_full_disk(partial), partial.open("a", encoding="utf-8") as file:
            if not engine.live:
                engine.sync(
                    weights_of(model)
                )  # the weights never change; this proves that the engine computes with them
            while len(answers) < len(readable):
                chunk = readable[len(answers) : len(answers) + execution.rollout_batch]
                new = _answer(model, engine, chunk, config, seed, len(answers))
                file.writelines(map(_line, new))
                file.flush()
                answers += new
                progress(len(answers), len(readable), _progress_metrics(answers))
    with publish_directory(out) as directory:
        _publish(directory, readable, answers, config, skipped=len(first) - len(readable))
    partial.unlink()


def _answer(
    model: LanguageModel, engine: RolloutEngine, prompts: Sequence[Prompt], config: TracesConfig, seed: int, start: int
) -> list[_Answer]:
    """The writer's answers to ``prompts``, of which ``start`` is the number of the first."""
    sampling = Sampling(config.max_new_tokens, config.temperature, model.stop_ids, model.banned_ids)
    requests = [
        RolloutRequest(model.encode_text(prompt.in_words()), (derive(seed, "trace", number),))
        for number, prompt in enumerate(prompts, start)
    ]
    completions = [group[0] for group in engine.generate(requests, sampling)]
    return [_checked_answer(model, *pair) for pair in zip(completions, prompts, strict=True)]


def _checked_answer(model: LanguageModel, completion: Completion, prompt: Prompt) -> _Answer:
    text = model.decode(completion.completion_ids)
    correct = reward(text, prompt) == 1.0 if prompt.answer else None
    return _Answer(text, len(completion.completion_ids), completion.finish_reason == "stop", correct)


def _correct_share(answers: Sequence[_Answer]) -> float | None:
    """The share of correct answers among those that could be checked. None if there are none."""
    checked = [answer.correct for answer in answers if answer.correct is not None]
    return sum(checked) / len(checked) if checked else None


def _progress_metrics(answers: Sequence[_Answer]) -> dict[str, float]:
    share, tokens = _correct_share(answers), sum(answer.tokens for answer in answers) / len(answers)
    return {"tokens": tokens} if share is None else {"correct": share, "tokens": tokens}


def _line(answer: _Answer) -> str:
    return json.dumps(asdict(answer)) + "\n"


def _read_answers(path: Path) -> Iterator[_Answer]:
    """The answers of an interrupted run, up to the first damaged line."""
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
    """Write the traces to keep, their images and the summary. Raises ValueError if there are none."""
    complete = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer.stopped]
    pairs = [(prompt, answer) for prompt, answer in complete if answer.correct or config.keep == "all"]
    if not pairs:
        raise ValueError(
            f"none of {len(prompts)} traces can be kept: {len(prompts) - len(complete)} were cut at "
            f"{config.max_new_tokens} tokens, and {len(complete)} are not known to be right; raise max_new_tokens, or "
            "set keep: all"
        )
    traces = [
        Trace(prompt.id, prompt.text, answer.completion, answer.correct, _copy_images(prompt, directory / "images"))
        for prompt, answer in pairs
    ]
    write_jsonl(directory / "traces.jsonl", traces)
    dropped = [answer for _, answer in complete if not (answer.correct or config.keep == "all")]
    summary = {
        "prompts": len(prompts),
        "skipped_images": skipped,
        "written": len(pairs),
        "dropped_long": len(prompts) - len(complete),
        "dropped_wrong": sum(answer.correct is False for answer in dropped),
        "dropped_unchecked": sum(answer.correct is None for answer in dropped),
        "correct_share": _correct_share(answers),
        "mean_tokens": sum(answer.tokens for answer in answers) / len(answers),
        "tokens": sum(answer.tokens for answer in answers),
        "tokens_written": sum(answer.tokens for _, answer in pairs),
    }
    (directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _copy_images(prompt: Prompt, directory: Path) -> tuple[Path, ...]:
    """Copy the prompt's images to ``directory``, each only once, and return the copies."""
    copies = []
    for image in prompt.images:
        copy = directory / f"{hashlib.sha256(image.read_bytes()).hexdigest()[:32]}{image.suffix}"
        if not copy.exists():
            directory.mkdir(exist_ok=True)
            shutil.copyfile(image, copy)
        copies.append(copy)
    return tuple(copies)
