"""What several samples an item say: their mean, whether any is right, what most of them answer. In [0, 1] units."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from bench.stats.estimates import Accuracy, accuracy

_VOTERS = frozenset({"right", "wrong"})


def sample_metrics(verdicts: pd.DataFrame, samples: int) -> dict[str, Accuracy]:
    """avg@k, and for ``samples`` > 1 also pass@j (j = 2, 4, ... and k) and maj@k, each with its interval.

    verdicts: the rows of one arm (columns benchmark, id, cluster, sample, state, correct, normalised), a row each
    sample that there is. pass@j is the unbiased estimator; an item with fewer than j samples is left out of it, and
    ``items`` says how many are in. maj@k votes over the samples that there are. Raises ValueError where there is no
    row.
    """
    rows = verdicts if "seed" in verdicts else verdicts.assign(seed=0)
    found = {f"avg@{samples}": accuracy(rows)}
    if samples == 1:
        return found
    items = _items(rows)
    for tries in _ladder(samples):
        enough = items[items["n"] >= tries]
        if len(enough):
            passed = pass_at(enough["n"].to_numpy(), enough["right"].to_numpy(), tries)
            found[f"pass@{tries}"] = accuracy(enough.assign(correct=passed))
    found[f"maj@{samples}"] = accuracy(items.assign(correct=items["majority"]))
    return found


def pass_at(n: np.ndarray, right: np.ndarray, tries: int) -> np.ndarray:
    """1 - C(n - right, tries) / C(n, tries) for each item: the unbiased estimator of at least one right answer in
    ``tries`` (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1), as a stable product.

    n, right: shape [items], n >= tries. Returns shape [items].
    """
    drawn = np.arange(tries)
    factors = 1 - right[:, None] / np.maximum(n[:, None] - drawn, 1)
    return 1 - np.clip(factors, 0, 1).prod(axis=1)


def _ladder(samples: int) -> list[int]:
    """2, 4, 8, ... below ``samples``, and ``samples``."""
    return [2**power for power in range(1, samples.bit_length()) if 2**power < samples] + [samples]


def _items(rows: Any) -> Any:
    """One row an item and seed: ``n`` samples, ``right`` of them, and whether the ``majority`` is right."""
    columns = ["benchmark", "id", "seed", "cluster", "sample", "state", "correct", "normalised"]
    ordered = rows[columns].sort_values("sample", kind="stable")
    cells: dict[tuple[Any, ...], list[tuple[str, bool, str]]] = {}
    for benchmark, id, seed, cluster, _, state, correct, answer in ordered.itertuples(index=False):
        cells.setdefault((benchmark, id, seed, cluster), []).append((state, bool(correct), answer))
    return pd.DataFrame(
        {
            **dict(zip(("benchmark", "id", "seed", "cluster"), key, strict=True)),
            "n": len(samples),
            "right": sum(correct for _, correct, _ in samples),
            "majority": _majority_is_right(samples),
        }
        for key, samples in cells.items()
    )


def _majority_is_right(samples: list[tuple[str, bool, str]]) -> bool:
    """Only answers that were read vote; of equally frequent ones the first given wins."""
    votes = Counter(answer for state, _, answer in samples if state in _VOTERS)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]  # in the order of first occurrence where counts are equal
    return next(correct for state, correct, answer in samples if state in _VOTERS and answer == winner)
