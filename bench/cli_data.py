"""``vold-bench data``: import, list, verify and audit benchmark data."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from bench.benchmarks import BENCHMARKS, DatasetError, imported, known, place_of, read
from bench.benchmarks.importing import import_split
from bench.benchmarks.verifying import differences
from bench.errors import ConfigurationError
from bench.json_output import print_json
from vold.files import write_whole

_SHOWN = 100


def import_records(
    source: str, benchmark: str, split: str | None, out: Path, partial: bool, any_version: bool, as_json: bool
) -> None:
    """Import one split and print what was found."""
    found = known(benchmark)
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
        print_json({"benchmark": benchmark, "out": out / benchmark, **entry})
        return
    part = " (partial)" if entry["partial"] else ""
    print(f"{out / benchmark}: {entry['rows']} records{part}, {entry['pictures']} pictures from {entry['source']}")
    if entry["form"] == "tsv" and entry["version"] != "known":
        sums = ", ".join(hashes["md5"] for hashes in entry["files"].values())
        print(f"MD5 {sums}: {'not the known version' if entry['version'] == 'other' else 'none is known to compare'}")
    for name, texts in (("cannot be scored", entry["unscorable"]), ("note", entry["notes"])):
        for key, reason in texts.items():
            print(f"{name}: {key}: {reason}")


def list_records(root: Path | None, as_json: bool) -> None:
    """Print the benchmarks under ``root`` with their numbers of problems."""
    place = root or Path(os.environ.get("VOLD_BENCH_DATA", ""))
    if not place.is_dir() or (root is None and "VOLD_BENCH_DATA" not in os.environ):
        raise ConfigurationError("give a directory that holds the benchmarks, or set VOLD_BENCH_DATA to it")
    rows = [row for name in BENCHMARKS for row in _listed(name, place / name)]
    if as_json:
        print_json(rows)
        return
    table = Table("benchmark", "split", "problems", Column("note", overflow="fold"))
    for row in rows:
        table.add_row(row["benchmark"], row.get("split", "-"), str(row["problems"]), row["note"])
    Console().print(table)


def _listed(name: str, folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        return [{"benchmark": name, "problems": 0, "note": f"nothing at {folder}"}]
    try:
        entries = imported.manifest(folder)["splits"] if imported.is_imported(folder) else {}
    except DatasetError as error:
        return [{"benchmark": name, "problems": 0, "note": str(error)}]
    rows: list[dict[str, Any]] = []
    for split in entries or BENCHMARKS[name].splits:
        row: dict[str, Any] = {"benchmark": name, "split": split}
        try:
            # Of imported pictures nothing is missing; listing need not write them out.
            found = read(name, folder, split, require_pictures=not entries)
        except DatasetError as error:
            rows.append({**row, "problems": 0, "note": str(error)})
            continue
        cannot = sum(bool(problem.unscorable) for problem in found.problems)
        notes = [f"{cannot} cannot be scored"] if cannot else []
        if entry := entries.get(split):
            notes.append(f"imported from {entry['source']}" + (", partial" if entry["partial"] else ""))
        rows.append({**row, "problems": len(found.problems), "note": "; ".join(notes)})
    return rows


def verify(root: Path) -> None:
    """Print what was changed since the import; raises DatasetError where anything was."""
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


def audit(
    benchmark: str, against: list[str], records: Path | None, split: str | None, distance: int | None, out: Path | None
) -> None:
    """Compare a benchmark with training data; print which problems are hit, and write them to ``out``."""
    from bench import audit as auditing

    known(benchmark)
    dataset = read(benchmark, place_of(benchmark, records), split)
    limit = auditing.DISTANCE if distance is None else distance
    result = auditing.audit(dataset, against, limit, lambda text: print(text, file=sys.stderr))
    if out is not None:
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    table = Table("id", "why", "where")
    for hit in result["hits"][:_SHOWN]:
        table.add_row(hit["id"], hit["why"], hit["where"])
    if result["hits"]:
        Console().print(table)
    print(
        f"{benchmark} ({dataset.split}): {result['n'] - len(result['clean'])} of {result['n']} problems are hit, "
        f"{len(result['clean'])} are clean; {result['too_short']} questions are too short for {auditing.NGRAM} words"
    )
