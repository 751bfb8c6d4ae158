"""Two evaluations side by side: what changed between them, layer by layer, and only then the difference in accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.errors import ConfigurationError
from bench.records import Frame
from bench.review.results import EvaluationResult
from bench.stats.decisions import ContrastVerdict, contrast_verdict
from bench.stats.estimates import Difference, paired_difference

_KEY = ["benchmark", "id", "sample"]
_ITEM = ["benchmark", "id"]
_OF_PROMPT = ("template", "blind", "think")
_OF_SAMPLING = ("samples", "temperature", "max_tokens")
EngineRecord = Mapping[str, Any]
"""What an engine says of itself, as in ``Summary.engine``."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing that two evaluations can differ in; ``detail`` says how, or why it is not known.

    not recorded: one of them tells and the other does not; unknown: neither does.
    """

    name: str
    state: Literal["same", "differs", "not recorded", "unknown"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """Problems whose share of right samples rose or fell from A to B, as (benchmark, id)."""

    gained: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Responses that both have: right in both, in A alone, in B alone, in neither; of how many the text is the same,
    the number of tokens is the same."""

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
    """B against A. ``layers`` go from the first that can change to the last; ``benchmarks`` holds the difference on
    each, ``datasets`` the name of its data set, ``synthetic`` those names that borrow a benchmark's form alone."""

    a: str
    b: str
    layers: tuple[Layer, ...]
    difference: Difference
    benchmarks: dict[str, Difference]
    datasets: dict[str, str]
    synthetic: tuple[str, ...]
    items: Items
    counts: Counts

    @property
    def changed(self) -> tuple[Layer, ...]:
        """All that differs, or that one of the two alone records."""
        return tuple(layer for layer in self.layers if layer.state in ("differs", "not recorded"))

    @property
    def unchecked(self) -> tuple[Layer, ...]:
        """What neither records: no ground to see a change in it, and none to rule one out."""
        return tuple(layer for layer in self.layers if layer.state == "unknown")

    @property
    def same_model(self) -> bool:
        return "model" not in {layer.name for layer in self.changed}

    @property
    def about_the_model(self) -> bool:
        """Whether the difference can be laid to the model: it is all that is seen to change.

        Whoever says so names what is ``unchecked``, too.
        """
        return [layer.name for layer in self.changed] == ["model"]

    @property
    def outcome(self) -> ContrastVerdict:
        return contrast_verdict(self.difference.value, self.difference.p)

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "first_change": self.changed[0].name if self.changed else None,
            "about_the_model": self.about_the_model,
            "unchecked": [layer.name for layer in self.unchecked],
            "outcome": self.outcome,
            "layers": [asdict(layer) for layer in self.layers],
            "difference": asdict(self.difference),
            "benchmarks": {name: asdict(found) for name, found in self.benchmarks.items()},
            "datasets": self.datasets,
            "synthetic": self.synthetic,
            "items": asdict(self.items),
            "responses": {"n": self.counts.n, **asdict(self.counts)},
        }


def compare_results(a: EvaluationResult, b: EvaluationResult) -> ResultComparison:
    """B minus A on the problems that both were asked.

    Evaluations with different numbers of samples are paired by the mean over each problem's samples. Raises
    ConfigurationError where they have no problem in common.
    """
    rows = {result: result.verdicts.assign(seed=0) for result in (a, b)}
    if a.summary.samples != b.summary.samples:
        rows = {result: _by_item(table) for result, table in rows.items()}
    test, against = rows[b], rows[a]
    shared = [name for name in a.summary.benchmarks if name in b.summary.benchmarks]
    pairs = {name: (_of(test, name), _of(against, name)) for name in shared}
    pairs = {name: pair for name, pair in pairs.items() if set(pair[0]["id"]) & set(pair[1]["id"])}
    if not pairs:
        raise ConfigurationError(f"{a.label} and {b.label} have no problem in common; evaluate both on the same ones")
    datasets = {name: b.summary.benchmarks[name].dataset for name in pairs}
    together = test["benchmark"].isin(pairs), against["benchmark"].isin(pairs)
    return ResultComparison(
        a=a.label,
        b=b.label,
        layers=tuple(_layers(a, b, list(pairs))),
        difference=paired_difference(test[together[0]], against[together[1]]),
        benchmarks={name: paired_difference(*pair) for name, pair in pairs.items()},
        datasets=datasets,
        synthetic=tuple(datasets[name] for name in pairs if b.summary.benchmarks[name].synthetic),
        items=_items(a.verdicts, b.verdicts),
        counts=_counts(a, b),
    )


def _of(rows: Frame, benchmark: str) -> Frame:
    return rows[rows["benchmark"] == benchmark]


def _by_item(rows: Frame) -> Frame:
    means = rows.groupby([*_ITEM, "cluster", "seed"], as_index=False, sort=False)["correct"].mean()
    return means.assign(sample=0)


def _items(a: Frame, b: Frame) -> Items:
    shares = [table.groupby(_ITEM, sort=False)["correct"].mean() for table in (a, b)]
    change = (shares[1] - shares[0]).dropna()
    return Items(*(tuple(change.index[mask]) for mask in (change > 0, change < 0)))


def _counts(a: EvaluationResult, b: EvaluationResult) -> Counts:
    tables = [r.verdicts[[*_KEY, "correct"]].merge(r.responses[[*_KEY, "text", "tokens"]], on=_KEY) for r in (a, b)]
    both = tables[0].merge(tables[1], on=_KEY, suffixes=("_a", "_b"))
    in_a, in_b = both["correct_a"].astype(bool), both["correct_b"].astype(bool)
    quadrants = (in_a & in_b, in_a & ~in_b, ~in_a & in_b, ~in_a & ~in_b)
    same = (both["text_a"] == both["text_b"], both["tokens_a"] == both["tokens_b"])
    return Counts(*(int(mask.sum()) for mask in (*quadrants, *same)))


def _layers(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> list[Layer]:
    """Every layer in the order in which a prediction is made; a later one may differ only because an earlier does."""
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
    tables = [result.verdicts[[*_ITEM, "record"]].drop_duplicates(_ITEM) for result in (a, b)]
    both = tables[0].merge(tables[1], on=_ITEM, suffixes=("_a", "_b"))
    other = both[both["record_a"] != both["record_b"]]
    if other.empty:
        return Layer("data", "same")
    return Layer("data", "differs", f"{len(other)} of {len(both)} shared records, such as {other['id'].iloc[0]}")


def _selection(a: EvaluationResult, b: EvaluationResult) -> Layer:
    asked = [set(result.verdicts[_ITEM].itertuples(index=False, name=None)) for result in (a, b)]
    only = [len(asked[0] - asked[1]), len(asked[1] - asked[0])]
    if not any(only):
        return Layer("selection", "same")
    return Layer("selection", "differs", f"{only[0]} problems in A alone, {only[1]} in B alone")


def _prompt(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> Layer:
    settings = [{name: result.summary.config[name] for name in _OF_PROMPT} for result in (a, b)]
    if settings[0] != settings[1]:
        return _values("prompt", *settings)
    return _recorded(a, b, benchmarks, "prompt", "sha256")


def _images(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> Layer:
    """Patches of the first problem's images, then the number of visual tokens of every problem."""
    first = _recorded(a, b, benchmarks, "image grid", "image_grids")
    if first.state == "differs":
        return first
    tables = [result.responses[[*_ITEM, "visual_tokens"]].dropna().drop_duplicates(_ITEM) for result in (a, b)]
    both = tables[0].merge(tables[1], on=_ITEM, suffixes=("_a", "_b"))
    other = int((both["visual_tokens_a"] != both["visual_tokens_b"]).sum())
    if other:
        return Layer("image grid", "differs", f"{other} of {len(both)} problems take another number of visual tokens")
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
    return rest | ({"earlier": [_without_model(each) for each in rest["earlier"]]} if "earlier" in rest else {})


def _sampling(result: EvaluationResult) -> dict[str, Any]:
    config = result.summary.config
    seed = {"seed": result.summary.seed} if config["temperature"] > 0 else {}
    return {name: config[name] for name in _OF_SAMPLING} | seed


def _errors(a: EvaluationResult, b: EvaluationResult, benchmarks: Sequence[str]) -> Layer:
    """Where an engine failed, or left a response out, a right answer is not one of the model's that was lost."""
    counts = [_failures(result, benchmarks) for result in (a, b)]
    if not any(map(any, counts)):
        return Layer("errors", "same")
    told = (
        f"{errors} in error and {missing} missing in {side}"
        for side, (errors, missing) in zip("AB", counts, strict=True)
    )
    return Layer("errors", "differs", f"responses: {'; '.join(told)}")


def _failures(result: EvaluationResult, benchmarks: Sequence[str]) -> tuple[int, int]:
    """(responses in state error, responses that are missing)."""
    verdicts = result.verdicts[result.verdicts["benchmark"].isin(benchmarks)]
    missing = sum(result.summary.benchmarks[name].missing for name in benchmarks)
    return int((verdicts["state"] == "error").sum()), missing


def _model(a: EvaluationResult, b: EvaluationResult) -> Layer:
    same = a.summary.model.sha256 == b.summary.model.sha256
    return Layer("model", "same") if same else Layer("model", "differs", f"{a.model} in A, {b.model} in B")


def _values(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Layer:
    if a == b:
        return Layer(name, "same")
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return Layer(name, "differs", "; ".join(f"{k} {_text(a.get(k))} in A, {_text(b.get(k))} in B" for k in keys))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_text(each)}" for key, each in value.items())
    return "nothing" if value is None else str(value)
