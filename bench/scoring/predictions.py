"""Reads prediction files: our JSONL, and the published forms of the benchmarks' repositories.

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

from bench.benchmarks.base import Dataset
from bench.benchmarks.registry import available_splits, read_benchmark
from bench.errors import ConfigurationError
from bench.records import Prediction

_FIELD_LIMIT = 2**31 - 1  # characters; the csv module's own limit is too low for long responses
_RAW, _EXTRACTED = " answer raw", " answer extracted"


class PredictionError(ConfigurationError):
    """A prediction file cannot be read. The message names file and row and says how to fix it."""


def read_predictions(file: Path) -> list[Prediction]:
    """All predictions of a file, in order. Raises PredictionError, also for a repeated pair of id and sample."""
    if not file.is_file():
        raise PredictionError(f"{file}: no such file")
    keys: set[tuple[str, int]] = set()
    predictions = []
    for location, id, row in _rows(file):
        prediction = _prediction(location, id, row)
        if (prediction.id, prediction.sample) in keys:
            raise PredictionError(
                f"{location}: id {prediction.id!r} occurs twice with sample {prediction.sample}; "
                'number the samples of one problem: "sample": 0, 1, ...'
            )
        keys.add((prediction.id, prediction.sample))
        predictions.append(prediction)
    if not predictions:
        raise PredictionError(f"{file}: has no predictions")
    return predictions


def _rows(file: Path) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """The location, id and fields of each row."""
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
        raise PredictionError(f"{file}: not CSV ({error})") from error


def _json_lines(file: Path) -> Iterator[tuple[int, object]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise PredictionError(f"{file}:{number}: not JSON ({error}); the file may be truncated") from error


def _json(file: Path) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    text = file.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"{file}: not JSON ({error}); a file of JSON lines must end in .jsonl") from error
    if isinstance(content, list):
        yield from _with_ids(file, enumerate(content, 1))
    elif isinstance(content, dict):
        for key, row in content.items():
            yield f"{file}: {key!r}", key, row if isinstance(row, dict) else {"response": row}
    else:
        raise PredictionError(f"{file}: expected rows or a dictionary by id")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return fields


def _with_ids(file: Path, rows: Iterable[tuple[int, object]]) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
            raise PredictionError(f"{file}:{number}: a prediction must be an object with an 'id'")
        yield f"{file}:{number}", str(row["id"]), row


def _csv_rows(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.DictReader(lines)
    for row in reader:
        if None in row or None in row.values():
            raise PredictionError(
                f"{file}:{reader.line_num}: {'more' if None in row else 'fewer'} fields than the header; put texts "
                "with commas, quotes or line breaks in quotes, or get a new copy of the file"
            )
        yield reader.line_num, _published_csv(row)


def _published_csv(row: dict[str, Any]) -> dict[str, object]:
    """Give LogicVista's columns our names; other columns stay unchanged."""
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


def _prediction(location: str, id: str, row: Mapping[str, object]) -> Prediction:
    response = row.get("response", row.get("answer") if "reasoning" in row else None)
    if "response" not in row and response is None:
        raise PredictionError(
            f"{location}: a prediction needs a 'response', found {', '.join(map(str, row)) or 'nothing'}"
        )
    if isinstance(response, dict | bool) or (isinstance(response, float) and not math.isfinite(response)):
        raise PredictionError(f"{location}: 'response' must be text, found {response!r:.40}")
    extraction = row.get("extraction")
    for name, text in (("id", id), ("response", _text(response)), ("extraction", _text(extraction))):
        if re.search("[\ud800-\udfff]", text):
            raise PredictionError(
                f"{location}: the {name} contains half a surrogate pair, which is not text; replace it"
            )
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise PredictionError(f"{location}: 'sample' must be a whole number from 0, found {sample!r}")
    return Prediction(id, sample, _text(response), None if extraction is None else _text(extraction))


def _text(value: object) -> str:
    """A response or extraction as text. The parts of a list are joined by commas, and None is empty."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def find_records(
    predictions: Sequence[Prediction], file: Path, benchmark: str, root: Path, split: str | None = None
) -> Dataset:
    """The records that ``predictions`` of ``file`` answer: those of ``split``, or of the only split with all ids.

    Raises DatasetError. Raises ConfigurationError for ids without a record, and if the split is ambiguous because
    several splits have these ids with different questions, options or answers.
    """
    ids = {prediction.id for prediction in predictions}
    datasets = _datasets(benchmark, root, split)
    matches = [dataset for dataset in datasets if ids <= {problem.id for problem in dataset.problems}]
    if not matches:
        unknown, nearest = min(
            ((sorted(ids - {problem.id for problem in dataset.problems}), dataset.split) for dataset in datasets),
            key=lambda item: len(item[0]),
        )
        raise ConfigurationError(
            f"{file}: {len(unknown)} of {len(ids)} ids have no record of {benchmark} in {root} "
            f"(split {nearest}, first {unknown[0]!r}); name the evaluated records with --data"
        )
    match = next((dataset for dataset in matches if len(dataset.problems) == len(ids)), matches[0])
    if any(_content(dataset, ids) != _content(match, ids) for dataset in matches):
        names = [dataset.split for dataset in matches]
        raise ConfigurationError(
            f"{file}: the splits {', '.join(names)} have these ids, but with different problems; choose one, such as "
            f"--split {names[0]}"
        )
    return match


def _datasets(benchmark: str, root: Path, split: str | None) -> list[Dataset]:
    """All splits with records. Raises DatasetError if there is none or one is damaged."""
    names = [split] if split or root.is_file() else available_splits(benchmark, root) or [None]
    return [read_benchmark(benchmark, root, name, require_images=False) for name in names]


def _content(dataset: Dataset, ids: Collection[str]) -> dict[str, tuple[object, ...]]:
    """Question, options and reference answer of each id."""
    return {p.id: (p.question, p.options, p.answer, p.precision) for p in dataset.problems if p.id in ids}
