"""A finished evaluation made by hand: every state, hostile text, two samples, one of them missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.benchmarks.base import Dataset
from bench.evaluation.config import EvalConfig
from bench.evaluation.parquet_tables import Provenance, write_tables
from bench.evaluation.selection import Selection
from bench.records import Problem, Response
from bench.scoring.scorer import score
from bench.summary import FirstPrompt, ModelRecord
from tests.helpers.evaluation_results import ENGINE

HOSTILE = {
    "formula": '=HYPERLINK("http://x","y")\nAnswer: A',
    "control": "nul \x00, bell \x07, \ufffe and </script> \\boxed{B}",
    "long": "so " * 20_000 + "Answer: A",
    "think": "<think>B?</think>Answer: A",
    "unread": "-2+3",
}
CHOICES = ("=1+1", "second")


def problems(benchmark: str) -> tuple[Problem, ...]:
    def one(id: str) -> Problem:
        kind = "choice" if benchmark != "logicvista" else "choices"
        options = CHOICES if benchmark != "logicvista" else ()
        answer = "A" if benchmark != "mathvista" else CHOICES[0]
        images = (Path("there") / f"{id}.png",)
        return Problem(benchmark, id, f"Which is {id}? <image 1>", images, options, answer, kind, id, "sets")

    return tuple(one(id) for id in [*HOSTILE, "failed", "absent"])


def publish(out: Path, selections: list[Selection], config: EvalConfig) -> None:
    """Responses as in ``HOSTILE``; ``failed`` broke in the engine; the last sample of ``absent`` is missing."""
    responses, verdicts = {}, {}
    for selection in selections:
        for problem in selection.problems:
            for sample in range(config.samples):
                if problem.id == "absent" and sample == config.samples - 1:
                    continue
                failed = problem.id == "failed"
                text = "failed.png: unreadable" if failed else HOSTILE.get(problem.id, r"\boxed{A}")
                sizes = (None, None) if failed else (30, 4)
                key = (problem.benchmark, problem.id, sample)
                response = Response(*key, text, 0 if failed else 7, "error" if failed else "stop", *sizes)
                responses[key], verdicts[key] = response, score(problem, response)
    prompt = FirstPrompt(
        id="formula", template=config.template, parts=[{"type": "text", "text": "Which?"}], sha256="aa11",
        rendered="<|im_start|>user\nWhich?", tokens=30, token_ids_sha256="bb22", image_grids=[[1, 4, 4]],
        visual_tokens=[4],
    )  # fmt: skip
    prompts = {selection.dataset.benchmark: prompt for selection in selections}
    provenance = Provenance(config, 5, ModelRecord("student", "cc33"), ENGINE, prompts)
    write_tables(out, selections, responses, verdicts, provenance)


def dataset(benchmark: str, split: str, synthetic: bool = False) -> Selection:
    found = problems(benchmark)
    name = f"smallworld-{benchmark}" if synthetic else benchmark
    return Selection(Dataset(benchmark, name, split, synthetic, found), found)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four benchmarks, mathvision synthetic; two samples of seven problems each, one of them missing."""
    out = tmp_path_factory.mktemp("eval") / "out"
    selections = [
        dataset("mmmu_pro", "standard10"),
        dataset("mathvision", "test", synthetic=True),
        dataset("mathvista", "testmini"),
        dataset("logicvista", "test"),
    ]
    publish(out, selections, EvalConfig(samples=2, temperature=0.5, template="boxed@2"))
    return out


@pytest.fixture(scope="session")
def summary(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "summary.json").read_text(encoding="utf-8"))
