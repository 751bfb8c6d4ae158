"""Types of a report: the protocols of its input, and the tables, figures and sentences that every output renders."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bench.records import Frame
from bench.summary import Summary

Expect = Literal["better", "worse", "not_better", "not_worse"]
Tone = Literal["better", "worse", "unresolved"]
SMALL_WORLD = "small world: synthetic problems, tiny models"


ArmSettings = Mapping[tuple[str, str], Mapping[str, Any]]


class Arm(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def skip(self) -> Collection[str]: ...
    @property
    def overrides(self) -> Mapping[str, object]: ...
    @property
    def levels(self) -> Mapping[str, str]: ...
    @property
    def because(self) -> str: ...


class Side(Protocol):
    """One side of a contrast: an arm, or with ``over`` the gain of that arm over another."""

    @property
    def arm(self) -> str: ...
    @property
    def over(self) -> str | None: ...


class Contrast(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def test(self) -> Side: ...
    @property
    def against(self) -> Side: ...
    @property
    def min_effect(self) -> float: ...
    @property
    def expected_effect(self) -> float | None: ...
    @property
    def claim(self) -> str: ...
    @property
    def expect(self) -> Expect: ...


class Primary(Protocol):
    @property
    def over(self) -> Sequence[str]: ...
    @property
    def aggregate(self) -> Literal["macro", "micro"]: ...


class Sampling(Protocol):
    @property
    def samples(self) -> int: ...
    @property
    def temperature(self) -> float: ...


class Analysis(Protocol):
    @property
    def primary(self) -> Primary: ...
    @property
    def sampled(self) -> Sampling | None: ...
    @property
    def contrasts(self) -> Sequence[Contrast]: ...
    @property
    def correction(self) -> str: ...
    @property
    def clean_of(self) -> Sequence[str]: ...


class Spec(Protocol):
    """The parts of ``bench.matrix.spec.MatrixSpec`` that a report reads."""

    @property
    def name(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def axes(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def arms(self) -> Sequence[Arm]: ...
    @property
    def analysis(self) -> Analysis: ...


class Results(Protocol):
    """The parts of ``bench.matrix.results.MatrixResults`` that a report reads.

    verdicts: columns arm, student, seed, benchmark, dataset, synthetic, id, cluster, sample, state, correct, tokens.
    sampled: the verdicts of a second, sampled evaluation, with the same columns; empty if there is none.
    curves: columns arm, student, seed, stage, step, metric, value.
    stages: columns arm, student, seed, kind, stage_id, status, cpu_seconds.
    summaries: the summary of each evaluation, by arm, student and seed.
    settings: the resolved configuration, by arm and kind of stage.
    """

    @property
    def verdicts(self) -> Frame: ...
    @property
    def sampled(self) -> Frame: ...
    @property
    def curves(self) -> Frame: ...
    @property
    def stages(self) -> Frame: ...
    @property
    def summaries(self) -> Mapping[tuple[str, str, int], Summary]: ...
    @property
    def settings(self) -> ArmSettings: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table. ``text`` sorts by letter, ``number`` by value. The first column is the header of its row."""

    key: str
    label: str
    kind: Literal["text", "number"] = "text"


INTERVAL = (TableColumn("low", "low", "number"), TableColumn("high", "high", "number"))
"""The columns of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of formatted text. ``id`` names its CSV file and its element on the page."""

    id: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure as SVG, its caption, and ``alt``, a description for readers who cannot see it."""

    id: str
    caption: str
    alt: str
    svg: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """The sentence of one verdict. ``tone`` selects its shape and colour."""

    id: str
    text: str
    verdict: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a page shows, ready to be rendered. Numbers are already text, except those of the bars.

    bars: for each arm the low end, the value and the high end of its accuracy, as shares.
    """

    name: str
    question: str
    synthetic: bool
    lead: str
    statements: tuple[Statement, ...]
    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]
    methods: tuple[str, ...]
    caveats: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...] = ()
    bars: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def world(self) -> str:
        """The warning in every header and caption; empty for real benchmarks."""
        return SMALL_WORLD if self.synthetic else ""
