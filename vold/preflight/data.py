"""The training data as rows: readable, not empty, each with an id and an answer of its own."""

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
# Encoding a million rows, or opening as many images, would take minutes and say the same.
SAMPLE = 2000


def sample_rows(rows: Rows) -> Rows:
    """At most ``SAMPLE`` rows at even distances."""
    return rows[:: max(1, -(-len(rows) // SAMPLE))]


def read_rows(source: Path | DataSource, kind: str) -> tuple[Rows, list[Finding]]:
    """Traces for SFT, prompts for RL; no rows where they cannot be read."""
    try:
        rows: Rows = read_traces(source) if kind == "sft" else read_prompts(source)
    except (OSError, ValueError) as exception:
        fix = "mend the file, or leave malformed rows out with the source's option malformed=skip; one row must be left"
        if isinstance(exception, AbsentData):
            fix = "mend the path, or write the file first (`vold-bench traces` writes traces)"
        return [], [error("data.unreadable", str(exception), source, fix)]
    return rows, row_findings(source, rows)


def row_findings(source: Path | DataSource, rows: Rows) -> list[Finding]:
    """What is wrong with single rows; each complaint names the first of them."""
    findings = []
    repeated = [name for name, times in Counter(row.id for row in rows).items() if times > 1]
    if repeated:
        message = f"ids used more than once: {len(repeated)}, the first is {repeated[0]!r}"
        fix = "give every row an id of its own; was the file appended to twice?"
        findings.append(warning("data.duplicate_ids", message, source, fix))
    blank = [row.id for row in rows if not row.text.strip()]
    if blank:
        message = f"rows without text: {len(blank)}, the first is {blank[0]!r}"
        findings.append(error("data.no_text", message, source, "remove them"))
    unanswered = [row.id for row in rows if isinstance(row, Prompt) and not row.answer.strip()]
    if unanswered:
        message = (
            f"prompts never rewarded for want of an answer: {len(unanswered)} of {len(rows)}, as {unanswered[0]!r}"
        )
        findings.append(error("data.no_answer", message, source, "give them an `answer` or remove them"))
    silent = [row.id for row in rows if isinstance(row, Trace) and not row.completion.strip()]
    if silent:
        message = f"empty traces: {len(silent)}, the first is {silent[0]!r}; the student would learn to say nothing"
        findings.append(error("data.no_completion", message, source, "remove them"))
    return findings


def image_file_findings(source: Path | DataSource, rows: Rows) -> list[Finding]:
    """Can the images be opened?  Reads their headers."""
    broken = [(row.id, image) for row in rows for image in row.images if image_size(image) is None]
    if not broken:
        return []
    message = f"images that cannot be opened: {len(broken)}, the first is {broken[0][1]} of row {broken[0][0]!r}"
    fix = f"replace them, or make them smaller than {MAX_PIXELS:,} pixels"
    return [error("data.image", message, source, fix)]


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height from the header; None for what the trainer would refuse."""
    try:
        with Image.open(path) as image:
            return image.size if image.width * image.height <= MAX_PIXELS else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def think_findings(source: Path | DataSource, rows: Rows, pieces: int) -> list[Finding]:
    """Traces that think aloud, for a student that spells ``<think>`` in ``pieces`` tokens."""
    thoughts = sum(isinstance(row, Trace) and any(tag in row.completion for tag in THINK) for row in rows)
    if pieces == 1 or not thoughts:
        return []
    message = f"traces with {THINK[0]}, which the student spells in {pieces} tokens: {thoughts} of {len(rows)}"
    fix = "strip the tags from the traces, or add both tokens to the student before the cold start"
    return [warning("data.think", message, source, fix)]
