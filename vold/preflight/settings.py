"""Settings that are each valid, but not together or not with this data."""

import importlib.util

from vold.config import DistillConfig, RLConfig
from vold.data.images import check_images
from vold.data.prompts import Prompt
from vold.findings import Finding, error, note, warning
from vold.preflight.data import Rows
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes


def setting_findings(job: Job) -> list[Finding]:
    """Contradictions that the config's own validation cannot see."""
    findings = []
    if isinstance(job.config, RLConfig) and job.config.distill.active and job.teacher is None:
        message = f"distill.weight is {job.config.distill.weight:g}, but there is no teacher"
        fix = "name a checkpoint under `teacher`, or set distill.weight to 0"
        findings.append(error("settings.no_teacher", message, job.where("config.distill.weight"), fix))
    if isinstance(job.config, RLConfig) and job.teacher is not None and _silent(job.config.distill):
        message = "the teacher is only watched: distill.weight is not set, and its default is 0"
        fix = "set distill.weight (the small profile has 0.1), or write 0 where that is meant"
        findings.append(note("settings.silent_teacher", message, job.where("config.distill.weight"), fix))
    warm, steps = job.config.optimizer.warmup_steps, job.config.steps
    if warm >= steps:
        message = f"the warm-up of {warm} steps outlasts the run of {steps}: the learning rate is never reached"
        fix = f"set warmup_steps below {steps}, about a tenth of the steps"
        findings.append(warning("settings.warmup", message, job.where("config.optimizer.warmup_steps"), fix))
    return findings + _process_findings(job) + _package_findings(job)


def _silent(distill: DistillConfig) -> bool:
    """Whether nothing was said of the teacher's weight; a 0 that is written is meant."""
    return not distill.active and "weight" not in distill.model_fields_set


def _package_findings(job: Job) -> list[Finding]:
    """Optional packages that the settings call for; only a warning, as the run may be meant for another machine."""
    needs = {"deepspeed": ("deepspeed", job.execution.parallel.strategy != "none", "execution.parallel.strategy")}
    needs["peft"] = ("lora", job.config.lora is not None, "config.lora")
    if isinstance(job.config, RLConfig):
        needs["vllm"] = ("vllm", job.config.rollout == "vllm", "config.rollout")
    absent = [
        (module, extra, setting)
        for module, (extra, needed, setting) in needs.items()
        if needed and importlib.util.find_spec(module) is None
    ]
    return [
        warning(
            "settings.package", f"{module} is not installed here", job.where(setting),
            f"`pip install 'vold-bench[{extra}]'` where the run is meant to be",
        )
        for module, extra, setting in absent
    ]  # fmt: skip


def _process_findings(job: Job) -> list[Finding]:
    """As many processes as GPUs: one that shares a GPU fails, a GPU without one is idle."""
    processes, device = job.execution.processes, job.device
    if device is None or device.kind != "cuda" or processes == device.count:
        return []
    message, where = f"processes: {processes}, but {device}", job.where("execution.processes")
    if processes > device.count:
        return [error("settings.processes", message, where, f"set processes to at most {device.count}, one a GPU")]
    fix = f"set processes to {device.count} to use all of them, or name as many GPUs as are meant"
    return [warning("settings.idle_gpus", message, where, fix)]


def trainable_findings(job: Job, student: Sizes) -> list[Finding]:
    """Is anything left to train?"""
    if student.trained:
        return []
    message = f"all {student.total:,} parameters are frozen by {', '.join(job.config.freeze)}"
    return [error("settings.all_frozen", message, job.where("config.freeze"), "take a part out of `freeze`")]


def batch_findings(job: Job, rows: int) -> list[Finding]:
    """Is there enough data for one step?"""
    rl = isinstance(job.config, RLConfig)
    key = "prompts_per_step" if rl else "batch_size"
    wanted = getattr(job.config, key)
    if not rows or wanted <= rows:
        return []
    message = f"a step draws {wanted}, the data has {rows}: the same rows come several times in one step"
    return [warning("settings.batch", message, job.where(f"config.{key}"), f"set {key} to at most {rows}, or add data")]


def image_policy_findings(job: Job, rows: Rows) -> list[Finding]:
    """Does a teacher that sees no images know what to make of prompts with some?"""
    if not isinstance(job.config, RLConfig) or job.teacher is None:
        return []
    if not job.config.distill.active and job.config.distill.monitor_every == 0:
        return []
    try:
        check_images([row for row in rows if isinstance(row, Prompt)], job.config.distill.images, "it")
    except ValueError as exception:
        message, _, fix = str(exception).partition("; ")
        return [error("settings.images", message, job.where("config.distill.images"), fix)]
    return []
