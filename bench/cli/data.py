"""``vold-bench data``: import, list, verify and audit benchmark data."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import BenchmarkOption, Json, RecordsOption, SplitOption
from bench.errors import ConfigurationError
from bench.terminal import printable
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.benchmarks import Dataset

_SHOWN = 100
app = typer.Typer(help="Benchmark data on this machine.", no_args_is_help=True)


@app.command("import")
def import_records(
    source: Annotated[
        str, typer.Argument(help="hub:OWNER/NAME@REVISION, a directory or file of parquet, a TSV, or the repository's.")
    ],
    benchmark: BenchmarkOption,
    split: SplitOption = None,
    out: Annotated[Path, typer.Option(help="Receives BENCHMARK/SPLIT.parquet and a manifest.")] = Path("data"),
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Fewer records than the split has are meant; leave out those without images."),
    ] = False,
    any_version: Annotated[bool, typer.Option("--any-version", help="Accept a TSV of another MD5.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a benchmark's records from any public form into one table with images and hashes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.benchmarks import find_benchmark
    from bench.benchmarks.importing import import_split

    found = find_benchmark(benchmark)
    console = Console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        only = found.splits.get(split or next(iter(found.splits)))
        task = bars.add_task("", total=only.count if only else None)
        entry = import_split(
            found,
            source,
            split,
            out,
            partial=partial,
            any_version=any_version,
            progress=lambda count: bars.update(task, completed=count),
        )
    if as_json:
        return print_json({"benchmark": benchmark, "out": out / benchmark, **entry})
    part = " (partial)" if entry["partial"] else ""
    print(f"{out / benchmark}: {entry['rows']} records{part}, {entry['images']} images from {entry['source']}")
    if entry["form"] == "tsv" and entry["version"] != "known":
        sums = ", ".join(hashes["md5"] for hashes in entry["files"].values())
        print(f"MD5 {sums}: {'not the known version' if entry['version'] == 'other' else 'none is known to compare'}")
    for name, texts in (("left out", entry["left_out"]), ("cannot be scored", entry["unscorable"]),
                        ("note", entry["notes"])):  # fmt: skip
        for key, reason in texts.items():
            print(printable(f"{name}: {key}: {reason}"))


@app.command("list")
def list_records(
    root: Annotated[
        Path | None, typer.Argument(help="Directory of the benchmarks \\[default: $VOLD_BENCH_DATA].")
    ] = None,
    as_json: Json = False,
) -> None:
    """The benchmarks under a directory and how many problems each holds."""
    from bench.benchmarks import BENCHMARKS

    place = root or Path(os.environ.get("VOLD_BENCH_DATA", ""))
    if not place.is_dir() or (root is None and "VOLD_BENCH_DATA" not in os.environ):
        raise ConfigurationError("give a directory that holds the benchmarks, or set VOLD_BENCH_DATA to it")
    rows = [row for name in BENCHMARKS for row in _listed(name, place / name)]
    if as_json:
        return print_json(rows)
    table = Table("benchmark", "split", "problems", Column("note", overflow="fold"))
    for row in rows:
        table.add_row(row["benchmark"], row.get("split", "-"), str(row["problems"]), Text(printable(row["note"])))
    Console().print(table)


def _listed(name: str, folder: Path) -> list[dict[str, Any]]:
    from bench.benchmarks import BENCHMARKS, DatasetError, imported, read_benchmark

    if not folder.is_dir():
        return [{"benchmark": name, "problems": 0, "note": f"nothing at {folder}"}]
    try:
        entries = imported.read_manifest(folder)["splits"] if imported.is_imported(folder) else {}
    except DatasetError as error:
        return [{"benchmark": name, "problems": 0, "note": str(error)}]
    rows: list[dict[str, Any]] = []
    for split in entries or BENCHMARKS[name].splits:
        row: dict[str, Any] = {"benchmark": name, "split": split}
        try:
            found = read_benchmark(name, folder, split, require_images=False)
        except DatasetError as error:
            rows.append({**row, "problems": 0, "note": str(error)})
            continue
        # Of imported images nothing is missing; listing need not write them out.
        notes = [*_described(found), *([] if entries else _lacking(found, folder))]
        if entry := entries.get(split):
            notes.append(f"imported from {entry['source']}" + (", partial" if entry["partial"] else ""))
        rows.append({**row, "problems": len(found.problems), "note": "; ".join(notes)})
    return rows


def _described(found: "Dataset") -> list[str]:
    cannot = sum(bool(problem.unscorable) for problem in found.problems)
    synthetic = [f"{found.title}, split {found.split}"] if found.synthetic else []
    return synthetic + ([f"{cannot} cannot be scored"] if cannot else [])


def _lacking(found: "Dataset", folder: Path) -> list[str]:
    """Which images are not there; without them problems can be scored, and asked blind."""
    missing = {path for problem in found.problems for path in problem.images if not path.is_file()}
    if not missing:
        return []
    without = sum(not missing.isdisjoint(problem.images) for problem in found.problems)
    return [f"{without} lack an image ({len(missing)} files, such as {min(missing).relative_to(folder)})"]


@app.command()
def verify(
    root: Annotated[Path, typer.Argument(help="An imported benchmark, or a directory that holds some.")],
) -> None:
    """Whether every byte is as imported; what is not is named by file, row and image."""
    from bench.benchmarks import BENCHMARKS, DatasetError, imported
    from bench.benchmarks.verifying import differences

    folders = [root] if imported.is_imported(root) else [root / name for name in BENCHMARKS if (root / name).is_dir()]
    folders = [folder for folder in folders if imported.is_imported(folder)]
    if not folders:
        raise DatasetError(f"{root}: nothing imported there")
    found = [line for folder in folders for line in differences(folder)]
    if found:
        more = f"\n... and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DatasetError("\n".join(found[:_SHOWN]) + more)
    for folder in folders:
        print(f"{folder}: every byte is as imported")


@app.command()
def audit(
    benchmark: BenchmarkOption,
    against: Annotated[list[str], typer.Option(help="Training data: file:PATH or hub:OWNER/NAME; may be repeated.")],
    records: RecordsOption = None,
    split: SplitOption = None,
    distance: Annotated[
        int | None, typer.Option(min=0, max=32, help="Bits of 64 in which images alike may differ \\[default: 3].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write hits and clean ids here, for --clean-of of `score` and `eval`.")
    ] = None,
) -> None:
    """Find a benchmark's problems in training data: same or similar images, 13 words in a row."""
    from bench.benchmarks import audit as auditing
    from bench.benchmarks import read_benchmark, records_path

    dataset = read_benchmark(benchmark, records_path(benchmark, records), split)
    limit = auditing.DISTANCE if distance is None else distance
    result = auditing.audit(dataset, against, limit, lambda text: print(text, file=sys.stderr))
    if out is not None:
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    table = Table("id", "why", "where")
    for hit in result["hits"][:_SHOWN]:
        table.add_row(*(Text(printable(hit[name])) for name in ("id", "why", "where")))
    if result["hits"]:
        Console().print(table)
    print(
        f"{dataset.title} ({dataset.split}): {result['n'] - len(result['clean'])} of {result['n']} problems are hit, "
        f"{len(result['clean'])} are clean; {result['too_short']} questions are too short for {auditing.NGRAM} words"
    )
