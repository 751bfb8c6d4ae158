"""A benchmark's records, brought from any public form into one table with hashes: once, whole or not at all."""

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
"""Told the number of records so far."""
_MARK = re.compile(r"<image (\d+)>")
_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between records with the same reason: quoted texts and numbers."""
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class ImportSource:
    """Where records come from. ``form`` is hub, tsv or repository; ``version`` says what is known of the files."""

    form: str
    place: str
    revision: str
    version: str
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
    """Write ``out/BENCHMARK/SPLIT.parquet`` and its manifest, beside splits that were imported before.

    source: ``hub:OWNER/NAME@REVISION``, a directory or file of parquet, a VLMEvalKit TSV, or the repository's
    directory. partial: fewer records than the split has are accepted, and the result is marked so; of a repository's,
    those whose image files are not there are left out and named. any_version: a table whose MD5 is another than the
    known one is accepted, too. Returns the split's entry in the manifest. Raises DatasetError, and then nothing was
    written.
    """
    split = _split(benchmark, split)
    home = out / benchmark.name
    others = _others(benchmark, home)
    found = open_source(benchmark, source, split, any_version=any_version)
    with publish_directory(home) as work:
        for name in others:
            if name != split:
                _link(home / f"{name}.parquet", work / f"{name}.parquet")
        entry = _write(benchmark, found, work / f"{split}.parquet", partial, progress)
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


def _others(benchmark: Benchmark, home: Path) -> dict[str, Any]:
    """What was imported into ``home`` before; a directory of anything else is never replaced."""
    if not home.exists() or (home.is_dir() and not any(home.iterdir())):
        return {}
    if not imported.is_imported(home):
        raise DatasetError(f"{home}: holds other files; name another directory with --out")
    found = imported.read_manifest(home)
    if found["benchmark"] != benchmark.name:
        raise DatasetError(f"{home}: holds {found['benchmark']}; name another directory with --out")
    return found["splits"]


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except FileNotFoundError as error:
        raise DatasetError(f"{old}: missing; import that split again into another directory") from error
    except OSError:  # a file system without links
        shutil.copyfile(old, new)


def open_source(benchmark: Benchmark, source: str, split: str, *, any_version: bool = False) -> ImportSource:
    """Tell a source's form, check its files' sums, and open its rows."""
    place = Path(source.removeprefix("file:")).expanduser()
    if not on_hub(source) and not place.exists():
        raise DatasetError(f"{place}: no such file or directory; or write hub:OWNER/NAME@REVISION")
    if not on_hub(source) and imported.is_imported(place):
        raise DatasetError(f"{place}: is imported already; copy the directory")
    if on_hub(source) or hub.holds_tables(place):
        return _from_tables(benchmark, source, split)
    if place.suffix == ".tsv":
        return _from_tsv(benchmark, place, split, any_version)
    root = place.parent if place.is_file() else place
    if repository.read_descriptor(benchmark, root):
        raise DatasetError(f"{root}: was generated here, and is read as it is")
    file, rows = repository.split_rows(benchmark, root, split)
    return ImportSource("repository", str(place), "", "unknown", {file.name: imported.file_hashes(file)}, rows)


def _from_tables(benchmark: Benchmark, source: str, split: str) -> ImportSource:
    files = hub.table_files(benchmark, source, split)
    hashes = {file.name: imported.file_hashes(file) for file in files}
    for file in files:
        hub.check_fetched(file, hashes[file.name]["sha256"])
    rows = (row for file in files for row in hub.parquet_rows(benchmark, file))
    return ImportSource("hub", source, hub.hub_commit(files[0]), "unknown", hashes, rows)


def _from_tsv(benchmark: Benchmark, file: Path, split: str, any_version: bool) -> ImportSource:
    known, hashes = benchmark.splits[split].md5, imported.file_hashes(file)
    same = bool(known) and hashes["md5"] == known
    if known and not same and not any_version:
        raise DatasetError(
            f"{file}: MD5 {hashes['md5']}, but {benchmark.splits[split].tsv} has {known}: the file is damaged, of "
            "another split, or of another version; fetch it again, or accept it with --any-version"
        )
    version = "known" if same else "other" if known else "unknown"
    return ImportSource("tsv", str(file), "", version, {file.name: hashes}, tsv.tsv_rows(benchmark, file, split))


def _write(
    benchmark: Benchmark, source: ImportSource, file: Path, partial: bool, progress: ImportProgress
) -> dict[str, Any]:
    """Write the table; returns what the manifest says of it."""
    left_out: dict[str, str] = {}
    unscorable: dict[str, str] = {}
    notes: dict[str, str] = {}
    ids: list[str] = []
    options: Counter[int] = Counter()
    images = 0
    writer = imported.Writer(file)
    for row in source.rows:
        absent = [image for image in row.images if isinstance(image, Path) and not image.is_file()]
        if absent and partial:
            left_out[row.id] = f"no image {absent[0]}"
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
        raise DatasetError(f"{source.place}: no record has its images; put them there, or take a whole copy")
    check_ids([*ids, *left_out], Path(source.place))
    return {
        "rows": len(ids),
        "images": images,
        "usual_options": options.most_common(1)[0][0],
        "sha256": imported.file_hashes(file)["sha256"],
        "form": source.form,
        "source": source.place,
        "revision": source.revision,
        "version": source.version,
        "files": source.files,
        "left_out": left_out,
        "unscorable": unscorable,
        "notes": notes,
    }


def _contents(row: BenchmarkRow) -> list[bytes]:
    """The bytes of a row's images, each of which can be decoded; raises DatasetError naming the image."""
    contents = []
    for place, image in enumerate(row.images, 1):
        try:
            content = image.read_bytes() if isinstance(image, Path) else image
            decode_image(content, f"image {place}")
        except FileNotFoundError as error:
            mend = "put it there, take a whole copy, or leave such records out with --partial"
            raise row.error(f"no image {image!s}", mend) from error
        except ValueError as error:
            raise row.error(str(error), "take a fresh copy of its image") from error
        contents.append(content)
    return contents


def _is_partial(benchmark: Benchmark, split: str, entry: dict[str, Any], declared: bool) -> bool:
    """Whether records lack, which must have been declared; raises DatasetError where these cannot be the split's."""
    known, found = benchmark.splits[split], entry["rows"]
    if known.count is not None and (found > known.count or (found < known.count and not declared)):
        mend = "choose the right split" if found > known.count else "take a whole copy, or declare it with --partial"
        raise DatasetError(f"{entry['source']}: {found} records, {benchmark.name} {split} has {known.count}; {mend}")
    if known.options is not None and not declared and entry["usual_options"] != known.options:
        raise DatasetError(
            f"{entry['source']}: most records have {entry['usual_options']} options, those of {split} have "
            f"{known.options}; choose the right split"
        )
    return declared and (known.count is None or found < known.count)
