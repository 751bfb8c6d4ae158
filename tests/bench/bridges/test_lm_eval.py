"""lm-eval asks the bundled student; an engine of canned replies shows how its settings reach an engine."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.engines import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.errors import ConfigurationError, InfrastructureError
from bench.prompts import PromptPart
from tests.conftest import need


class Canned:
    """Answers with the turn itself; turns named ``refuse`` cannot be asked, those named ``lost`` stay unanswered."""

    grouped = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, Decoding]] = []

    def preparer(self, parts: Sequence[PromptPart]) -> str:
        text = parts[0].get("text", "")
        if text == "refuse":
            raise ValueError("too long")
        return text

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for group in groups:
            self.asked.append((len(group), decoding))
            for ask in reversed(group):
                if ask.prepared != "lost":
                    yield RequestReplies(ask.index, [Reply(ask.prepared, 3, "stop")])

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return None

    def about(self) -> dict[str, Any]:
        return {"name": "canned"}

    def close(self) -> None: ...


def requests(*texts: str, **generation: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance("generate_until", {"id": str(place)}, (text, generation), place, metadata=("set", place, 1))
        for place, text in enumerate(texts)
    ]


@pytest.mark.slow
def test_settings_stops_and_order_are_kept() -> None:
    need("lm_eval", "lm-eval")
    from bench.bridges.lm_eval import EngineLM

    engine = Canned()
    lm = EngineLM(engine, group_size=2)
    asked = requests("one STOP more", "two", "refuse", until=["STOP"], max_gen_toks=7, do_sample=False, temperature=1)
    assert lm.generate_until(asked) == ["one ", "two", ""]
    assert engine.asked == [(2, Decoding(7, 0.0))]
    assert lm.replies["set", "2"] == Reply("too long", 0, "error")
    with pytest.raises(InfrastructureError, match="1 of 2"):
        lm.generate_until(requests("lost", "two"))
    with pytest.raises(ConfigurationError, match="log-likelihoods"):
        lm.loglikelihood([])


@pytest.mark.slow
def test_lm_eval_scores_as_we_do_and_asks_the_rendered_turn(tmp_path: Path) -> None:
    need("lm_eval", "lm-eval")
    from bench.bridges import text
    from bench.bridges.lm_eval import task
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.selection import select

    (tmp_path / "aime24.jsonl").write_text('{"problem": "One half?", "answer": "1/2"}\n')
    made = task(select(text.read_task("aime24", tmp_path), None, 0), EvalConfig(template="plain", max_tokens=9))
    (doc,) = made.test_docs()
    assert made.doc_to_text(doc) == "One half?"
    assert made.process_results(doc, ["The answer is 0.5"]) == {"accuracy": 1.0}
    assert made.process_results(doc, ["The answer is 2"]) == {"accuracy": 0.0}


@pytest.mark.slow
def test_a_checkpoint_becomes_a_result_that_other_commands_read(tmp_path: Path) -> None:
    need("lm_eval", "lm-eval")
    rows = [{"question": f"What is {n} + {n}?", "answer": f"#### {2 * n}"} for n in range(1, 6)]
    (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "result"
    command = ["bridge", "lm-eval", "--model", "smallworld/student_a", "--data", str(tmp_path), "--task", "gsm8k"]
    runner = CliRunner()
    done = runner.invoke(app, [*command, "--limit", "3", "--max-tokens", "16", "--out", str(out), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    summary = json.loads((out / "summary.json").read_text())
    part = summary["benchmarks"]["gsm8k"]
    assert part["n"] == 3 and sum(part["states"].values()) == 3
    assert summary["lm_eval"]["accuracy"]["gsm8k"] == pytest.approx(part["accuracy"])
    assert r"\boxed{}" in part["prompt"]["rendered"]
    compared = runner.invoke(app, ["compare", str(out), str(out), "--json"])
    assert compared.exit_code == 0, compared.output
    exported = runner.invoke(app, ["export", str(out), "--out", str(tmp_path / "exports")])
    assert exported.exit_code == 0, exported.output
