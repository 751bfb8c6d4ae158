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
from bench.cli.options import BenchmarkOption, DataOption, Json, SplitOption, example
from bench.errors import ConfigurationError
from bench.terminal import printable
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.benchmarks.base import Dataset

_SHOWN_LINES = 100
app = typer.Typer(help="Import, list, verify and audit benchmark data.", no_args_is_help=True)


@app.command(
    "import",
    epilog=example("vold-bench data import hub:MathLLMs/MathVision --benchmark mathvision --split testmini"),
)
def import_records(
    source: Annotated[
        str,
        typer.Argument(
            help="hub:OWNER/NAME@REVISION, a parquet file or a directory of such files, a VLMEvalKit TSV, or the "
            "directory of the benchmark's repository."
        ),
    ],
    benchmark: BenchmarkOption,
    split: SplitOption = None,
    out: Annotated[Path, typer.Option(help="Directory that receives BENCHMARK/SPLIT.parquet and its manifest.")] = Path(
        "data"
    ),
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept an incomplete split; skip records without images.")
    ] = False,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Accept a TSV whose MD5 is not the known one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import benchmark data of any public form into one table with images and hashes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.benchmarks.importing import import_split
    from bench.benchmarks.registry import find_benchmark

    definition = find_benchmark(benchmark)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        expected = definition.splits.get(split or next(iter(definition.splits)))
        task = bars.add_task("", total=expected.count if expected else None)
        entry = import_split(
            definition,
            source,
            split,
            out,
            partial=partial,
            any_version=any_version,
            progress=lambda count: bars.update(task, completed=count),
        )
    if as_json:
        return print_json({"benchmark": benchmark, "out": out / benchmark, **entry})
    _show_import(out / benchmark, entry)


def _show_import(folder: Path, entry: dict[str, Any]) -> None:
    from bench.benchmarks.importing import remarks

    part = " (partial)" if entry["partial"] else ""
    print(f"{folder}: {entry['rows']} records{part}, {entry['images']} images from {entry['source']}")
    if entry["form"] == "tsv" and entry["version"] != "known":
        sums = ", ".join(hashes["md5"] for hashes in entry["files"].values())
        known = "it is not the known version" if entry["version"] == "other" else "there is no known version to compare"
        print(f"MD5 {sums}: {known}")
    for remark in remarks(entry):
        records = "1 record" if remark.count == 1 else f"{remark.count} records"
        more = ", ..." if remark.count > len(remark.examples) else ""
        print(printable(f"{remark.effect}: {records}: {remark.reason} ({', '.join(remark.examples)}{more})"))


@app.command("list", epilog=example("vold-bench data list /data/benchmarks"))
def list_records(
    root: Annotated[
        Path | None, typer.Argument(help="Directory of the benchmarks. \\[default: $VOLD_BENCH_DATA]")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the benchmarks in a directory, their splits and the number of problems."""
    from bench.benchmarks.registry import BENCHMARKS

    folder = root or Path(os.environ.get("VOLD_BENCH_DATA", ""))
    if not folder.is_dir() or (root is None and "VOLD_BENCH_DATA" not in os.environ):
        raise ConfigurationError("give the directory that holds the benchmarks, or set VOLD_BENCH_DATA to it")
    rows = [row for name in BENCHMARKS for row in _listed(name, folder / name)]
    if as_json:
        return print_json({"splits": rows})
    table = Table("benchmark", "split", "problems", Column("note", overflow="fold"))
    for row in rows:
        table.add_row(row["benchmark"], row.get("split", "-"), str(row["problems"]), Text(printable(row["note"])))
    Console().print(table)


def _listed(name: str, folder: Path) -> list[dict[str, Any]]:
    from bench.benchmarks import imported
    from bench.benchmarks.base import DatasetError
    from bench.benchmarks.registry import BENCHMARKS, read_benchmark

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
            dataset = read_benchmark(name, folder, split, require_images=False)
        except DatasetError as error:
            rows.append({**row, "problems": 0, "note": str(error)})
            continue
        # An imported split holds all its images; listing does not need to write them out.
        notes = [*_remarks(dataset), *([] if entries else _missing_images(dataset, folder))]
        if entry := entries.get(split):
            notes.append(f"imported from {entry['source']}" + (", partial" if entry["partial"] else ""))
        rows.append({**row, "problems": len(dataset.problems), "note": "; ".join(notes)})
    return rows


def _remarks(dataset: "Dataset") -> list[str]:
    unscorable = sum(bool(problem.unscorable) for problem in dataset.problems)
    synthetic = [f"{dataset.title}, split {dataset.split}"] if dataset.synthetic else []
    return synthetic + ([f"{unscorable} cannot be scored"] if unscorable else [])


def _missing_images(dataset: "Dataset", folder: Path) -> list[str]:
    """How many problems lack an image; they can still be scored, and evaluated blind."""
    missing = {path for problem in dataset.problems for path in problem.images if not path.is_file()}
    if not missing:
        return []
    without = sum(not missing.isdisjoint(problem.images) for problem in dataset.problems)
    return [f"{without} lack an image ({len(missing)} files, such as {min(missing).relative_to(folder)})"]


@app.command(epilog=example("vold-bench data verify data/mathvision"))
def verify(
    root: Annotated[Path, typer.Argument(help="Imported benchmark, or a directory that holds some.")],
    as_json: Json = False,
) -> None:
    """Verify that imported data are unchanged, byte for byte; name each file, row and image that differs."""
    from bench.benchmarks import imported
    from bench.benchmarks.base import DatasetError
    from bench.benchmarks.registry import BENCHMARKS
    from bench.benchmarks.verifying import differences

    folders = [root] if imported.is_imported(root) else [root / name for name in BENCHMARKS if (root / name).is_dir()]
    folders = [folder for folder in folders if imported.is_imported(folder)]
    if not folders:
        raise DatasetError(f"{root}: holds no imported benchmark; import one with `vold-bench data import`")
    lines = [line for folder in folders for line in differences(folder)]
    if lines:
        more = f"\n... and {len(lines) - _SHOWN_LINES} more" if len(lines) > _SHOWN_LINES else ""
        raise DatasetError("\n".join(lines[:_SHOWN_LINES]) + more)
    if as_json:
        return print_json({"unchanged": folders})
    for folder in folders:
        print(f"{folder}: unchanged since the import")


@app.command(epilog=example("vold-bench data audit --benchmark mathvision --against traces.jsonl --out audit.json"))
def audit(
    benchmark: BenchmarkOption,
    against: Annotated[
        list[str], typer.Option(help="Training data: file:PATH or hub:OWNER/NAME@REVISION. Repeatable.")
    ],
    data: DataOption = None,
    split: SplitOption = None,
    distance: Annotated[
        int | None,
        typer.Option(min=0, max=32, help="Bits of 64 in which the hashes of similar images may differ. \\[default: 3]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file that receives hits and clean ids, for --clean-of of other commands.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a benchmark's problems in training data by similar images and by 13 consecutive words."""
    from bench.benchmark_data import benchmark_path
    from bench.benchmarks import audit as auditing
    from bench.benchmarks.registry import read_benchmark

    dataset = read_benchmark(benchmark, benchmark_path(benchmark, data or ()), split)
    limit = auditing.DISTANCE if distance is None else distance
    result = auditing.audit(dataset, against, limit, lambda text: print(text, file=sys.stderr))
    if out is not None:
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    if as_json:
        return print_json(result)
    table = Table("id", "reason", "training data")
    for hit in result["hits"][:_SHOWN_LINES]:
        table.add_row(*(Text(printable(hit[name])) for name in ("id", "why", "where")))
    if result["hits"]:
        Console().print(table)
    if len(result["hits"]) > _SHOWN_LINES:
        print(f"... and {len(result['hits']) - _SHOWN_LINES} more hits; --json and --out list all of them")
    print(
        f"{dataset.title} ({dataset.split}): {result['n'] - len(result['clean'])} of {result['n']} problems are in the "
        f"training data, {len(result['clean'])} are clean; {result['too_short']} questions have fewer than "
        f"{auditing.NGRAM} words"
    )
