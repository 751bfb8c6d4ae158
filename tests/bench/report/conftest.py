"""Invented matrices with known effects, with the fields of ``bench.matrix.spec`` and ``bench.matrix.results``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.report import analysis, build_report
from bench.summary import Summary
from tests.helpers.evaluation_results import a_benchmark_summary, a_summary

FAMILIES = {
    "logicvista": "smallworld-bars-choice",
    "mathvision": "smallworld-chain-free",
    "mathvista": "smallworld-bars-integer",
    "mmmu_pro": "smallworld-chain-choice",
}


@dataclass
class Arm:
    name: str
    skip: frozenset[str] = frozenset()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    because: str = ""


@dataclass
class Side:
    arm: str
    over: str | None = None


@dataclass
class Contrast:
    """A contrast of two sides, which are given as names of arms or as sides."""

    id: str
    test: Any
    against: Any
    min_effect: float = 0.02
    claim: str = ""
    expect: Any = "better"
    expected_effect: float | None = None

    def __post_init__(self) -> None:
        self.test, self.against = (Side(s) if isinstance(s, str) else s for s in (self.test, self.against))


@dataclass
class Primary:
    over: tuple[str, ...] = tuple(FAMILIES)
    aggregate: Any = "macro"


@dataclass
class Analysis:
    contrasts: tuple[Contrast, ...]
    primary: Primary = field(default_factory=Primary)
    correction: Any = "holm"
    clean_of: tuple[str, ...] = ()
    sampled: Any = None


@dataclass
class Spec:
    arms: tuple[Arm, ...]
    analysis: Analysis
    name: str = "invented"
    question: str = "Does on-policy distillation need a cold start?"
    seeds: tuple[int, ...] = (11, 23, 37)
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Results:
    verdicts: pd.DataFrame
    curves: pd.DataFrame
    stages: pd.DataFrame
    summaries: dict[tuple[str, str, int], Summary]
    settings: dict[tuple[str, str], dict[str, Any]]
    provenance: dict[str, Any]
    sampled: pd.DataFrame = field(default_factory=pd.DataFrame)


STUDENT = "student_a"


def _verdicts(run: dict[str, Any], accuracy: float, items: int, spread: float = 0.02) -> pd.DataFrame:
    # A problem is equally hard in every arm, so that arms are paired as in a real run.
    tables = []
    for number, (benchmark, dataset) in enumerate(FAMILIES.items()):
        hardness = np.random.default_rng(number).random(items)
        rng = np.random.default_rng([run["seed"], number, *run["arm"].encode(), *_stream(run["student"])])
        level = accuracy + 0.04 * (number - 1.5) + rng.normal(0, spread)
        correct = hardness + rng.normal(0, 0.12, items) < level
        state = np.where(correct, "right", np.where(rng.random(items) < 0.06, "unparsed", "wrong"))
        tables.append(
            pd.DataFrame(
                {
                    **run,
                    "benchmark": benchmark,
                    "dataset": dataset,
                    "synthetic": True,
                    "id": [f"{benchmark}-{i}" for i in range(items)],
                    "cluster": [f"{benchmark}-{i}" for i in range(items)],
                    "category": "",
                    "sample": 0,
                    "state": state,
                    "correct": state == "right",
                    "extracted": "7",
                    "normalised": "7",
                    "method": "boxed",
                    "finish_reason": "stop",
                    "tokens": rng.integers(20, 60, items),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _stream(student: str) -> bytes:
    """What tells the random streams of further students from those of the first."""
    return b"" if student == STUDENT else student.encode()


def _curves(run: dict[str, Any], level: float, steps: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng([run["seed"], *run["arm"].encode(), *_stream(run["student"])])
    step = np.arange(1, steps + 1)
    rise = 1 - np.exp(-step / 15)
    values = {
        "reward_mean": level * rise + rng.normal(0, 0.04, steps),
        "kl_exact": 3 * (1 - level) * (1 - 0.6 * rise) + rng.normal(0, 0.05, steps),
        "entropy": 1.2 - 0.5 * rise + rng.normal(0, 0.03, steps),
        "completion_tokens": 30 + 12 * rise + rng.normal(0, 1, steps),
        "truncated_share": np.full(steps, 0.01),
    }
    rows = [("rl", int(s), m, float(v)) for m, vs in values.items() for s, v in zip(step, vs, strict=True)]
    return pd.DataFrame(rows, columns=["stage", "step", "metric", "value"]).assign(**run)


def _results(
    spec: Spec,
    accuracies: Mapping[str, float],
    settings: dict[Any, Any],
    items: int,
    students: tuple[str, ...] = (STUDENT,),
) -> Results:
    cells = [
        (arm, {"arm": arm.name, "student": student, "seed": seed})
        for arm in spec.arms
        for student in students
        for seed in spec.seeds
    ]
    done = [(arm, run) for arm, run in cells if arm.name in accuracies]
    trained = [(arm, run) for arm, run in done if "rl" not in arm.skip]
    summary = a_summary({name: a_benchmark_summary(dataset, items) for name, dataset in FAMILIES.items()})
    stages = [
        {
            **run,
            "kind": kind,
            "stage_id": f"{kind}-{arm.name}-{run['student']}-{run['seed'] if arm.skip < {'sft', 'rl'} else 0}",
            "status": "done",
            "cpu_seconds": 90.0,
        }
        for arm, run in cells
        for kind in ("sft", "rl", "eval")
        if kind not in arm.skip
    ]
    return Results(
        verdicts=pd.concat([_verdicts(run, accuracies[arm.name], items) for arm, run in done], ignore_index=True),
        curves=pd.concat([_curves(run, accuracies[arm.name]) for arm, run in trained], ignore_index=True),
        stages=pd.DataFrame(stages),
        summaries={(arm.name, run["student"], run["seed"]): summary for arm, run in done},
        settings=settings,
        provenance={"git": {"commit": "0" * 40}, "seeds": list(spec.seeds), "first_started": 1.7e9, "profile": "small"},
    )


@pytest.fixture
def cold_start() -> tuple[Spec, Results]:
    return _cold_start()


@pytest.fixture(scope="session")
def new_cold_start() -> Callable[[], tuple[Spec, Results]]:
    """Makes the cold-start matrix anew, for fixtures that several tests share."""
    return _cold_start


@pytest.fixture(scope="session")
def cold_start_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the unchanged cold-start matrix, for tests that only read it."""
    spec, results = _cold_start()
    return build_report(spec, results, tmp_path_factory.mktemp("report")).parent


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures, which take most of the time of a report."""
    monkeypatch.setattr(analysis, "_figures", lambda *_: [])


def _cold_start() -> tuple[Spec, Results]:
    """The cold-start matrix with large effects in the directions of the paper."""
    both, sft, rl = frozenset({"sft", "rl"}), frozenset({"sft"}), frozenset({"rl"})
    skips = {
        "none+grpo": sft, "none+opd": sft, "none+grpo_opd": sft, "teacher+sft_only": rl, "teacher+grpo": frozenset(),
        "teacher+opd": frozenset(), "teacher+grpo_opd": frozenset(), "mismatch+sft_only": rl,
        "mismatch+grpo": frozenset(), "mismatch+opd": frozenset(), "mismatch+grpo_opd": frozenset(), "base": both,
        "rl_teacher_mismatch": frozenset(),
    }  # fmt: skip
    accuracies = {
        "none+grpo": 0.22, "none+opd": 0.12, "none+grpo_opd": 0.15, "teacher+sft_only": 0.48, "teacher+grpo": 0.55,
        "teacher+opd": 0.58, "teacher+grpo_opd": 0.66, "mismatch+sft_only": 0.44, "mismatch+grpo": 0.50,
        "mismatch+opd": 0.48, "mismatch+grpo_opd": 0.501, "base": 0.23, "rl_teacher_mismatch": 0.2,
    }  # fmt: skip
    contrasts = (
        Contrast("H1", "teacher+grpo_opd", "teacher+grpo"),
        Contrast("H2", "teacher+grpo", "teacher+sft_only"),
        Contrast("H3", "teacher+grpo_opd", "none+grpo_opd"),
        Contrast("H4", "teacher+grpo_opd", "mismatch+grpo_opd"),
        Contrast("H5", "mismatch+grpo_opd", "mismatch+grpo", expect="not_better"),
    )
    spec = Spec(tuple(Arm(name, skip) for name, skip in skips.items()), Analysis(contrasts))
    settings: dict[Any, Any] = {}
    for name in skips:
        settings[name, "sft"] = {"traces": "other_model" if name.startswith("mismatch") else "teacher", "steps": 120}
        weight = 0.3 if "opd" in name or "rl_teacher" in name else 0
        distill = {"weight": weight, "estimator": "k2", "mask": "wrong"}
        alone = name.endswith("+opd")
        settings[name, "rl"] = {"reward_weight": 0 if alone else 1.0, "distill": distill, "teacher": "teacher"}
    settings["rl_teacher_mismatch", "rl"]["teacher"] = "other_model"
    return spec, _results(spec, accuracies, settings, items=80)


@pytest.fixture
def sft_steps() -> tuple[Spec, Results]:
    """A matrix with a numeric axis: cold starts of four lengths, each followed by every objective."""
    lengths = {"s50": 50, "s100": 100, "s200": 200, "s400": 400}
    objectives = {"sft_only": 0.0, "grpo": 0.05, "grpo_opd": 0.12}
    arms, accuracies, settings = [], {}, {}
    for level, steps in lengths.items():
        for objective, gain in objectives.items():
            name = f"{level}+{objective}"
            skip = frozenset({"rl"}) if objective == "sft_only" else frozenset()
            overrides = {"sft.steps": f"{steps // 4}%"}
            arms.append(Arm(name, skip, overrides, {"length": level, "objective": objective}))
            accuracies[name] = 0.2 + 0.5 * (1 - np.exp(-steps / 150)) + gain
            settings[name, "sft"] = {"steps": steps, "traces": "teacher"}
            settings[name, "rl"] = {"distill": {"weight": 0.3 if objective == "grpo_opd" else 0}}
    arms.append(Arm("base", frozenset({"sft", "rl"})))
    accuracies["base"] = 0.22
    axes = {"length": tuple(lengths), "objective": tuple(objectives)}
    contrasts = (Contrast("H1", "s400+grpo_opd", "s400+grpo"),)
    spec = Spec(tuple(arms), Analysis(contrasts), name="sft_steps", axes=axes)
    return spec, _results(spec, accuracies, settings, items=60)


@pytest.fixture
def two_students() -> tuple[Spec, Results]:
    """A gain after two cold starts, of 15 points after the first and of 5 after the second, for two students."""
    gains = {"teacher+grpo": 0.40, "teacher+opd": 0.55, "mismatch+grpo": 0.40, "mismatch+opd": 0.45}
    axes = {"cold_start": ("teacher", "mismatch"), "objective": ("grpo", "opd")}
    arms = tuple(Arm(name, levels=dict(zip(axes, name.split("+"), strict=True))) for name in gains)
    contrasts = (
        Contrast("G1", "teacher+opd", "teacher+grpo"),
        Contrast("G2", "mismatch+opd", "mismatch+grpo"),
        Contrast(
            "match",
            Side("teacher+opd", "teacher+grpo"),
            Side("mismatch+opd", "mismatch+grpo"),
            claim="The teacher's cold start lets OPD gain more",
        ),
    )
    spec = Spec(arms, Analysis(contrasts), axes=axes)
    settings: dict[Any, Any] = {(name, "rl"): {"distill": {"weight": 0.1 * ("opd" in name)}} for name in gains}
    return spec, _results(spec, gains, settings, items=60, students=(STUDENT, "student_b"))


@pytest.fixture
def renamed() -> Callable[[tuple[Spec, Results], str, str], tuple[Spec, Results]]:
    """A function that renames an arm everywhere."""

    def rename(world: tuple[Spec, Results], old: str, new: str) -> tuple[Spec, Results]:
        spec, results = world
        for arm in spec.arms:
            arm.name = new if arm.name == old else arm.name
        for contrast in spec.analysis.contrasts:
            for side in (contrast.test, contrast.against):
                side.arm = new if side.arm == old else side.arm
        for table in (results.verdicts, results.sampled, results.curves, results.stages):
            if table.empty:
                continue
            table["arm"] = table["arm"].replace(old, new)
        results.settings |= {(new, kind): value for (arm, kind), value in results.settings.items() if arm == old}
        return spec, results

    return rename
