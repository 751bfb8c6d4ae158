"""Checks settings that are valid on their own, but not together or not with the data."""

import importlib.util

from vold.config import DistillConfig, RLConfig
from vold.data.images import check_images
from vold.data.prompts import Prompt
from vold.findings import Finding, error, note, warning
from vold.preflight.data import Rows
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes


def setting_findings(job: Job) -> list[Finding]:
    """Contradictions that the validation of a single config cannot find."""
    findings = []
    if isinstance(job.config, RLConfig) and job.config.distill.needs_teacher and job.teacher is None:
        message = f"distill.weight is {job.config.distill.weight:g}, but there is no teacher"
        fix = "name a checkpoint under `teacher`, or set distill.weight to 0"
        findings.append(error("settings.no_teacher", message, job.where("config.distill.weight"), fix))
    if isinstance(job.config, RLConfig) and job.teacher is not None and _lacks_weight(job.config.distill):
        message = "the teacher is only used for monitoring, because distill.weight is not set and its default is 0"
        fix = "set distill.weight (the small profile has 0.1), or set it to 0 explicitly if that is intended"
        findings.append(note("settings.silent_teacher", message, job.where("config.distill.weight"), fix))
    warm, steps = job.config.optimizer.warmup_steps, job.config.steps
    if isinstance(job.config, RLConfig):
        steps = min(map(len, job.config.parts))  # each part has a warm-up of its own
    if warm >= steps:
        message = f"the warm-up takes {warm} of {steps} steps, so the learning rate is never reached"
        fix = f"set warmup_steps below {steps}, about a tenth of the steps"
        findings.append(warning("settings.warmup", message, job.where("config.optimizer.warmup_steps"), fix))
    return findings + _process_findings(job) + _package_findings(job)


def _lacks_weight(distill: DistillConfig) -> bool:
    """Whether the weight of the teacher term is not set. An explicit 0 counts as set."""
    return not distill.active and "weight" not in distill.model_fields_set


def _package_findings(job: Job) -> list[Finding]:
    """Checks for optional packages that the settings need. A warning, as the run may be for another machine."""
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
            f"run `pip install 'vold-bench[{extra}]'` on the machine of the run",
        )
        for module, extra, setting in absent
    ]  # fmt: skip


def _process_findings(job: Job) -> list[Finding]:
    """Checks that there are as many processes as GPUs. A process that shares a GPU fails."""
    processes, device = job.execution.processes, job.device
    if device is None or device.kind != "cuda" or processes == device.count:
        return []
    message, where = f"processes is {processes}, but the GPUs are {device}", job.where("execution.processes")
    if processes > device.count:
        return [error("settings.processes", message, where, f"set processes to at most {device.count}, one per GPU")]
    fix = f"set processes to {device.count} to use all GPUs, or name only as many GPUs as the run uses"
    return [warning("settings.idle_gpus", message, where, fix)]


def trainable_findings(job: Job, student: Sizes) -> list[Finding]:
    """Checks that some parameters are trained."""
    if student.trained:
        return []
    message = f"all {student.total:,} parameters are frozen by {', '.join(job.config.freeze)}"
    return [error("settings.all_frozen", message, job.where("config.freeze"), "remove a part from `freeze`")]


def batch_findings(job: Job, rows: int) -> list[Finding]:
    """Checks that there are enough rows for one step."""
    rl = isinstance(job.config, RLConfig)
    key = "prompts_per_step" if rl else "batch_size"
    size = getattr(job.config, key)
    if not rows or size <= rows:
        return []
    message = f"a step draws {size} rows, but the data have {rows}, so rows are repeated within a step"
    return [warning("settings.batch", message, job.where(f"config.{key}"), f"set {key} to at most {rows}, or add data")]


def image_policy_findings(job: Job, rows: Rows) -> list[Finding]:
    """Checks that ``distill.images`` says how the teacher reads prompts with images, if there are any."""
    if not isinstance(job.config, RLConfig) or job.teacher is None or not job.config.distill.uses_teacher:
        return []
    try:
        check_images([row for row in rows if isinstance(row, Prompt)], job.config.distill.images, "it")
    except ValueError as exception:
        message, _, fix = str(exception).partition("; ")
        return [error("settings.images", message, job.where("config.distill.images"), fix)]
    return []
