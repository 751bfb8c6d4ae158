"""LogicVista's comparison of answer sets (Yijia-Xiao/LogicVista, evaluation).

The published extraction is a list of letters by a judge model. If none is stored, a rule extracts the answer and the
method is ``rule``.

Faults of the original that are kept: a single letter outside a to e is dropped. Responses therefore cannot match the
reference answers F and G (v1_21, v1_4), but can match the digit of v1_20. Record v1_382 has no reference answer and
counts as wrong, so the denominator is 448.
"""

import re

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.answers import verify

_DROPPED = re.compile(r"[f-z]")


def score_logicvista(problem: Problem, prediction: Prediction) -> Ruling:
    stored = prediction.extraction
    parts = _parts(stored if stored is not None else _by_rule(problem, prediction.response))
    method = "rule" if stored is None else "stored"
    if not parts:
        return Ruling("unparsed", "", method)
    return Ruling.from_comparison(parts == _parts(problem.answer), ",".join(parts), method)


def _parts(text: str) -> list[str]:
    """The distinct parts of a list such as "B, D", sorted."""
    parts = sorted({part for piece in text.lower().split(",") if (part := piece.strip(" .()[]'\""))})
    return [] if len(parts) == 1 and _DROPPED.fullmatch(parts[0]) else parts


def _by_rule(problem: Problem, response: str) -> str:
    """The answer that strict mode extracts."""
    return verify(response, problem.answer or "A").normalised
