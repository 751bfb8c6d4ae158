"""Checks of the training data: whether rows are readable, complete and have unique ids."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vold.data.prompts import Prompt, Trace
from vold.data.reading import read_prompts, read_traces
from vold.data.sources import AbsentData, DataSource
from vold.findings import Finding, error, warning
from vold.images import MAX_PIXELS
from vold.preflight.tokenizers import THINK

Rows = Sequence[Prompt] | Sequence[Trace]
# Encoding a million rows, or opening as many images, would take minutes and find the same.
SAMPLE = 2000


def sample_rows(rows: Rows) -> Rows:
    """At most ``SAMPLE`` rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // SAMPLE))]


def read_rows(source: Path | DataSource, kind: str) -> tuple[Rows, list[Finding]]:
    """Traces for SFT, prompts for RL, with their faults. Data that cannot be read give no rows."""
    try:
        rows: Rows = read_traces(source) if kind == "sft" else read_prompts(source)
    except (OSError, ValueError) as exception:
        fix = "repair the file, or skip malformed rows with the source's option malformed=skip (one row must be left)"
        if isinstance(exception, AbsentData):
            fix = "correct the path, or write the file first (`vold-bench traces` writes traces)"
        return [], [error("data.unreadable", str(exception), source, fix)]
    return rows, row_findings(source, rows)


def row_findings(source: Path | DataSource, rows: Rows) -> list[Finding]:
    """Faults of single rows. Each finding names the first such row."""
    findings = []
    repeated = [name for name, times in Counter(row.id for row in rows).items() if times > 1]
    if repeated:
        message = f"{len(repeated)} ids are used more than once, the first is {repeated[0]!r}"
        fix = "give every row an id of its own; the file may have been appended to twice"
        findings.append(warning("data.duplicate_ids", message, source, fix))
    blank = [row.id for row in rows if not row.text.strip()]
    if blank:
        message = f"{len(blank)} rows have no text, the first is {blank[0]!r}"
        findings.append(error("data.no_text", message, source, "remove these rows"))
    unanswered = [row.id for row in rows if isinstance(row, Prompt) and not row.answer.strip()]
    if unanswered:
        message = (
            f"{len(unanswered)} of {len(rows)} prompts have no answer and cannot be rewarded, as {unanswered[0]!r}"
        )
        findings.append(error("data.no_answer", message, source, "give these prompts an `answer`, or remove them"))
    silent = [row.id for row in rows if isinstance(row, Trace) and not row.completion.strip()]
    if silent:
        message = (
            f"{len(silent)} traces are empty, the first is {silent[0]!r}, so the student would learn to say nothing"
        )
        findings.append(error("data.no_completion", message, source, "remove these traces"))
    return findings


def image_file_findings(source: Path | DataSource, rows: Rows) -> list[Finding]:
    """Checks that images can be opened, by their headers."""
    broken = [(row.id, image) for row in rows for image in row.images if image_size(image) is None]
    if not broken:
        return []
    message = f"{len(broken)} images cannot be opened, the first is {broken[0][1]} of row {broken[0][0]!r}"
    fix = f"replace these images, or make them smaller than {MAX_PIXELS:,} pixels"
    return [error("data.image", message, source, fix)]


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height from the image's header; None if the trainer would refuse the image."""
    try:
        with Image.open(path) as image:
            return image.size if image.width * image.height <= MAX_PIXELS else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def think_findings(source: Path | DataSource, rows: Rows, pieces: int) -> list[Finding]:
    """Checks for traces with thoughts, if the student spells ``<think>`` in more than one token (``pieces``)."""
    thoughts = sum(isinstance(row, Trace) and any(tag in row.completion for tag in THINK) for row in rows)
    if pieces == 1 or not thoughts:
        return []
    message = f"{thoughts} of {len(rows)} traces contain {THINK[0]}, which the student spells in {pieces} tokens"
    fix = "strip the tags from the traces, or add both tokens to the student before the cold start"
    return [warning("data.think", message, source, fix)]
