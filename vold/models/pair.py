"""Preflight of a student-teacher pair: do the same ids mean the same tokens?"""

from dataclasses import dataclass

from vold.models.language_model import LanguageModel

PLACEHOLDERS = ("<|image_pad|>", "<|video_pad|>")


class PairError(ValueError):
    """The teacher cannot score the student's completions."""


@dataclass(frozen=True, slots=True)
class PairReport:
    """reachable: ids the student can emit; teacher_only: tokens that the student lacks (it can never emit them)."""

    reachable: int
    teacher_only: tuple[str, ...]


def check_pair(student: LanguageModel, teacher: LanguageModel) -> PairReport:
    """Compare the tokenizers on the ids that the student can emit, and the output rows with them.

    Tokens of the teacher alone (``<think>`` for Qwen3 over Qwen2.5-VL) are no fault, only reported.
    Raises PairError naming the first ids that differ.
    """
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    reachable = {token: index for token, index in ours.items() if token not in PLACEHOLDERS}
    wrong = sorted((index, token) for token, index in reachable.items() if theirs.get(token) != index)
    if wrong:
        names = {index: token for token, index in theirs.items()}
        shown = "; ".join(f"id {index} is {token!r} here, {names.get(index)!r} there" for index, token in wrong[:3])
        raise PairError(
            f"teacher {teacher.path} has another vocabulary than student {student.path}: "
            f"{len(wrong)} of {len(reachable)} reachable ids differ ({shown}); "
            "choose a teacher of the student's tokenizer family"
        )
    rows = min(student.head.shape[0], teacher.head.shape[0])
    if max(reachable.values()) >= rows:
        raise PairError(f"teacher {teacher.path} has {rows} output rows, fewer than the student's tokenizer needs")
    return PairReport(len(reachable), tuple(sorted(theirs.keys() - ours.keys(), key=theirs.__getitem__)))
