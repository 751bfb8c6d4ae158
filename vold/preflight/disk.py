"""Checks that the disk has room for the checkpoint and the training state."""

import shutil

from vold.findings import Finding, error
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes

_FP32 = 4


def needed_bytes(student: Sizes) -> int:
    """Bytes of two training states and the final checkpoint, all in fp32.

    There are two states for a moment, because the new one is complete before the old one is deleted. A state holds the
    trained weights and AdamW's two moments.
    """
    return 2 * 3 * student.trained * _FP32 + student.total * _FP32


def disk_findings(job: Job, student: Sizes) -> list[Finding]:
    """Compares the bytes needed with the free space of the disk of ``run``."""
    directory = next(path for path in (job.run, *job.run.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(directory).free, needed_bytes(student)
    if needed <= free:
        return []
    message = f"the run's files need {needed / 1e9:.1f} GB, but {directory} has {free / 1e9:.1f} GB free"
    return [
        error(
            "disk.too_small", message, job.where("run"), "free space there, or set `run` to a directory on another disk"
        )
    ]
