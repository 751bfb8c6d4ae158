"""Text-only mathematics problems from local files in their published forms.

GSM8K has JSON lines with ``question`` and ``answer``, in which the reference answer follows ``####``. MATH-500 and AIME
2024 are a JSON list or JSON lines with ``problem`` and ``answer``, or with a ``prompt`` of one turn and
``final_answer``.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from bench.benchmarks.base import Dataset, DatasetError
from bench.records import AnswerKind, Problem

FILES: dict[str, tuple[str, ...]] = {
    "gsm8k": ("gsm8k/test.jsonl", "gsm8k.jsonl", "test.jsonl"),
    "math500": ("rllm/math500.json", "orz/math500.json", "math500.json", "math500.jsonl"),
    "aime24": ("orz/aime2024.json", "aime2024.json", "aime24.json", "aime24.jsonl"),
}
"""Possible paths of a task's records in the data directory. The first existing file is read."""
_GOLD = re.compile(r"####\s*(.+?)\s*$")


def read_task(task: str, root: Path) -> Dataset:
    """The problems of a task. Ids are row numbers in the file. Raises DatasetError naming file and row."""
    if task not in FILES:
        raise DatasetError(f"unknown task {task!r}; choose from {', '.join(FILES)}")
    file = next((root / name for name in FILES[task] if (root / name).is_file()), None)
    if file is None:
        raise DatasetError(f"{root}: has no {task}; put its records at {' or '.join(FILES[task])}")
    problems = tuple(_problem(task, file, number, row) for number, row in enumerate(_rows(file)))
    if not problems:
        raise DatasetError(f"{file}: has no records; get a new copy")
    return Dataset(task, task, "test", False, problems)


def _rows(file: Path) -> list[object]:
    try:
        text = file.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if file.suffix == ".jsonl"
            else json.loads(text)
        )
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not JSON ({error}); get a new copy") from error
    if not isinstance(rows, list):
        raise DatasetError(f"{file}: expected a list of records; get a new copy")
    return rows


def _problem(task: str, file: Path, number: int, row: object) -> Problem:
    question, answer = _fields(row) if isinstance(row, Mapping) else (None, None)
    if not isinstance(question, str) or not isinstance(answer, str | int | float):
        raise DatasetError(f"{file}: record {number}: expected a question and an answer; get a new copy")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", str(answer)) if task == "gsm8k" else str(answer)
    kind: AnswerKind = "integer" if re.fullmatch(r"-?\d+", text) else "free"
    return Problem(task, str(number), question, (), (), text, kind, str(number))


def _fields(row: Mapping[str, object]) -> tuple[object, object]:
    """The question and the reference answer of a record in any form."""
    if "final_answer" in row:
        turns = row.get("prompt")
        first = turns[0] if isinstance(turns, list) and turns else {}
        return (first.get("value") if isinstance(first, Mapping) else None), row["final_answer"]
    if "question" in row:
        answer = _GOLD.search(str(row.get("answer")))
        return row["question"], answer[1] if answer else None
    return row.get("problem"), row.get("answer")
