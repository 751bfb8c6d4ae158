"""Metrics over several samples per problem: avg@k, pass@k and maj@k, as shares in [0, 1]."""

from collections import Counter

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

from bench.records import Frame
from bench.stats.cells import RUN_KEY, FloatArray, IntArray
from bench.stats.estimates import Accuracy, accuracy

_VOTERS = frozenset({"right", "wrong"})


def sample_metrics(verdicts: Frame, samples: int) -> dict[str, Accuracy]:
    """avg@k, and for ``samples`` > 1 also pass@j (j = 2, 4, ... and k) and maj@k, each with its interval.

    pass@j is the unbiased estimator. It leaves out problems with fewer than j samples, and ``items`` of the result
    counts the problems that are in. maj@k votes over the samples that exist.
    Raises ValueError for an arm without rows.

    verdicts: rows of one arm, one per existing sample, with the columns benchmark, id, cluster, sample, state,
        student, seed, correct and normalised.
    samples: the planned number k of samples per problem.
    """
    metrics = {f"avg@{samples}": accuracy(verdicts)}
    if samples == 1:
        return metrics
    problems = _counts(verdicts)
    for tries in _ladder(samples):
        enough = _passed(problems, tries)
        if len(enough):
            metrics[f"pass@{tries}"] = accuracy(enough)
    metrics[f"maj@{samples}"] = accuracy(problems.assign(correct=problems["majority"]))
    return metrics


def passed(verdicts: Frame, tries: int) -> Frame:
    """One row per problem and run with at least ``tries`` samples, whose ``correct`` is pass@tries.

    verdicts: as for ``sample_metrics``.
    """
    return _passed(_counts(verdicts), tries)


def _passed(problems: Frame, tries: int) -> Frame:
    enough = problems[problems["n"] >= tries]
    return enough.assign(correct=pass_at(enough["n"].to_numpy(), enough["right"].to_numpy(), tries))


def pass_at(n: IntArray, right: IntArray, tries: int) -> FloatArray:
    """pass@k of each problem: the probability that ``tries`` of its samples contain a right answer, shape [problems].

    The unbiased estimator 1 - C(n - right, tries) / C(n, tries) of Chen et al. 2021, "Evaluating Large Language
    Models Trained on Code", eq. 1, as a numerically stable product.

    n, right: counts of all samples and of right samples, shape [problems], with n >= tries.
    """
    drawn = np.arange(tries)
    factors = 1 - right[:, None] / np.maximum(n[:, None] - drawn, 1)
    return 1 - np.clip(factors, 0, 1).prod(axis=1)


def _ladder(samples: int) -> list[int]:
    """2, 4, 8, ... below ``samples``, then ``samples`` itself."""
    return [2**power for power in range(1, samples.bit_length()) if 2**power < samples] + [samples]


def _counts(rows: Frame) -> Frame:
    """One row per problem and run: the counts ``n`` and ``right``, and whether the ``majority`` is right."""
    keys = ["benchmark", "id", *RUN_KEY, "cluster"]
    ordered = rows[[*keys, "sample", "state", "correct", "normalised"]].sort_values("sample", kind="stable")
    cells: dict[tuple[object, ...], list[tuple[str, bool, str]]] = {}
    for *key, _, state, correct, answer in ordered.itertuples(index=False):
        cells.setdefault(tuple(key), []).append((state, bool(correct), answer))
    return pd.DataFrame(
        {
            **dict(zip(keys, key, strict=True)),
            "n": len(samples),
            "right": sum(correct for _, correct, _ in samples),
            "majority": _majority_is_right(samples),
        }
        for key, samples in cells.items()
    )


def _majority_is_right(samples: list[tuple[str, bool, str]]) -> bool:
    """Whether the most frequent answer is right. Unreadable answers have no vote; on a tie the first answer wins."""
    votes = Counter(answer for state, _, answer in samples if state in _VOTERS)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]  # on a tie, in the order of first occurrence
    return next(correct for state, correct, answer in samples if state in _VOTERS and answer == winner)
