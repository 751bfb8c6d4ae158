"""What all benchmarks share: descriptions, rows whose errors name file and record, data sets and checks."""

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.errors import ConfigurationError
from bench.records import Problem
from bench.terminal import printable
from vold.answers import reference_labels


class DatasetError(ConfigurationError):
    """Records or images are missing or malformed. The message names file and record and says how to fix it."""


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One record with its file and id. Every accessor raises DatasetError naming file, id and field.

    images: paths, or bytes from the row itself; image k is at position k - 1.
    """

    file: Path
    id: str
    fields: Mapping[str, object]
    images: tuple[Path | bytes, ...] = ()

    def __post_init__(self) -> None:
        for name, value in {**self.fields, "id": self.id}.items():
            self._check_characters(name, value)

    def error(self, fault: str, fix: str = "correct the record, or get a new copy of the file") -> DatasetError:
        return DatasetError(f"{self.file}: record {self.id!r}: {fault}; {fix}")

    def text(self, name: str) -> str:
        """A required text. Numbers become text, because some copies store them unquoted."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{name!r} must be a text, found {type_name(value)}")
        return str(value)

    def optional(self, name: str) -> str:
        """An optional text; empty if the field is absent or null."""
        return "" if self.fields.get(name) is None else self.text(name)

    def options(self, name: str) -> list[object]:
        """A list, or a text with a Python list in it. The result is empty if the field is absent, null or empty."""
        value = self.fields.get(name)
        if value is None or value == "":
            return []
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise self.error(f"{name!r} is not a Python list") from error
        if not isinstance(value, list):
            raise self.error(f"{name!r} must be a list, found {type_name(value)}")
        self._check_characters(name, value)  # the text of a list may contain escapes
        return value

    def image(self, name: str) -> bytes:
        """The image in a table's column ``name``, which has the form ``{"bytes", "path"}``."""
        value = self.fields.get(name)
        content = value.get("bytes") if isinstance(value, Mapping) else None
        if not isinstance(content, bytes) or not content:
            raise self.error(f"no image in column {name!r}", "get a copy of the table that includes the images")
        return content

    def _check_characters(self, name: str, value: object) -> None:
        """Refuse half of a surrogate pair: JSON can contain one, but tables, tokenizers and servers cannot."""
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise self.error(f"{name!r} contains {value[error.start]!r}, which is half a character") from error
        elif isinstance(value, Mapping | list | tuple):
            for part in value.values() if isinstance(value, Mapping) else value:
                self._check_characters(name, part)


def type_name(value: object) -> str:
    """The name of a value's type, for error messages."""
    return "nothing" if value is None else type(value).__name__


@dataclass(frozen=True, slots=True)
class Split:
    """Where each public form of a benchmark has this split, and what is known about it.

    files: record files in the benchmark's repository; the first one that exists is read.
    count: number of records.
    config, hub_split: configuration and split of the data set on the hub.
    tsv, md5: name and MD5 of VLMEvalKit's file.
    options: the usual number of options per record, if only this tells the split from another one.
    """

    files: Sequence[str]
    count: int | None = None
    config: str = ""
    hub_split: str = "test"
    tsv: str = ""
    md5: str = ""
    options: int | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one benchmark is read.

    url: its repository, or empty. hub_id: its official data set on the hub, or empty.
    splits: the most complete split first.
    problem: makes a problem of a row with the fields of the repository's schema; it leaves the images out.
    repository: the image files of a row, given the benchmark's directory.
    hub, tsv: bring a row of a hub table or of VLMEvalKit's table (and its split) to the repository's schema, with
        images.
    rows: reads a record file of the repository, if it is neither JSON lines nor a JSON dictionary of records.
    measures: what a right response shows. Perception stands next to the mean over reasoning and is never part of it.
    """

    name: str
    url: str
    splits: Mapping[str, Split]
    problem: Callable[[BenchmarkRow], Problem]
    repository: Callable[[BenchmarkRow, Path], tuple[Path, ...]]
    hub: Callable[[BenchmarkRow], BenchmarkRow]
    tsv: Callable[[BenchmarkRow, str], BenchmarkRow]
    rows: Callable[[Path], Iterable[BenchmarkRow]] | None = None
    hub_id: str = ""
    measures: Literal["reasoning", "perception"] = "reasoning"

    def check_split(self, split: str) -> None:
        """Raise DatasetError for a split that the benchmark does not have."""
        if split not in self.splits:
            raise DatasetError(f"{self.name} has no split {split!r}; choose from {', '.join(self.splits)}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A loaded split of a benchmark. ``name`` differs from the benchmark's name if the problems are synthetic.

    passed_over: earlier splits that were skipped because images are missing, each with the reason. Only filled if no
    split was requested.
    """

    benchmark: str
    name: str
    split: str
    synthetic: bool
    problems: tuple[Problem, ...]
    passed_over: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def title(self) -> str:
        return dataset_title(self.name, self.synthetic)


def passed_over_lines(splits: Mapping[str, str]) -> list[str]:
    """One line per skipped split (``Dataset.passed_over``), safe for a terminal."""
    return [printable(f"{split} passed over: {why}") for split, why in splits.items()]


def dataset_title(name: str, synthetic: bool) -> str:
    """The name of a data set in tables; synthetic ones are marked."""
    return f"{name} (synthetic)" if synthetic else name


def check_ids(ids: Iterable[str], file: Path) -> None:
    """Raise DatasetError if there are no ids or one occurs twice."""
    counts = Counter(ids)
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise DatasetError(f"{file}: the id {repeated[0]!r} occurs twice; every id must be unique")
    if not counts:
        raise DatasetError(f"{file}: has no records; get a new copy")


def unscorable_reason(answer: str, options: Sequence[str]) -> str:
    """Why no answer can be right, or an empty text if one can."""
    if not answer.strip():
        return "the record has no answer"
    if options and not reference_labels(answer, options):
        return f"the gold {answer!r} is neither a label nor a text of its {len(options)} options"
    return ""
