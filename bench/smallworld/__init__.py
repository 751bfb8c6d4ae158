"""The small world: synthetic problems and tiny models of the real architectures.

It is the default of every matrix. Everything in it is synthetic and is labelled as such wherever it appears.
"""

from pathlib import Path

CHECKPOINTS = (
    "student_a",
    "student_b",
    "student_c",
    "teacher",
    "teacher_mirror",
    "teacher_list",
    "teacher_tape",
)


def checkpoint_path(name: str) -> Path:
    """The directory of a bundled checkpoint. Raises KeyError for an unknown name; the message lists the known ones."""
    if name not in CHECKPOINTS:
        raise KeyError(f"no small-world checkpoint {name!r}; known: {', '.join(CHECKPOINTS)}")
    return Path(__file__).parent / "checkpoints" / name
