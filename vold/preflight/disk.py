"""Is there room for checkpoints?"""

import shutil

from vold.findings import Finding, error
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes

_FP32 = 4


def needed_bytes(student: Sizes) -> int:
    """Two training states at once (the new one is whole before the old one goes) and the final checkpoint, in fp32.

    A state is the trained weights and AdamW's two moments.
    """
    return 2 * 3 * student.trained * _FP32 + student.total * _FP32


def disk_findings(job: Job, student: Sizes) -> list[Finding]:
    """Compare with what is free where ``run`` will be."""
    where = next(path for path in (job.run, *job.run.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(where).free, needed_bytes(student)
    if needed <= free:
        return []
    message = f"checkpoints need {needed / 1e9:.1f} GB, {where} has {free / 1e9:.1f} GB free"
    return [error("disk.too_small", message, job.where("run"), "free space there, or name another disk under `run`")]
