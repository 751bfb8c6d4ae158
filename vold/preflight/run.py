"""Runs all checks on one or several training runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vold.data.sources import AbsentData, DataSource
from vold.findings import Finding, error, errors
from vold.models.checkpoint import Checkpoint, Role, read_checkpoint
from vold.models.parts import to_freeze
from vold.preflight.data import Rows, image_file_findings, read_rows, sample_rows, think_findings
from vold.preflight.disk import disk_findings
from vold.preflight.engines import engine_findings
from vold.preflight.job import Job
from vold.preflight.lengths import Lengths, length_findings, measure_lengths
from vold.preflight.memory import MemoryEstimate, estimate_memory, memory_findings
from vold.preflight.pair import model_findings
from vold.preflight.rewards import reference_answer_findings, self_test_findings
from vold.preflight.settings import batch_findings, image_policy_findings, setting_findings, trainable_findings
from vold.preflight.sizes import model_sizes
from vold.preflight.templates import Rendering, render_template
from vold.preflight.tokenizers import THINK

THEMES = {
    "checkpoints": "files, kind and shape of both models",
    "settings": "settings that contradict each other",
    "tokenizers": "ids that mean the same in both models, end of turn, padding",
    "templates": "chat templates",
    "images": "placeholders and visual tokens",
    "data": "rows of the training data",
    "lengths": "lengths in tokens, limits and contexts",
    "rewards": "self-test, and readable reference answers",
    "engines": "attention heads, lengths and memory of vLLM, if it samples",
    "memory": "estimated memory and the device",
    "disk": "room for checkpoints on the disk",
}


@dataclass(slots=True)
class PreflightReport:
    """Findings in the order of ``THEMES``. ``unchecked`` maps themes that could not be checked to the reason."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    renderings: list[tuple[Checkpoint, Rendering]] = field(default_factory=list)
    estimates: list[tuple[Job, MemoryEstimate]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not errors(self.findings)

    def add(self, findings: Sequence[Finding]) -> None:
        """Add findings that are not there yet; several runs share most of theirs."""
        self.findings += [finding for finding in dict.fromkeys(findings) if finding not in self.findings]


def run_preflight(jobs: Sequence[Job]) -> PreflightReport:
    """Check training runs without loading weights. Faults of a run are findings and never raise."""
    session = _Session(PreflightReport())
    for job in jobs:
        session.check(job)
    order = list(THEMES)
    session.report.findings.sort(key=lambda finding: order.index(finding.theme))
    return session.report


class _Session:
    """One preflight. It reads only once what several jobs share."""

    def __init__(self, report: PreflightReport) -> None:
        self.report = report
        self.checkpoints: dict[tuple[Role, Path], Checkpoint | None] = {}
        self.rows: dict[tuple[str, Path | DataSource], Rows] = {}
        self.lengths: dict[tuple[Path, Path | DataSource], Lengths] = {}
        self.rewards_tested = False

    def check(self, job: Job) -> None:
        report = self.report
        report.add(setting_findings(job))
        student = self._checkpoint("student", job.student, job.weights_here)
        teacher = self._checkpoint("teacher", job.teacher, job.weights_here) if job.teacher else None
        readable = [side for side in (student, teacher) if side is not None and side.tokenizer is not None]
        if student in readable:
            report.add(model_findings(student, teacher if teacher in readable else None))
        else:
            self._skip("the student has no readable tokenizer", "tokenizers", "templates", "images", "lengths")
        rows = self._data(job)
        lengths = self._lengths(job, readable, rows) if student in readable else Lengths((), ())
        if job.kind == "rl":
            self._rewards(job, rows)
        if student is not None:
            self._sizes(job, student, teacher, rows, lengths.longest_prompt)
        else:
            self._skip("the student has no readable config", "engines", "memory", "disk")

    def _checkpoint(self, role: Role, path: Path, weights: bool) -> Checkpoint | None:
        if (role, path) not in self.checkpoints:
            checkpoint, findings = read_checkpoint(role, path, weights)
            self.checkpoints[role, path] = checkpoint
            self.report.add(findings)
            if checkpoint is not None:
                self.report.checkpoints.append(checkpoint)
                rendering = render_template(checkpoint) if checkpoint.tokenizer is not None else None
                self.report.renderings += [(checkpoint, rendering)] if rendering else []
        return self.checkpoints[role, path]

    def _data(self, job: Job) -> Rows:
        if job.data is None or not _here(job.data):
            name = "traces" if job.kind == "sft" else "prompts"
            self._skip(f"the {name} are not on this machine yet", "data", "lengths")
            return []
        key = (job.kind, job.data)
        if key not in self.rows:
            self.rows[key], findings = read_rows(job.data, job.kind)
            self.report.add(findings + image_file_findings(job.data, sample_rows(self.rows[key])))
        self.report.add(batch_findings(job, len(self.rows[key])))
        self.report.add(image_policy_findings(job, self.rows[key]))
        return self.rows[key]

    def _lengths(self, job: Job, sides: Sequence[Checkpoint], rows: Rows) -> Lengths:
        """Report on the lengths under both models, and return those of the student."""
        sides = [side for side in sides if render_template(side) is not None]
        if job.data is None or not rows or not sides or sides[0].role != "student":
            return Lengths((), ())
        measured = []
        for side in sides:
            key = (side.path, job.data)
            if key not in self.lengths:
                self.lengths[key] = measure_lengths(side, sample_rows(rows))
            measured.append((side, self.lengths[key]))
        self.report.add(length_findings(job, measured))
        pieces = len(sides[0].tokenizer.tokenize(THINK[0]))
        self.report.add(think_findings(job.data, rows, pieces))
        return measured[0][1]

    def _rewards(self, job: Job, rows: Rows) -> None:
        if not self.rewards_tested:
            self.rewards_tested = True
            self.report.add(self_test_findings())
        if job.data is not None:
            self.report.add(reference_answer_findings(job.data, rows))  # type: ignore[arg-type]

    def _sizes(self, job: Job, student: Checkpoint, teacher: Checkpoint | None, rows: Rows, prompt: int) -> None:
        try:
            frozen = to_freeze(job.config.freeze, images=any(row.images for row in rows))
            sizes = model_sizes(student, frozen, job.config.lora)
            teacher_sizes = model_sizes(teacher) if teacher else None
        except Exception as exception:  # transformers can read the config but not build the model
            if not errors(self.report.findings):
                message = f"no model can be built from config.json ({exception})"
                fix = "use the config of the release that the weights come from"
                self.report.add([error("checkpoints.unbuildable", message, job.student, fix)])
            self._skip("a model cannot be built from its config", "engines", "memory", "disk")
            return
        self.report.add(trainable_findings(job, sizes) + engine_findings(job, student, sizes, prompt))
        estimated = estimate_memory(job, sizes, teacher_sizes, prompt)
        self.report.estimates.append((job, estimated))
        self.report.add(memory_findings(job, estimated))
        self.report.add(disk_findings(job, sizes))

    def _skip(self, why: str, *themes: str) -> None:
        for theme in themes:
            self.report.unchecked.setdefault(theme, why)


def _here(source: Path | DataSource) -> bool:
    """Whether the data can be read without fetching them. Faults of the data are reported when they are read."""
    if isinstance(source, Path) or not source.revision:
        return True
    try:
        source.files(fetch=False)
    except AbsentData:
        return False
    except ValueError:
        pass
    return True
