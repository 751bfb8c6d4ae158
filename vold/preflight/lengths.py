"""Prompts and traces in tokens, against the context of both models and the limits that were set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vold.config import RLConfig
from vold.data.prompts import Prompt, Trace, chat
from vold.findings import Finding, error, warning
from vold.models.checkpoint import Checkpoint
from vold.models.language_model import LanguageModel
from vold.preflight.data import Rows, image_size
from vold.preflight.job import Job


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each looked-at row: prompt, and prompt with completion and end of turn (SFT; else the prompt)."""

    prompts: tuple[int, ...]
    wholes: tuple[int, ...]

    @property
    def longest_prompt(self) -> int:
        return max(self.prompts, default=0)


def measure_lengths(side: Checkpoint, rows: Rows) -> Lengths:
    """Lengths under one side's template and tokenizer, as the trainer encodes; a teacher reads captions."""
    reader = LanguageModel(side.path, None, side.tokenizer)
    prompts, wholes = [], []
    for row in rows:
        if side.role == "student":
            length = len(reader.encode_text(chat(row.text, row.images))) + _visual_tokens(side, row.images)
        else:
            length = len(reader.encode_text(row.in_words() if isinstance(row, Prompt) else row.text))
        prompts.append(length)
        if isinstance(row, Trace):
            length += len(side.tokenizer(row.completion, add_special_tokens=False)["input_ids"]) + 1
        wholes.append(length)
    return Lengths(tuple(prompts), tuple(wholes))


def _visual_tokens(side: Checkpoint, images: Sequence[Path]) -> int:
    """Tokens that the images take beyond their one placeholder each; unreadable ones are counted as nothing."""
    if not images:
        return 0
    processor = image_processor(side.path)
    sizes = [size for image in images if (size := image_size(image)) is not None]
    patches = [processor.get_number_of_image_patches(height, width, {}) for width, height in sizes]
    return sum(count // processor.merge_size**2 - 1 for count in patches)


@cache
def image_processor(path: Path) -> Any:
    """The student's, which knows how images are resized."""
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(path)


def length_findings(job: Job, sides: Sequence[tuple[Checkpoint, Lengths]]) -> list[Finding]:
    """``sides``: the student first, then the teacher where there is one."""
    if isinstance(job.config, RLConfig):
        return [finding for side, lengths in sides for finding in _context_findings(job, side, lengths)]
    return _trace_findings(job, *sides[0])


def _context_findings(job: Job, side: Checkpoint, lengths: Lengths) -> list[Finding]:
    """Does a prompt leave room for the longest completion?"""
    if side.context is None or not isinstance(job.config, RLConfig):
        return []
    longest, wanted = lengths.longest_prompt, job.config.max_new_tokens
    if longest + wanted <= side.context:
        return []
    limits = f"{side.role} {side.path / 'config.json'}: max_position_embeddings {side.context}"
    if longest >= side.context:
        over = sum(length >= side.context for length in lengths.prompts)
        message = (
            f"{over} of {len(lengths.prompts)} prompts alone fill the context (longest {longest} tokens; {limits})"
        )
        where = job.data or job.where("prompts")
        return [
            error("lengths.prompt_over_context", message, where, f"drop prompts over {side.context - wanted} tokens")
        ]
    message = f"prompt {longest} + completion {wanted} tokens are over the context ({limits})"
    fix = f"set max_new_tokens to at most {side.context - longest}, or drop the longest prompts"
    return [error("lengths.context", message, job.where("config.max_new_tokens"), fix)]


def _trace_findings(job: Job, side: Checkpoint, lengths: Lengths) -> list[Finding]:
    """How many traces are left out, and does what stays fit the context?"""
    limit, findings = job.config.max_length, []  # type: ignore[union-attr]
    where = job.where("config.max_length")
    longest = max((whole for whole in lengths.wholes if whole <= limit), default=0)
    if side.context is not None and longest > side.context:
        message = f"traces of up to {longest} tokens are kept, max_position_embeddings is {side.context}"
        findings.append(
            error("lengths.trace_over_context", message, where, f"set max_length to at most {side.context}")
        )
    dropped = sum(whole > limit for whole in lengths.wholes)
    if not dropped:
        return findings
    share = dropped / len(lengths.wholes)
    needed = sorted(lengths.wholes)[int(0.99 * (len(lengths.wholes) - 1))]
    message = f"{100 * share:.1f} % of the traces are over max_length {limit} and would be left out"
    fix = f"set max_length to {needed} to keep 99 %, or write shorter traces"
    make = error if dropped == len(lengths.wholes) else warning
    return [*findings, make("lengths.dropped", message, where, fix)]
