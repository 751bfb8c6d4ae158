"""Transcription has no other publisher, so its procedure is the strict one: the text must be stated exactly."""

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.answers import verify_text


def score_transcription(problem: Problem, prediction: Prediction) -> Ruling:
    stored = prediction.extraction
    outcome = verify_text(prediction.response if stored is None else stored, problem.answer)
    method = outcome.method if stored is None else "stored"
    if outcome.state == "unparsed":
        return Ruling("unparsed", "", method)
    return Ruling.from_comparison(outcome.correct, outcome.normalised, method)
