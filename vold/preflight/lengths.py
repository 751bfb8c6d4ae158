"""Checks the lengths of prompts and traces against the context of both models and the configured limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vold.config import RLConfig
from vold.data.prompts import Prompt, Trace, chat
from vold.findings import Finding, error, warning
from vold.models.checkpoint import Checkpoint
from vold.models.language_model import LanguageModel
from vold.preflight.data import Rows, image_size
from vold.preflight.job import Job

if TYPE_CHECKING:
    from transformers import Qwen2VLImageProcessorPil


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of the sampled rows in tokens.

    prompts: length of each prompt.
    totals: length of each prompt, with completion and end of turn if the row is a trace.
    """

    prompts: tuple[int, ...]
    totals: tuple[int, ...]

    @property
    def longest_prompt(self) -> int:
        return max(self.prompts, default=0)


def measure_lengths(side: Checkpoint, rows: Rows) -> Lengths:
    """Lengths under one model's template and tokenizer, as the trainer encodes rows. A teacher reads captions."""
    reader = LanguageModel(side.path, None, side.tokenizer)
    prompts, totals = [], []
    for row in rows:
        if side.role == "student":
            length = len(reader.encode_text(chat(row.text, row.images))) + _visual_tokens(side, row.images)
        else:
            length = len(reader.encode_text(row.in_words() if isinstance(row, Prompt) else row.text))
        prompts.append(length)
        if isinstance(row, Trace):
            length += len(side.tokenizer(row.completion, add_special_tokens=False)["input_ids"]) + 1
        totals.append(length)
    return Lengths(tuple(prompts), tuple(totals))


def _visual_tokens(side: Checkpoint, images: Sequence[Path]) -> int:
    """Tokens of the images in addition to one placeholder each. Unreadable images count as nothing."""
    if not images:
        return 0
    processor = image_processor(side.path)
    sizes = [size for image in images if (size := image_size(image)) is not None]
    patches = [processor.get_number_of_image_patches(height, width, {}) for width, height in sizes]
    return sum(count // processor.merge_size**2 - 1 for count in patches)


@cache
def image_processor(path: Path) -> "Qwen2VLImageProcessorPil":
    """The student's image processor, which determines how images are resized."""
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(path)


def length_findings(job: Job, sides: Sequence[tuple[Checkpoint, Lengths]]) -> list[Finding]:
    """All checks of lengths. sides: the student, then the teacher if there is one."""
    if isinstance(job.config, RLConfig):
        return [finding for side, lengths in sides for finding in _context_findings(job, side, lengths)]
    return _trace_findings(job, *sides[0])


def _context_findings(job: Job, side: Checkpoint, lengths: Lengths) -> list[Finding]:
    """Checks that every prompt leaves room for the longest completion."""
    if side.context is None or not isinstance(job.config, RLConfig):
        return []
    longest, completion = lengths.longest_prompt, job.config.max_new_tokens
    if longest + completion <= side.context:
        return []
    limits = f"{side.role} {side.path / 'config.json'}: max_position_embeddings {side.context}"
    if longest >= side.context:
        over = sum(length >= side.context for length in lengths.prompts)
        message = (
            f"{over} of {len(lengths.prompts)} prompts fill the whole context (longest {longest} tokens; {limits})"
        )
        where = job.data or job.where("prompts")
        return [
            error(
                "lengths.prompt_over_context", message, where, f"drop prompts over {side.context - completion} tokens"
            )
        ]
    message = f"a prompt of {longest} and a completion of {completion} tokens exceed the context ({limits})"
    fix = f"set max_new_tokens to at most {side.context - longest}, or drop the longest prompts"
    return [error("lengths.context", message, job.where("config.max_new_tokens"), fix)]


def _trace_findings(job: Job, side: Checkpoint, lengths: Lengths) -> list[Finding]:
    """Checks how many traces are too long, and that the others fit the context."""
    limit, findings = job.config.max_length, []  # type: ignore[union-attr]
    where = job.where("config.max_length")
    longest = max((length for length in lengths.totals if length <= limit), default=0)
    if side.context is not None and longest > side.context:
        message = f"traces of up to {longest} tokens are kept, but max_position_embeddings is {side.context}"
        findings.append(
            error("lengths.trace_over_context", message, where, f"set max_length to at most {side.context}")
        )
    dropped = sum(length > limit for length in lengths.totals)
    if not dropped:
        return findings
    share = dropped / len(lengths.totals)
    needed = sorted(lengths.totals)[int(0.99 * (len(lengths.totals) - 1))]
    message = f"{100 * share:.1f} % of the traces are over max_length {limit} and would be left out"
    fix = f"set max_length to {needed} to keep 99 %, or write shorter traces"
    level = error if dropped == len(lengths.totals) else warning
    return [*findings, level("lengths.dropped", message, where, fix)]
