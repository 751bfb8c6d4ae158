from dataclasses import replace

from bench.evaluation.running_scores import RunningScores
from bench.records import Response
from tests.helpers.evaluation_results import problems


def test_the_accuracy_so_far_is_that_of_reasoning() -> None:
    (sum_, other), image = problems(["q0", "q1"]), problems(["sign"])[0]
    image = replace(image, benchmark="transcription", kind="text", answer="STOP")
    board = RunningScores([sum_, other, image])
    board.add(Response("transcription", "sign", 0, "STEP", 2, "stop"))
    assert "accuracy" not in board.metrics()
    board.add(Response("mathvision", "q0", 0, r"\boxed{3}", 4, "stop"))
    assert board.metrics() == {
        "accuracy": 1.0, "right": 1.0, "scored": 1.0, "unparsed": 0.0, "truncated": 0.0, "error": 0.0, "tokens": 6.0,
    }  # fmt: skip
    assert len(board.verdicts) == 2


def test_the_accuracy_so_far_is_that_of_perception_if_nothing_else_is_asked() -> None:
    image = replace(problems(["sign"])[0], benchmark="transcription", kind="text", answer="STOP")
    board = RunningScores([image])
    board.add(Response("transcription", "sign", 0, "STOP", 2, "stop"))
    assert board.metrics()["accuracy"] == 1.0
