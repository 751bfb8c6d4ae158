"""LogicVista's comparison of answer sets (Yijia-Xiao/LogicVista, evaluation).

The published extraction is a judge model's list of letters; without a stored one it is done by rule, and the method
says so. Faults that are kept: a lone letter outside a to e is thrown away, so that the golds F and G (v1_21, v1_4)
cannot be met, while the digit of v1_20 can; v1_382 has no gold and counts as wrong, the denominator stays 448.
"""

import re

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.answers import verify

_THROWN_AWAY = re.compile(r"[f-z]")


def score_logicvista(problem: Problem, prediction: Prediction) -> Ruling:
    stored = prediction.extraction
    found = _parts(stored if stored is not None else _by_rule(problem, prediction.response))
    method = "rule" if stored is None else "stored"
    if not found:
        return Ruling("unparsed", "", method)
    return Ruling.of(found == _parts(problem.answer), ",".join(found), method)


def _parts(text: str) -> list[str]:
    """The distinct parts of a list such as "B, D", sorted."""
    parts = sorted({part for piece in text.lower().split(",") if (part := piece.strip(" .()[]'\""))})
    return [] if len(parts) == 1 and _THROWN_AWAY.fullmatch(parts[0]) else parts


def _by_rule(problem: Problem, response: str) -> str:
    """What strict mode reads, be it right or wrong."""
    return verify(response, problem.answer or "A").normalised
