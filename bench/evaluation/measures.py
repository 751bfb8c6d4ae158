"""The figures of ``summary.json``: counts, and measures with their intervals."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bench.benchmarks.registry import pooled
from bench.evaluation.baselines import baselines
from bench.evaluation.hashes import combined_hash
from bench.evaluation.selection import Selection
from bench.records import STATES, Frame
from bench.summary import BenchmarkSummary, FirstPrompt, Measure


def measures(verdicts: Frame, samples: int) -> dict[str, Measure]:
    """avg@k, pass@k and maj@k with interval, counts and MDE; empty if there is no verdict."""
    from bench.stats.cells import one_run
    from bench.stats.samples import sample_metrics  # scipy imports slowly

    accuracies = sample_metrics(one_run(verdicts), samples) if len(verdicts) else {}
    return {
        name: Measure(a.value, a.low, a.high, n=a.n, items=a.items, seeds=a.runs, mde=a.mde)
        for name, a in accuracies.items()
    }


def pooled_measures(verdicts: Frame, parts: Mapping[str, BenchmarkSummary], samples: int) -> dict[str, Measure]:
    """The measures over the benchmarks that are pooled, each with the same weight.

    verdicts: the rows of all benchmarks. parts: the summary of each.
    """
    names = pooled(parts)
    if len(names) == 1:
        return parts[names[0]].measures
    return measures(verdicts[verdicts["benchmark"].isin(names)] if len(verdicts) else verdicts, samples)


def summarise(
    selection: Selection, verdicts: Frame, samples: int, records: Mapping[str, str], prompt: FirstPrompt
) -> BenchmarkSummary:
    """The summary of one benchmark.

    verdicts: the rows of the benchmark. records: the ``record_hashes`` of the selected problems.
    """
    dataset = selection.dataset
    return BenchmarkSummary(
        dataset=dataset.name,
        split=dataset.split,
        synthetic=dataset.synthetic,
        passed_over=dict(dataset.passed_over),
        records=len(dataset.problems),
        problems=len(selection.problems),
        records_sha256=combined_hash(records),
        unscorable={problem.id: problem.unscorable for problem in dataset.problems if problem.unscorable},
        expected=len(selection.problems) * samples,
        baselines=baselines(dataset.problems, selection.problems),
        prompt=prompt,
        **figures(verdicts, samples),
    )


def figures(verdicts: Frame, samples: int) -> dict[str, Any]:
    """The fields of a ``BenchmarkSummary`` that follow from the verdicts. Errors of the engine count as not right."""
    answered = len(verdicts) > 0
    states: Counter[str] = Counter(verdicts["state"]) if answered else Counter()
    errors: Counter[str] = Counter(verdicts.loc[verdicts["state"] == "error", "method"]) if answered else Counter()
    return {
        "n": len(verdicts),
        "accuracy": float(verdicts["correct"].mean()) if answered else None,
        "measures": measures(verdicts, samples),
        "states": {state: states[state] for state in STATES},
        "errors": dict(errors.most_common(5)),
        "tokens": int(verdicts["tokens"].sum()) if answered else 0,
    }
