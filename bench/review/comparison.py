"""The comparison of two evaluations: which layers between data and model differ, then the difference in accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.benchmarks.registry import pooled
from bench.errors import ConfigurationError
from bench.records import Frame
from bench.review.results import EvaluationResult
from bench.stats.cells import RUN_KEY, one_run
from bench.stats.decisions import ContrastVerdict, contrast_verdict
from bench.stats.estimates import Difference, paired_difference

_KEY = ["benchmark", "id", "sample"]
_PROBLEM = ["benchmark", "id"]
_PROMPT_SETTINGS = ("template", "blind", "think")
_SAMPLING_SETTINGS = ("samples", "temperature", "max_tokens")
EngineRecord = Mapping[str, Any]
"""Name, versions and settings of an engine, as in ``Summary.engine``."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of the setup in which two evaluations can differ; ``detail`` says how, or why it is not known.

    state: ``not recorded`` if only one evaluation records it, ``unknown`` if neither does.
    """

    name: str
    state: Literal["same", "differs", "not recorded", "unknown"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ChangedProblems:
    """Problems whose share of right samples rose (gained) or fell (lost) from A to B, as (data set, id)."""

    gained: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of responses to the same problem and sample.

    both, only_a, only_b, neither: where the response is right. same_text, same_length: how many have the same text, and
    the same number of tokens.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    same_text: int
    same_length: int

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither


@dataclass(frozen=True, slots=True)
class ResultComparison:
    """B compared with A; every difference is B minus A.

    layers: in the order in which they influence a response.
    difference: over the data sets ``pooled``, each with the same weight.
    datasets: the difference on each data set, by its own name.
    pooled: names of the data sets that measure reasoning, or of all if none does.
    synthetic: names of the data sets that are generated in the form of a benchmark.
    """

    a: str
    b: str
    layers: tuple[Layer, ...]
    difference: Difference
    datasets: dict[str, Difference]
    pooled: tuple[str, ...]
    synthetic: tuple[str, ...]
    problems: ChangedProblems
    counts: Counts

    @property
    def changed(self) -> tuple[Layer, ...]:
        """The layers that differ, or that only one evaluation records."""
        return tuple(layer for layer in self.layers if layer.state in ("differs", "not recorded"))

    @property
    def unchecked(self) -> tuple[Layer, ...]:
        """The layers that neither evaluation records, so that a change can be neither seen nor ruled out."""
        return tuple(layer for layer in self.layers if layer.state == "unknown")

    @property
    def same_model(self) -> bool:
        return "model" not in {layer.name for layer in self.changed}

    @property
    def about_the_model(self) -> bool:
        """Whether the model is the only recorded difference. A claim about it must name the layers in ``unchecked``."""
        return [layer.name for layer in self.changed] == ["model"]

    @property
    def outcome(self) -> ContrastVerdict:
        return contrast_verdict(self.difference.value, self.difference.p)

    def to_json(self) -> dict[str, object]:
        return {
            "a": self.a,
            "b": self.b,
            "first_change": self.changed[0].name if self.changed else None,
            "about_the_model": self.about_the_model,
            "unchecked": [layer.name for layer in self.unchecked],
            "outcome": self.outcome,
            "layers": [asdict(layer) for layer in self.layers],
            "difference": asdict(self.difference),
            "datasets": {name: asdict(difference) for name, difference in self.datasets.items()},
            "pooled": self.pooled,
            "synthetic": self.synthetic,
            "problems": asdict(self.problems),
            "responses": {"n": self.counts.n, **asdict(self.counts)},
        }


def compare_results(a: EvaluationResult, b: EvaluationResult) -> ResultComparison:
    """Compare B with A on the problems that both evaluations asked.

    Evaluations with different numbers of samples are paired by the mean over each problem's samples. Raises
    ConfigurationError if they have no problem in common.
    """
    rows = {result: one_run(result.verdicts) for result in (a, b)}
    if a.summary.samples != b.summary.samples:
        rows = {result: _by_problem(table) for result, table in rows.items()}
    test, against = rows[b], rows[a]
    shared = [name for name in a.summary.benchmarks if name in b.summary.benchmarks]
    pairs = {name: (_on(test, name), _on(against, name)) for name in shared}
    pairs = {name: pair for name, pair in pairs.items() if set(pair[0]["id"]) & set(pair[1]["id"])}
    if not pairs:
        raise ConfigurationError(f"{a.label} and {b.label} have no problem in common; evaluate both on the same ones")
    names = {name: b.summary.benchmarks[name].dataset for name in pairs}
    together = pooled(pairs)
    return ResultComparison(
        a=a.label,
        b=b.label,
        layers=tuple(_layers(a, b, list(pairs))),
        difference=paired_difference(*(rows[rows["benchmark"].isin(together)] for rows in (test, against))),
        datasets={names[name]: paired_difference(*pair) for name, pair in pairs.items()},
        pooled=tuple(names[name] for name in together),
        synthetic=tuple(names[name] for name in pairs if b.summary.benchmarks[name].synthetic),
        problems=_changed_problems(a.verdicts, b.verdicts, names),
        counts=_counts(a, b),
    )


def _on(rows: Frame, benchmark: str) -> Frame:
    return rows[rows["benchmark"] == benchmark]


def _by_problem(rows: Frame) -> Frame:
    means = rows.groupby([*_PROBLEM, "cluster", *RUN_KEY], as_index=False, sort=False)["correct"].mean()
    return means.assign(sample=0)


def _changed_problems(a: Frame, b: Frame, names: Mapping[str, str]) -> ChangedProblems:
    shares = [table.groupby(_PROBLEM, sort=False)["correct"].mean() for table in (a, b)]
    change = (shares[1] - shares[0]).dropna()
    changed = ([(names[benchmark], id) for benchmark, id in change.index[mask]] for mask in (change > 0, change < 0))
    return ChangedProblems(*map(tuple, changed))


def _counts(a: EvaluationResult, b: EvaluationResult) -> Counts:
    tables = [r.verdicts[[*_KEY, "correct"]].merge(r.responses[[*_KEY, "text", "tokens"]], on=_KEY) for r in (a, b)]
    both = tables[0].merge(tables[1], on=_KEY, suffixes=("_a", "_b"))
    in_a, in_b = both["correct_a"].astype(bool), both["correct_b"].astype(bool)
    quadrants = (in_a & in_b, in_a & ~in_b, ~in_a & in_b, ~in_a & ~in_b)
    same = (both["text_a"] == both["text_b"], both["tokens_a"] == both["tokens_b"])
    return Counts(*(int(mask.sum()) for mask in (*quadrants, *same)))


def _layers(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> list[Layer]:
    """Every layer in the order of influence; a later one may differ only because an earlier one does."""
    return [
        _data(a, b),
        _selection(a, b),
        _prompt(a, b, benchmarks),
        _recorded(a, b, benchmarks, "token ids", "token_ids_sha256"),
        _images(a, b, benchmarks),
        _engine(a.summary.engine, b.summary.engine),
        _values("sampling", _sampling(a), _sampling(b)),
        _errors(a, b, benchmarks),
        _values("scoring", asdict(a.summary.scoring), asdict(b.summary.scoring)),
        _model(a, b),
    ]


def _data(a: EvaluationResult, b: EvaluationResult) -> Layer:
    tables = [result.verdicts[[*_PROBLEM, "record"]].drop_duplicates(_PROBLEM) for result in (a, b)]
    both = tables[0].merge(tables[1], on=_PROBLEM, suffixes=("_a", "_b"))
    changed = both[both["record_a"] != both["record_b"]]
    if changed.empty:
        return Layer("data", "same")
    return Layer("data", "differs", f"{len(changed)} of {len(both)} shared records, such as {changed['id'].iloc[0]}")


def _selection(a: EvaluationResult, b: EvaluationResult) -> Layer:
    ids_a, ids_b = (set(result.verdicts[_PROBLEM].itertuples(index=False, name=None)) for result in (a, b))
    if ids_a == ids_b:
        return Layer("selection", "same")
    detail = f"{len(ids_a - ids_b)} problems only in A, {len(ids_b - ids_a)} only in B"
    return Layer("selection", "differs", detail)


def _prompt(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> Layer:
    settings = [{name: result.summary.config[name] for name in _PROMPT_SETTINGS} for result in (a, b)]
    if settings[0] != settings[1]:
        return _values("prompt", *settings)
    return _recorded(a, b, benchmarks, "prompt", "sha256")


def _images(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> Layer:
    """Patches of the first problem's images, then the number of visual tokens of every problem."""
    first = _recorded(a, b, benchmarks, "image grid", "image_grids")
    if first.state == "differs":
        return first
    tables = [result.responses[[*_PROBLEM, "visual_tokens"]].dropna().drop_duplicates(_PROBLEM) for result in (a, b)]
    both = tables[0].merge(tables[1], on=_PROBLEM, suffixes=("_a", "_b"))
    changed = int((both["visual_tokens_a"] != both["visual_tokens_b"]).sum())
    if changed:
        detail = f"{changed} of {len(both)} problems have another number of visual tokens"
        return Layer("image grid", "differs", detail)
    return Layer("image grid", "same") if len(both) else first


def _recorded(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str], name: str, field: str) -> Layer:
    """A field of the first prompt, on the benchmarks whose first problem is the same in both."""
    compared = recorded = 0
    for benchmark in benchmarks:
        parts = [result.summary.benchmarks[benchmark] for result in (a, b)]
        prompts = [part.prompt for part in parts]
        values = [getattr(prompt, field) for prompt in prompts]
        recorded += values != [None, None]
        if prompts[0].id != prompts[1].id or None in values:
            continue
        compared += 1
        if values[0] != values[1]:
            return Layer(name, "differs", f"{parts[1].dataset}, problem {prompts[0].id}")
    if not recorded:
        return Layer(name, "unknown", "neither result records it")
    if not compared:
        return Layer(name, "not recorded", "the results have no first prompt in common that both record")
    return Layer(name, "same")


def _engine(a: EngineRecord, b: EngineRecord) -> Layer:
    """The name under which a server knows the model says nothing about the engine."""
    engines = [_without_model(engine) for engine in (a, b)]
    layer = _values("engine", *engines)
    if layer.state == "same" and engines[0].get("name") == "openai":
        detail = "a server behind a URL does not say what it runs and how; both were sent the same requests"
        return Layer("engine", "unknown", detail)
    return layer


def _without_model(engine: EngineRecord) -> EngineRecord:
    """The record of an engine, and of its ``earlier`` states, without the model's name."""
    rest = {name: value for name, value in engine.items() if name != "model"}
    return rest | ({"earlier": [_without_model(state) for state in rest["earlier"]]} if "earlier" in rest else {})


def _sampling(result: EvaluationResult) -> Mapping[str, object]:
    config = result.summary.config
    seed = {"seed": result.summary.seed} if config["temperature"] > 0 else {}
    return {name: config[name] for name in _SAMPLING_SETTINGS} | seed


def _errors(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> Layer:
    """Responses that an engine failed on or left out are not losses of the model."""
    counts = [_failures(result, benchmarks) for result in (a, b)]
    if not any(map(any, counts)):
        return Layer("errors", "same")
    sides = (
        f"{errors} in error and {missing} missing in {side}"
        for side, (errors, missing) in zip("AB", counts, strict=True)
    )
    return Layer("errors", "differs", f"responses: {'; '.join(sides)}")


def _failures(result: EvaluationResult, benchmarks: Sequence[str]) -> tuple[int, int]:
    """(number of responses in state error, number of missing responses)."""
    verdicts = result.verdicts[result.verdicts["benchmark"].isin(benchmarks)]
    missing = sum(result.summary.benchmarks[name].missing for name in benchmarks)
    return int((verdicts["state"] == "error").sum()), missing


def _model(a: EvaluationResult, b: EvaluationResult) -> Layer:
    same = a.summary.model.sha256 == b.summary.model.sha256
    return Layer("model", "same") if same else Layer("model", "differs", f"{a.model} in A, {b.model} in B")


def _values(name: str, a: Mapping[str, object], b: Mapping[str, object]) -> Layer:
    if a == b:
        return Layer(name, "same")
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return Layer(name, "differs", "; ".join(f"{k} {_text(a.get(k))} in A, {_text(b.get(k))} in B" for k in keys))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_text(part)}" for key, part in value.items())
    return "nothing" if value is None else str(value)
