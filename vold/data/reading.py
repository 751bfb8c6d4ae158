"""Prompts and traces read from any source, with a record of what was read and of what was left out."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from vold.data.formats import DataRecord, MalformedRow, Reader, reader, recognise
from vold.data.images import image_file
from vold.data.prompts import IMAGE_MARK, Prompt, Trace
from vold.data.sources import DataSource, UndecodableRow, rows
from vold.files import write_whole

_log = logging.getLogger(__name__)
_SHOWN = 3
# In a text they would be taken for images, and the model would look for their pixels.
_PLACEHOLDERS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
INSTRUCTIONS = {"boxed": r"Please reason step by step, and put your final answer within \boxed{}."}
"""Sentences that a source may put after every prompt, for data sets that say nothing of the answer's form."""

T = TypeVar("T", Prompt, Trace)
_Build = Callable[[DataRecord, Path, int], T]


class Loaded(list[T], Generic[T]):
    """Rows in the order of their files. ``malformed`` says what was left out, and where."""

    def __init__(self, source: str, items: list[T], malformed: list[str]) -> None:
        super().__init__(items)
        self.source, self.malformed = source, malformed

    def record(self) -> dict[str, Any]:
        """What a run writes down: source, number of rows, number left out, and the content's hash."""
        return {
            "source": self.source,
            "rows": len(self),
            "left_out": len(self.malformed),
            "sha256": content_hash(self),
        }


def read_prompts(source: Path | DataSource) -> Loaded[Prompt]:
    """Read prompts; one without a known answer has an empty one.

    Raises ValueError naming file and row where rows are malformed, unless the source leaves them out.
    """
    return _read(source, _prompt, "prompts")


def read_traces(source: Path | DataSource) -> Loaded[Trace]:
    """Read traces; raises ValueError naming file and row of what is malformed, unless the source leaves it out."""
    return _read(source, _trace, "traces")


def content_hash(items: Sequence[Prompt | Trace]) -> str:
    """SHA-256 over the rows and the bytes of their images, wherever they lie and in whatever format they came."""
    total = hashlib.sha256()
    for item in items:
        fields = asdict(item) | {"images": [hashlib.sha256(path.read_bytes()).hexdigest() for path in item.images]}
        total.update(json.dumps(fields, sort_keys=True).encode())
    return total.hexdigest()


def claim_data(run: Path, loaded: Loaded[Any]) -> None:
    """Write ``run/data.json``; raises ValueError where the run began with other data."""
    path, record = run / "data.json", loaded.record()
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["sha256"] != record["sha256"]:
            raise ValueError(
                f"{run}: began with other data ({before['rows']} rows of {before['source']}, now {record['rows']} of "
                f"{record['source']}); put the old data back, or name another run directory"
            )
        return
    run.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, indent=1) + "\n")


def named_images(file: Path) -> list[Path]:
    """The images beside a JSON or JSONL file that its rows name; what is wrong with others is said on reading."""
    if file.suffix == ".parquet" or b'"images"' not in file.read_bytes():
        return []
    named = [row["images"] for _, row in rows(file) if isinstance(row, dict) and isinstance(row.get("images"), list)]
    paths = {file.parent / image for images in named for image in images if isinstance(image, str)}
    inside = file.parent.resolve()
    return sorted(path for path in paths if path.is_file() and path.resolve().is_relative_to(inside))


def _read(source: Path | DataSource, build: _Build[T], what: str) -> Loaded[T]:
    if isinstance(source, Path):
        source = DataSource(str(source.absolute()))
    if source.instruction and source.instruction not in INSTRUCTIONS:
        raise ValueError(f"{source}: no instruction {source.instruction!r}; known: {', '.join(INSTRUCTIONS)}")
    items: list[T] = []
    malformed: list[str] = []
    for file, place, record in records(source):
        try:
            if isinstance(record, MalformedRow):
                raise record
            items.append(build(_checked(record, INSTRUCTIONS.get(source.instruction, "")), file, place))
        except MalformedRow as error:
            malformed.append(f"{file}:{place}: {error}")
    if malformed:
        shown = "\n".join(malformed[:_SHOWN]) + ("\n..." if len(malformed) > _SHOWN else "")
        count = f"{len(malformed)} of {len(items) + len(malformed)} rows are malformed"
        if source.malformed == "refuse":
            raise ValueError(f"{shown}\n{count}; mend them, or leave them out with the source's option malformed=skip")
        _log.warning("%s\n%s and were left out", shown, count)
    if not items:
        raise ValueError(f"{source.place}: no {what} there")
    return Loaded(str(source), items, malformed)


def records(source: DataSource) -> Iterator[tuple[Path, int, DataRecord | MalformedRow]]:
    """Every row of the source as (file, number, what it holds)."""
    read: Reader | None = reader(source.format) if source.format else None
    for file in source.files():
        for number, row in rows(file):
            try:
                if isinstance(row, UndecodableRow):
                    raise MalformedRow(row.reason)
                read = read or reader(recognise(row))
                yield file, number, read(row)
            except MalformedRow as error:
                yield file, number, error


def _checked(record: DataRecord, instruction: str) -> DataRecord:
    for name, text in (("text", record.text), ("completion", record.completion or "")):
        found = next((word for word in _PLACEHOLDERS if word in text), None)
        if found:
            raise MalformedRow(f"the {name} holds {found}, which stands for images; take it out")
    marks = record.text.count(IMAGE_MARK)
    if record.images and marks not in (0, len(record.images)):
        raise MalformedRow(f"{marks} marks {IMAGE_MARK} in the text for {len(record.images)} images")
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
        raise MalformedRow("no trace: it has no completion")
    return Trace(
        record.id or f"{file.stem}:{number}", record.text, record.completion, record.correct, _images(record, file)
    )


def _images(record: DataRecord, file: Path) -> tuple[Path, ...]:
    return tuple(image_file(image, file.parent) for image in record.images)
