"""Prediction files: our JSONL, and the forms in which the benchmarks' own repositories publish theirs.

JSONL, or a JSON list of rows
    ``{"id", "response", optional "extraction", optional "sample"}``; MathVision's and MMMU-Pro's outputs are such rows.
JSON dictionary by id
    of rows (MathVista: ``response`` and ``extraction``; LogicVista: ``answer``), or of bare responses.
CSV
    LogicVista's results: ``id``, ``<model> answer raw``, ``<model> answer extracted`` (a Python list of letters).
"""

import ast
import csv
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.benchmarks import Dataset, available_splits, read_benchmark
from bench.errors import ConfigurationError
from bench.records import Prediction

_FIELD_LIMIT = 2**31 - 1  # of csv, for long responses
_RAW, _EXTRACTED = " answer raw", " answer extracted"


class PredictionError(ConfigurationError):
    """A prediction file that cannot be read; names file, row and mend."""


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a file, in its order; raises PredictionError, also for an id and sample that come twice."""
    if not file.is_file():
        raise PredictionError(f"{file}: no such file")
    seen: set[tuple[str, int]] = set()
    predictions = []
    for place, id, row in _rows(file):
        prediction = _prediction(place, id, row)
        if (prediction.id, prediction.sample) in seen:
            raise PredictionError(
                f"{place}: id {prediction.id!r} stands there twice with sample {prediction.sample}; "
                'number the samples of one problem: "sample": 0, 1, ...'
            )
        seen.add((prediction.id, prediction.sample))
        predictions.append(prediction)
    if not predictions:
        raise PredictionError(f"{file}: holds no predictions")
    return predictions


def _rows(file: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(place, id, fields) of each row."""
    try:
        if file.suffix == ".csv":
            csv.field_size_limit(_FIELD_LIMIT)
            with file.open(encoding="utf-8-sig", newline="") as lines:
                yield from _with_ids(file, _csv_rows(file, lines))
        elif file.suffix == ".jsonl":
            yield from _with_ids(file, _json_lines(file))
        else:
            yield from _json(file)
    except UnicodeDecodeError as error:
        raise PredictionError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise PredictionError(f"{file}: no CSV ({error})") from error


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise PredictionError(f"{file}:{number}: not JSON ({error}); the file may be cut short") from error


def _json(file: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    text = file.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"{file}: not JSON ({error}); JSON lines need the ending .jsonl") from error
    if isinstance(content, list):
        yield from _with_ids(file, enumerate(content, 1))
    elif isinstance(content, dict):
        for key, row in content.items():
            yield f"{file}: {key!r}", key, row if isinstance(row, dict) else {"response": row}
    else:
        raise PredictionError(f"{file}: expected rows or a dictionary by id")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def _with_ids(file: Path, rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
            raise PredictionError(f"{file}:{number}: a prediction must be an object with an 'id'")
        yield f"{file}:{number}", str(row["id"]), row


def _csv_rows(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines)
    for row in reader:
        if None in row or None in row.values():
            raise PredictionError(
                f"{file}:{reader.line_num}: {'more' if None in row else 'fewer'} fields than the header names; put "
                "texts that hold commas, quotes or line breaks in quotes, or take a fresh copy of the file"
            )
        yield reader.line_num, _published_csv(row)


def _published_csv(row: dict[str, Any]) -> dict[str, Any]:
    """LogicVista's columns under our names; others stay as they are."""
    for column, value in list(row.items()):
        if column and column.endswith(_RAW):
            row["response"] = value
        elif column and column.endswith(_EXTRACTED):
            row["extraction"] = _letters(value)
    return row


def _letters(value: str) -> list[str] | str:
    try:
        letters = ast.literal_eval(value[:10_000])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return letters if isinstance(letters, list) else value


def _prediction(place: str, id: str, row: Mapping[str, Any]) -> Prediction:
    response = row.get("response", row.get("answer") if "reasoning" in row else None)
    if "response" not in row and response is None:
        raise PredictionError(
            f"{place}: a prediction needs a 'response', found {', '.join(map(str, row)) or 'nothing'}"
        )
    if isinstance(response, dict | bool) or (isinstance(response, float) and not math.isfinite(response)):
        raise PredictionError(f"{place}: 'response' must be text, found {response!r:.40}")
    extraction = row.get("extraction")
    for name, text in (("id", id), ("response", _text(response)), ("extraction", _text(extraction))):
        if re.search("[\ud800-\udfff]", text):
            raise PredictionError(f"{place}: the {name} holds half a surrogate pair, which is no text; replace it")
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise PredictionError(f"{place}: 'sample' must be a whole number from 0, found {sample!r}")
    return Prediction(id, sample, _text(response), None if extraction is None else _text(extraction))


def _text(value: Any) -> str:
    """A response or extraction as text; a list as its parts with commas, nothing as ""."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def find_records(
    predictions: Sequence[Prediction], file: Path, benchmark: str, root: Path, split: str | None = None
) -> Dataset:
    """The records that ``predictions`` of ``file`` answer: those of ``split``, or of the only split that has all ids.

    Raises DatasetError, and ConfigurationError for ids that are no record's and for a split that cannot be known:
    several have these ids, and other options, answers or questions to them.
    """
    asked = {prediction.id for prediction in predictions}
    found = _datasets(benchmark, root, split)
    fitting = [dataset for dataset in found if asked <= {problem.id for problem in dataset.problems}]
    if not fitting:
        strange, nearest = min(
            ((sorted(asked - {problem.id for problem in dataset.problems}), dataset.split) for dataset in found),
            key=lambda item: len(item[0]),
        )
        raise ConfigurationError(
            f"{file}: {len(strange)} of {len(asked)} ids are no records of {benchmark} under {root} "
            f"(split {nearest}; first {strange[0]!r}); name the records that were asked with --data"
        )
    chosen = next((dataset for dataset in fitting if len(dataset.problems) == len(asked)), fitting[0])
    if any(_asked(dataset, asked) != _asked(chosen, asked) for dataset in fitting):
        names = [dataset.split for dataset in fitting]
        raise ConfigurationError(
            f"{file}: the ids are those of the splits {', '.join(names)}, which ask them otherwise; say which with "
            f"--split {names[0]}"
        )
    return chosen


def _datasets(benchmark: str, root: Path, split: str | None) -> list[Dataset]:
    """The splits whose records are there; raises DatasetError where none is, or one is damaged."""
    names = [split] if split or root.is_file() else available_splits(benchmark, root) or [None]
    return [read_benchmark(benchmark, root, name, require_images=False) for name in names]


def _asked(dataset: Dataset, ids: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """What is asked by each id, and what answers it."""
    return {p.id: (p.question, p.options, p.answer, p.precision) for p in dataset.problems if p.id in ids}
