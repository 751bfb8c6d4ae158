import json
from pathlib import Path

import pytest

from bench.benchmarks.base import DatasetError
from bench.bridges import text
from bench.records import Response
from bench.scoring.scorer import score


def write(root: Path, name: str, rows: list[dict[str, object]]) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(lines if file.suffix == ".jsonl" else json.dumps(rows))
    return file


def test_the_published_forms_give_questions_and_golds(tmp_path: Path) -> None:
    write(tmp_path, "gsm8k/test.jsonl", [{"question": "How many?", "answer": "2 * 617 = <<1234>>\n#### 1,234"}])
    write(tmp_path, "rllm/math500.json", [{"problem": "Half?", "answer": r"\frac{1}{2}"}])
    write(tmp_path, "orz/aime2024.json", [{"prompt": [{"from": "user", "value": "N?"}], "final_answer": "073"}])
    found = {name: text.read_task(name, tmp_path).problems for name in text.FILES}
    assert {name: [(p.id, p.question, p.answer) for p in problems] for name, problems in found.items()} == {
        "gsm8k": [("0", "How many?", "1234")],
        "math500": [("0", "Half?", r"\frac{1}{2}")],
        "aime24": [("0", "N?", "073")],
    }
    assert score(found["aime24"][0], Response("aime24", "0", 0, r"\boxed{73}", 1, "stop")).correct


@pytest.mark.parametrize("row", [{"question": "How many?", "answer": "no gold"}, {"answer": "1"}, {"prompt": 3}])
def test_a_record_without_question_or_gold_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    write(tmp_path, "gsm8k.jsonl", [{"question": "1?", "answer": "#### 1"}, row])
    with pytest.raises(DatasetError, match=r"gsm8k\.jsonl: record 1"):
        text.read_task("gsm8k", tmp_path)


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no gsm8k"):
        text.read_task("gsm8k", tmp_path)
    with pytest.raises(DatasetError, match="unknown task"):
        text.read_task("mmlu", tmp_path)
    (tmp_path / "gsm8k.jsonl").write_text('{"question"')
    with pytest.raises(DatasetError, match="not JSON"):
        text.read_task("gsm8k", tmp_path)


@pytest.mark.real
def test_every_gold_of_the_real_sets_is_right_when_fed_back(benchmark_data: Path) -> None:
    counts = {}
    for name in text.FILES:
        problems = text.read_task(name, benchmark_data / "text").problems
        boxed = [(p, Response(name, p.id, 0, rf"\boxed{{{p.answer}}}", 1, "stop")) for p in problems]
        wrong = [problem.id for problem, response in boxed if not score(problem, response).correct]
        assert not wrong, (name, wrong)
        counts[name] = len(problems)
    assert counts == {"gsm8k": 1319, "math500": 500, "aime24": 30}
