"""Official mode against the benchmarks' own published prediction files."""

import csv
import json
from pathlib import Path

import pytest

from bench.benchmarks.registry import read_benchmark
from bench.scoring.predictions import read_predictions
from bench.scoring.scorer import Scores, score_predictions

pytestmark = pytest.mark.real


def scored(root: Path, benchmark: str, file: str, split: str) -> Scores:
    problems = read_benchmark(benchmark, root / benchmark, split, require_images=False).problems
    return score_predictions(benchmark, problems, read_predictions(root / benchmark / file), "official")


def published_jsonl(file: Path, column: str) -> dict[str, bool]:
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["id"]: bool(row[column]) for row in rows}


def disagreements(scores: Scores, published: dict[str, bool]) -> list[str]:
    assert {verdict.id for verdict in scores.verdicts} == set(published)
    return [verdict.id for verdict in scores.verdicts if verdict.correct != published[verdict.id]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "right"),
    [("Random-Chance", 218), ("Qwen-VL-Max", 474), ("LLaVA-v1.5-7B", 259), ("InternLM-XComposer2-VL", 442)],
)
def test_mathvision_agrees_row_by_row(benchmark_data: Path, model: str, right: int):
    file = f"outputs/{model}.jsonl"
    scores = scored(benchmark_data, "mathvision", file, "test")
    assert (scores.correct, len(scores.verdicts)) == (right, 3040)
    assert disagreements(scores, published_jsonl(benchmark_data / "mathvision" / file, "correct")) == []


@pytest.mark.parametrize(("model", "right"), [("random_guess", 179), ("claude", 264), ("llava_llama_2_13b", 261)])
def test_mathvista_agrees_row_by_row_from_stored_extractions(benchmark_data: Path, model: str, right: int):
    file = f"results/output_{model}.json"
    scores = scored(benchmark_data, "mathvista", file, "testmini")
    published = json.loads((benchmark_data / "mathvista" / file).read_text(encoding="utf-8"))
    assert (scores.correct, len(scores.verdicts)) == (right, 1000)
    assert disagreements(scores, {key: row["true_false"] for key, row in published.items()}) == []
    assert {verdict.method for verdict in scores.verdicts} == {"stored"}


def test_mmmu_pro_agrees_on_every_row_that_the_published_parser_does_not_draw(benchmark_data: Path):
    file = "outputs/gpt-4o_vision_direct.jsonl"
    scores = scored(benchmark_data, "mmmu_pro", file, "standard10")
    rows = map(json.loads, (benchmark_data / "mmmu_pro" / file).read_text(encoding="utf-8").splitlines())
    published = {row["id"]: (row["pred_indexs"], row["if_right"]) for row in rows}
    parsed = [verdict for verdict in scores.verdicts if verdict.method != "guessed"]
    assert (len(parsed), scores.guessed) == (1682, 48)
    assert all((verdict.extracted, verdict.correct) == published[verdict.id] for verdict in parsed)
    assert sum(published[v.id][1] for v in scores.verdicts if v.method == "guessed") == 9
    assert scores.correct - sum(v.correct for v in scores.verdicts if v.method == "guessed") == 734 - 9


@pytest.mark.parametrize(("model", "right"), [("GPT4", 146), ("LLAVA13B", 108), ("otter9B", 106)])
def test_logicvista_agrees_row_by_row_from_stored_extractions(benchmark_data: Path, model: str, right: int):
    file = f"results/{model}-accuracy-results.csv"
    scores = scored(benchmark_data, "logicvista", file, "test")
    with (benchmark_data / "logicvista" / file).open(encoding="utf-8", newline="") as lines:
        published = {row["id"]: row["match?"] == "1" for row in csv.DictReader(lines)}
    assert (scores.correct, len(scores.verdicts)) == (right, 448)
    assert disagreements(scores, published) == []


def test_without_a_stored_extraction_the_rule_is_named(benchmark_data: Path):
    for benchmark, file, split in (
        ("logicvista", "answers/otter9B-answers.json", "test"),
        ("mathvision", "outputs/Qwen-VL-Max.jsonl", "test"),
    ):
        problems = read_benchmark(benchmark, benchmark_data / benchmark, split, require_images=False).problems
        few = read_predictions(benchmark_data / benchmark / file)[:40]
        methods = {verdict.method for verdict in score_predictions(benchmark, problems, few, "official").verdicts}
        assert methods and "stored" not in methods
