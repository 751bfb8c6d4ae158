"""Reads prompts and traces from any source, and records what was read and what was left out."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Generic, TypeVar

from vold.data.formats import DataRecord, MalformedRow, Reader, reader, recognise
from vold.data.images import image_file
from vold.data.prompts import IMAGE_MARK, Prompt, Trace
from vold.data.sources import DataSource, UndecodableRow, rows
from vold.files import write_whole

_log = logging.getLogger(__name__)
_MAX_SHOWN = 3
# In a text, the model would take them for images.
_PLACEHOLDERS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
INSTRUCTIONS = {"boxed": r"Please reason step by step, and put your final answer within \boxed{}."}
"""Sentences that can follow every prompt, for data sets that do not say how to give the answer."""

T = TypeVar("T", Prompt, Trace)
_Build = Callable[[DataRecord, Path, int], T]


class Loaded(list[T], Generic[T]):
    """Prompts or traces in the order of their files. malformed: a message for every row that was left out."""

    def __init__(self, source: str, items: list[T], malformed: list[str]) -> None:
        super().__init__(items)
        self.source, self.malformed = source, malformed

    def record(self) -> dict[str, str | int]:
        """The record of a run's data: source, number of rows, number of rows left out, and hash of the content."""
        return {
            "source": self.source,
            "rows": len(self),
            "left_out": len(self.malformed),
            "sha256": content_hash(self),
        }


def read_prompts(source: Path | DataSource) -> Loaded[Prompt]:
    """Read prompts. A prompt without a known answer has an empty one.

    Raises ValueError naming file and row of malformed rows, unless the source says to leave them out.
    """
    return _read(source, _prompt, "prompts")


def read_traces(source: Path | DataSource) -> Loaded[Trace]:
    """Read traces. Raises ValueError as ``read_prompts`` does."""
    return _read(source, _trace, "traces")


def content_hash(items: Sequence[Prompt | Trace]) -> str:
    """SHA-256 of the rows and the bytes of their images. It does not depend on paths or on the format of the data."""
    total = hashlib.sha256()
    for item in items:
        fields = asdict(item) | {"images": [hashlib.sha256(path.read_bytes()).hexdigest() for path in item.images]}
        total.update(json.dumps(fields, sort_keys=True).encode())
    return total.hexdigest()


def claim_data(run: Path, loaded: Loaded[T]) -> None:
    """Record the data in ``run/data.json``. Raises ValueError if the run began with other data."""
    path, record = run / "data.json", loaded.record()
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["sha256"] != record["sha256"]:
            raise ValueError(
                f"{run}: began with other data ({earlier['rows']} rows of {earlier['source']}, now {record['rows']} of "
                f"{record['source']}); restore the old data, or choose another run directory"
            )
        return
    run.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, indent=1) + "\n")


def named_images(file: Path) -> list[Path]:
    """The existing images that the rows of a JSON or JSONL file name, in its directory. Reading reports all others."""
    if file.suffix == ".parquet" or b'"images"' not in file.read_bytes():
        return []
    lists = [row["images"] for _, row in rows(file) if isinstance(row, dict) and isinstance(row.get("images"), list)]
    paths = {file.parent / image for images in lists for image in images if isinstance(image, str)}
    directory = file.parent.resolve()
    return sorted(path for path in paths if path.is_file() and path.resolve().is_relative_to(directory))


def _read(source: Path | DataSource, build: _Build[T], kind: str) -> Loaded[T]:
    if isinstance(source, Path):
        source = DataSource(str(source.absolute()))
    if source.instruction and source.instruction not in INSTRUCTIONS:
        raise ValueError(f"{source}: unknown instruction {source.instruction!r}; known: {', '.join(INSTRUCTIONS)}")
    items: list[T] = []
    malformed: list[str] = []
    for file, number, record in records(source):
        try:
            if isinstance(record, MalformedRow):
                raise record
            items.append(build(_checked(record, INSTRUCTIONS.get(source.instruction, "")), file, number))
        except MalformedRow as error:
            malformed.append(f"{file}:{number}: {error}")
    if malformed:
        shown = "\n".join(malformed[:_MAX_SHOWN]) + ("\n..." if len(malformed) > _MAX_SHOWN else "")
        count = f"{len(malformed)} of {len(items) + len(malformed)} rows are malformed"
        if source.malformed == "refuse":
            raise ValueError(f"{shown}\n{count}; fix them, or leave them out with the source's option malformed=skip")
        _log.warning("%s\n%s and are left out", shown, count)
    if not items:
        raise ValueError(f"{source.location}: contains no {kind}")
    return Loaded(str(source), items, malformed)


def records(source: DataSource) -> Iterator[tuple[Path, int, DataRecord | MalformedRow]]:
    """Every row of the source as (file, number of the row, record or error)."""
    read_row: Reader | None = reader(source.format) if source.format else None
    for file in source.files():
        for number, row in rows(file):
            try:
                if isinstance(row, UndecodableRow):
                    raise MalformedRow(row.reason)
                read_row = read_row or reader(recognise(row))
                yield file, number, read_row(row)
            except MalformedRow as error:
                yield file, number, error


def _checked(record: DataRecord, instruction: str) -> DataRecord:
    """The record with ``instruction`` added. Raises MalformedRow for placeholders, and marks without images."""
    for name, text in (("text", record.text), ("completion", record.completion or "")):
        placeholder = next((word for word in _PLACEHOLDERS if word in text), None)
        if placeholder:
            raise MalformedRow(f"the {name} contains {placeholder}, which stands for images; remove it")
    marks = record.text.count(IMAGE_MARK)
    if record.images and marks not in (0, len(record.images)):
        raise MalformedRow(f"the text has {marks} marks {IMAGE_MARK} for {len(record.images)} images")
    return replace(record, text=f"{record.text}\n{instruction}") if instruction else record


def _prompt(record: DataRecord, file: Path, number: int) -> Prompt:
    return Prompt(
        record.id or f"{file.stem}:{number}",
        record.text,
        record.answer,
        record.options,
        _images(record, file),
        record.caption,
    )


def _trace(record: DataRecord, file: Path, number: int) -> Trace:
    if record.completion is None:
        raise MalformedRow("not a trace: it has no completion")
    return Trace(
        record.id or f"{file.stem}:{number}", record.text, record.completion, record.correct, _images(record, file)
    )


def _images(record: DataRecord, file: Path) -> tuple[Path, ...]:
    return tuple(image_file(image, file.parent) for image in record.images)
