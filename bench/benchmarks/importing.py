"""Imports a benchmark's records from any public form into a table with images and hashes, completely or not at all."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.benchmarks import hub, imported, repository, tsv
from bench.benchmarks.base import Benchmark, BenchmarkRow, DatasetError, check_ids
from vold.files import publish_directory
from vold.images import decode_image
from vold.locations import on_hub

ImportProgress = Callable[[int], None]
"""A callback with the number of records so far."""
_MARK = re.compile(r"<image (\d+)>")
_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""Quoted texts and numbers, which differ between records with the same reason."""
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class ImportSource:
    """Where records come from. version: whether the files have the known MD5."""

    form: Literal["hub", "tsv", "repository"]
    location: str
    revision: str
    version: Literal["known", "other", "unknown"]
    files: dict[str, dict[str, str]]
    rows: Iterator[BenchmarkRow]


@dataclass(frozen=True, slots=True)
class RecordRemark:
    """A summary line of an import: how many records were left out, cannot be scored or deserve a note, and why.

    examples: the first ids, at most three. The manifest lists every record with its own reason.
    """

    effect: Literal["left out", "cannot be scored", "note"]
    reason: str
    count: int
    examples: tuple[str, ...]


def remarks(entry: Mapping[str, Any]) -> list[RecordRemark]:
    """The remarks on an imported split, given its entry in the manifest; records with one reason share a remark."""
    left_out = dict.fromkeys(entry["left_out"], "an image file is missing")
    return [
        *_grouped("left out", left_out),
        *_grouped("cannot be scored", entry["unscorable"]),
        *_grouped("note", entry["notes"]),
    ]


def _grouped(
    effect: Literal["left out", "cannot be scored", "note"], reasons: Mapping[str, str]
) -> Iterator[RecordRemark]:
    ids: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        ids.setdefault(_DETAIL.sub("...", reason), []).append(key)
    for reason, keys in ids.items():
        yield RecordRemark(effect, reason, len(keys), tuple(keys[:_EXAMPLES]))


def import_split(
    benchmark: Benchmark,
    source: str,
    split: str | None,
    out: Path,
    *,
    partial: bool = False,
    any_version: bool = False,
    progress: ImportProgress = lambda count: None,
) -> dict[str, Any]:
    """Write ``out/BENCHMARK/SPLIT.parquet`` and the manifest, and keep splits that were imported before.

    source: ``hub:OWNER/NAME@REVISION``, a directory or file of parquet, VLMEvalKit's TSV, or the repository's
        directory.
    partial: accept fewer records than the split has, and mark the result as partial. Records of a repository whose
        image files are missing are left out and listed in the manifest.
    any_version: accept a TSV with another MD5 than the known one.

    Returns the split's entry in the manifest. Raises DatasetError, and then writes nothing.
    """
    split = _split(benchmark, split)
    home = out / benchmark.name
    others = _others(benchmark, home)
    records = open_source(benchmark, source, split, any_version=any_version)
    with publish_directory(home) as work:
        for name in others:
            if name != split:
                _link(home / f"{name}.parquet", work / f"{name}.parquet")
        entry = _write(benchmark, records, work / f"{split}.parquet", partial, progress)
        entry["partial"] = _is_partial(benchmark, split, entry, partial)
        splits = {**others, split: entry}
        ordered = {name: splits[name] for name in benchmark.splits if name in splits}
        (work / imported.MANIFEST).write_text(imported.manifest_text(benchmark.name, ordered), encoding="utf-8")
    return entry


def _split(benchmark: Benchmark, split: str | None) -> str:
    if split is None:
        if len(benchmark.splits) > 1:
            raise DatasetError(f"--split: {benchmark.name} has several; choose from {', '.join(benchmark.splits)}")
        return next(iter(benchmark.splits))
    benchmark.check_split(split)
    return split


def _others(benchmark: Benchmark, home: Path) -> dict[str, object]:
    """The splits that ``home`` has already. Raises DatasetError for a directory with other files."""
    if not home.exists() or (home.is_dir() and not any(home.iterdir())):
        return {}
    if not imported.is_imported(home):
        raise DatasetError(f"{home}: contains other files; choose another directory with --out")
    manifest = imported.read_manifest(home)
    if manifest["benchmark"] != benchmark.name:
        raise DatasetError(f"{home}: contains {manifest['benchmark']}; choose another directory with --out")
    return manifest["splits"]


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except FileNotFoundError as error:
        raise DatasetError(f"{old}: missing; import this split again into another directory") from error
    except OSError:  # the file system has no links
        shutil.copyfile(old, new)


def open_source(benchmark: Benchmark, source: str, split: str, *, any_version: bool = False) -> ImportSource:
    """Recognise the form of a source, check the hashes of its files, and open its rows."""
    path = Path(source.removeprefix("file:")).expanduser()
    if not on_hub(source) and not path.exists():
        raise DatasetError(f"{path}: no such file or directory; write a data set of the hub as hub:OWNER/NAME@REVISION")
    if not on_hub(source) and imported.is_imported(path):
        raise DatasetError(f"{path}: is imported already; copy the directory instead")
    if on_hub(source) or hub.holds_tables(path):
        return _from_tables(benchmark, source, split)
    if path.suffix == ".tsv":
        return _from_tsv(benchmark, path, split, any_version)
    root = path.parent if path.is_file() else path
    if repository.read_descriptor(benchmark, root):
        raise DatasetError(f"{root}: is generated data; use it without an import")
    file, rows = repository.split_rows(benchmark, root, split)
    return ImportSource("repository", str(path), "", "unknown", {file.name: imported.file_hashes(file)}, rows)


def _from_tables(benchmark: Benchmark, source: str, split: str) -> ImportSource:
    files = hub.table_files(benchmark, source, split)
    hashes = {file.name: imported.file_hashes(file) for file in files}
    for file in files:
        hub.check_fetched(file, hashes[file.name]["sha256"])
    rows = (row for file in files for row in hub.parquet_rows(benchmark, file))
    return ImportSource("hub", source, hub.hub_commit(files[0]), "unknown", hashes, rows)


def _from_tsv(benchmark: Benchmark, file: Path, split: str, any_version: bool) -> ImportSource:
    known_md5, hashes = benchmark.splits[split].md5, imported.file_hashes(file)
    matches = bool(known_md5) and hashes["md5"] == known_md5
    if known_md5 and not matches and not any_version:
        raise DatasetError(
            f"{file}: MD5 {hashes['md5']}, but {benchmark.splits[split].tsv} has {known_md5}. The file is damaged, of "
            "another split, or of another version; download it again, or accept it with --any-version"
        )
    version = "known" if matches else "other" if known_md5 else "unknown"
    return ImportSource("tsv", str(file), "", version, {file.name: hashes}, tsv.tsv_rows(benchmark, file, split))


def _write(
    benchmark: Benchmark, source: ImportSource, file: Path, partial: bool, progress: ImportProgress
) -> dict[str, Any]:
    """Write the table and return its entry for the manifest."""
    left_out: dict[str, str] = {}
    unscorable: dict[str, str] = {}
    notes: dict[str, str] = {}
    ids: list[str] = []
    options: Counter[int] = Counter()
    images = 0
    writer = imported.Writer(file)
    for row in source.rows:
        missing = [image for image in row.images if isinstance(image, Path) and not image.is_file()]
        if missing and partial:
            left_out[row.id] = f"no image {missing[0]}"
            continue
        problem, contents = benchmark.problem(row), _contents(row)
        writer.add(problem, contents)
        ids.append(problem.id)
        options[len(problem.options)] += 1
        images += len(contents)
        if problem.unscorable:
            unscorable[problem.id] = problem.unscorable
        marks = {int(mark) for mark in _MARK.findall(" ".join((problem.question, *problem.options)))}
        if lacking := sorted(marks - set(range(1, len(contents) + 1))):
            notes[problem.id] = f"mentions <image {lacking[0]}>, and has {len(contents)} images"
        progress(len(ids))
    writer.close()
    if left_out and not ids:
        raise DatasetError(f"{source.location}: no record has its images; add the images, or get a complete copy")
    check_ids([*ids, *left_out], Path(source.location))
    return {
        "rows": len(ids),
        "images": images,
        "usual_options": options.most_common(1)[0][0],
        "sha256": imported.file_hashes(file)["sha256"],
        "form": source.form,
        "source": source.location,
        "revision": source.revision,
        "version": source.version,
        "files": source.files,
        "left_out": left_out,
        "unscorable": unscorable,
        "notes": notes,
    }


def _contents(row: BenchmarkRow) -> list[bytes]:
    """The bytes of a row's images, all of which can be decoded. Raises DatasetError naming the image."""
    contents = []
    for number, image in enumerate(row.images, 1):
        try:
            content = image.read_bytes() if isinstance(image, Path) else image
            decode_image(content, f"image {number}")
        except FileNotFoundError as error:
            fix = "add it, get a complete copy, or leave out records without images with --partial"
            raise row.error(f"no image {image!s}", fix) from error
        except ValueError as error:
            raise row.error(str(error), "get a new copy of the image") from error
        contents.append(content)
    return contents


def _is_partial(benchmark: Benchmark, split: str, entry: dict[str, Any], declared: bool) -> bool:
    """Whether records are missing. Raises DatasetError if this was not declared, or if the split is the wrong one."""
    description, rows = benchmark.splits[split], entry["rows"]
    count, options = description.count, description.options
    if count is not None and (rows > count or (rows < count and not declared)):
        fix = "choose the right split" if rows > count else "get a complete copy, or accept it with --partial"
        raise DatasetError(f"{entry['source']}: {rows} records, but {benchmark.name} {split} has {count}; {fix}")
    if options is not None and not declared and entry["usual_options"] != options:
        raise DatasetError(
            f"{entry['source']}: most records have {entry['usual_options']} options, but those of {split} have "
            f"{options}; choose the right split"
        )
    return declared and (count is None or rows < count)
