"""What all benchmarks and all forms of their records share: rows, fields with errors that name the place, checks."""

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import ConfigurationError
from bench.records import Problem
from bench.terminal import printable
from vold.answers import reference_labels


class DatasetError(ConfigurationError):
    """Records or images that are not what they must be; names file, id and mend."""


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One record with its place. Every accessor raises DatasetError naming file, id and field.

    ``images`` are files, or the bytes that the row holds, image k at position k - 1.
    """

    file: Path
    id: str
    fields: Mapping[str, Any]
    images: tuple[Path | bytes, ...] = ()

    def __post_init__(self) -> None:
        for name, value in {**self.fields, "id": self.id}.items():
            self._check_characters(name, value)

    def error(self, fault: str, mend: str = "mend the record or take a fresh copy of the file") -> DatasetError:
        return DatasetError(f"{self.file}: record {self.id!r}: {fault}; {mend}")

    def text(self, name: str) -> str:
        """A required text; numbers are written out, as some copies hold them unquoted."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{name!r} must be a text, found {type_name(value)}")
        return str(value)

    def optional(self, name: str) -> str:
        """A text that may be absent or null: then empty."""
        return "" if self.fields.get(name) is None else self.text(name)

    def options(self, name: str) -> list[Any]:
        """A list, or a text that holds a Python list; absent, null or an empty text is empty."""
        value = self.fields.get(name)
        if value is None or value == "":
            return []
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise self.error(f"{name!r} is no Python list") from error
        if not isinstance(value, list):
            raise self.error(f"{name!r} must be a list, found {type_name(value)}")
        self._check_characters(name, value)  # which a text that holds a list may have escaped
        return value

    def image(self, name: str) -> bytes:
        """The image that column ``name`` of a table holds, as ``{"bytes", "path"}``."""
        value = self.fields.get(name)
        content = value.get("bytes") if isinstance(value, Mapping) else None
        if not isinstance(content, bytes) or not content:
            raise self.error(f"no image in column {name!r}", "take a copy of the table that holds its images")
        return content

    def _check_characters(self, name: str, value: object) -> None:
        """JSON can hold half of a surrogate pair; no table, tokenizer or server takes one."""
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise self.error(f"{name!r} holds {value[error.start]!r}, half a character") from error
        elif isinstance(value, Mapping | list | tuple):
            for part in value.values() if isinstance(value, Mapping) else value:
                self._check_characters(name, part)


def type_name(value: object) -> str:
    """What a value is, for an error's text."""
    return "nothing" if value is None else type(value).__name__


@dataclass(frozen=True, slots=True)
class Split:
    """How one split is found in each public form, and what is known of it.

    files: record files in the benchmark's repository, the first found is read. count: its number of records.
    config, hub_split: where it lies in the hub data set. tsv, md5: VLMEvalKit's file and its sum. options: how many
    options most of its records have, where another configuration differs in nothing else.
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

    splits: the fullest first. ``problem`` tells what a record means: it takes the fields of the repository's schema
    and leaves the images out. The others bring a row of one form there: ``repository`` names the images of a row
    under the benchmark's directory, ``hub`` and ``tsv`` (which is told the split) give its fields and images.
    ``rows`` overrides how a file of the repository is read.
    """

    name: str
    splits: Mapping[str, Split]
    problem: Callable[[BenchmarkRow], Problem]
    repository: Callable[[BenchmarkRow, Path], tuple[Path, ...]]
    hub: Callable[[BenchmarkRow], BenchmarkRow]
    tsv: Callable[[BenchmarkRow, str], BenchmarkRow]
    rows: Callable[[Path], Iterable[BenchmarkRow]] | None = None

    def check_split(self, split: str) -> None:
        """Raises DatasetError for a split that the benchmark does not have."""
        if split not in self.splits:
            raise DatasetError(f"{self.name} has no split {split!r}; choose from {', '.join(self.splits)}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A split of a benchmark, loaded. ``name`` differs from the benchmark's where the problems are synthetic.

    passed_over: splits before this one that were not taken, as no split was named, each with its missing images.
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
    """A line for each split that was not taken (``Dataset.passed_over``), safe for a terminal."""
    return [printable(f"{split} passed over: {why}") for split, why in splits.items()]


def dataset_title(name: str, synthetic: bool) -> str:
    """A data set as every table names it: what is synthetic is called so."""
    return f"{name} (synthetic)" if synthetic else name


def check_ids(ids: Iterable[str], file: Path) -> None:
    """Raises DatasetError where there are none, or one comes twice."""
    counts = Counter(ids)
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise DatasetError(f"{file}: the id {repeated[0]!r} stands there twice; every id must be unique")
    if not counts:
        raise DatasetError(f"{file}: holds no records; take a fresh copy")


def unscorable_reason(answer: str, options: Sequence[str]) -> str:
    """Why no answer can ever be right, or "" where one can."""
    if not answer.strip():
        return "the record has no answer"
    if options and not reference_labels(answer, options):
        return f"the gold {answer!r} is neither a label nor a text of its {len(options)} options"
    return ""
