"""``vold-bench eval``: one checkpoint on some benchmarks, in the store and the tables of the matrices."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from bench.benchmarks import BENCHMARKS
from bench.datasets import SMALLWORLD
from bench.errors import ConfigurationError
from bench.json_output import print_json
from bench.matrix.execute import execute
from bench.matrix.materials import Input, Materials
from bench.matrix.plan import Cell, Stage, make_stage, resolve
from bench.matrix.results import MatrixResults, environment, inputs, read
from bench.matrix.source import Where, nearest
from bench.matrix.spec import Analysis, Arm, MatrixSpec, Override, Primary
from bench.matrix.store import Store

DEFAULT_DATA = f"{SMALLWORLD}test?n=150"
# Where only an upper limit is given; Qwen2.5-VL's own lower one.
_MIN_PIXELS = 56 * 56
# Options of the command line that bear another name in the configuration.
_RENAMED = {"prompt": "template", "no_think": "think"}
_UNREAD = ("unparsed", "ambiguous", "truncated", "refused", "error")


def run(
    store: Store,
    model: str,
    data: Sequence[str],
    benchmarks: Sequence[str],
    asked: dict[str, Any],
    seed: int,
    execution: Mapping[str, Any],
    out: Path | None,
    reports: Path | None,
    as_json: bool,
) -> None:
    """Evaluate, then print and copy the result. ``asked`` holds options of the command line, None where not given."""
    materials = Materials(store, Path.cwd())
    sources = select(data or [DEFAULT_DATA], benchmarks)
    found: dict[str, Input] = {"model": _model(materials, model)}
    for name, source in sources.items():
        found[f"data.{name}"] = materials.problems(name, source, Where("--data"))
    missing = [item.absent for item in found.values() if item.absent]
    if missing:
        raise ConfigurationError("\n".join(missing))
    stage = _stage(found, asked, seed, execution)
    if not store.done(stage.id):
        _execute(stage, store)
    label = Path(model).name
    results = _results(stage, store, label, seed)
    folder = store.path(stage.id) / "out"
    if out is not None:
        shutil.copytree(folder, out, dirs_exist_ok=True)
    # Evaluations of one checkpoint under other settings get pages of their own.
    page = _report(results, label, seed, list(sources), reports / stage.id) if reports is not None else None
    if as_json:
        print_json({"stage": stage.id, "out": folder, "report": page, **results.summaries[label, seed]})
        return
    _show(results, label, seed)
    print(f"result: {folder}")
    if page is not None:
        print(f"report: {page}")


def select(data: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """Benchmark to source, from what a person wrote after ``--data`` and ``--benchmarks``.

    Raises ConfigurationError for an unknown benchmark and for a directory that holds none.
    """
    for name in benchmarks:
        if name not in BENCHMARKS:
            raise ConfigurationError(f"--benchmarks {name}: unknown benchmark; {nearest(name, BENCHMARKS)}")
    sources: dict[str, str] = {}
    for entry in data:
        name, _, source = entry.partition("=")
        if entry.startswith(SMALLWORLD):
            sources |= dict.fromkeys(BENCHMARKS, entry)
        elif name in BENCHMARKS:
            sources[name] = source
        else:
            sources |= _inside(Path(entry).expanduser(), benchmarks)
    absent = [name for name in benchmarks if name not in sources]
    if absent:
        raise ConfigurationError(f"--benchmarks {','.join(absent)}: no data; give --data {absent[0]}=DIRECTORY")
    return {name: source for name, source in sources.items() if not benchmarks or name in benchmarks}


def _inside(root: Path, benchmarks: Sequence[str]) -> dict[str, str]:
    """The benchmarks that lie in directories of their names under ``root``, or ``root`` itself as the one asked for."""
    found = {name: str(root / name) for name in BENCHMARKS if (root / name).is_dir()}
    if found:
        return found
    if len(benchmarks) == 1 and root.exists():
        return {benchmarks[0]: str(root)}
    names = ", ".join(BENCHMARKS)
    raise ConfigurationError(f"--data {root}: holds no directory named {names}; or write BENCHMARK={root}")


def _model(materials: Materials, model: str) -> Input:
    where = Where("--model")
    path = Path(model).expanduser()
    if model.startswith((SMALLWORLD, "hub:")) or path.exists():
        return materials.model(model if not path.exists() else str(path.resolve()), where)
    raise ConfigurationError(f"--model {model}: no such directory; a model of the hub is written hub:OWNER/NAME")


def _stage(found: Mapping[str, Input], asked: dict[str, Any], seed: int, execution: Mapping[str, Any]) -> Stage:
    from vold.config import Execution

    if asked["max_pixels"] is not None and asked["min_pixels"] is None:
        asked["min_pixels"] = min(_MIN_PIXELS, asked["max_pixels"])
    overrides = {}
    for option, value in asked.items():
        if value is not None:
            key = f"eval.{_RENAMED.get(option, option)}"
            overrides[key] = Override(key, value, Where(f"--{option.replace('_', '-')}"))
    config = resolve("eval", [overrides], "eval")
    used = seed if config.temperature > 0 else 0  # type: ignore[attr-defined]
    settings = {name: value for name, value in execution.items() if value is not None}
    return make_stage("eval", config, found, used, Execution(**settings).model_dump(mode="json"))


def _execute(stage: Stage, store: Store) -> None:
    """Run the stage in this process, with a bar on a terminal and a line every now and then elsewhere."""
    console = Console(stderr=True)
    columns = (
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, note="")

        def progress(done: int, total: int, metrics: dict[str, float]) -> None:
            note = "  ".join(f"{name} {value:.3g}" for name, value in metrics.items())
            bars.update(task, completed=done, total=total, note=note)
            if not console.is_terminal:
                sys.stderr.write(f"{done}/{total}  {note}\n")

        execute(stage.spec, store, progress)


def _results(stage: Stage, store: Store, label: str, seed: int) -> MatrixResults:
    stages = {stage.id: stage}
    origin = {
        "model": label,
        "seed": seed,
        "inputs": inputs(stages),
        "execution": stage.spec.execution,
        **environment(),
    }
    return read([Cell(label, seed, {"eval": stage.id})], stages, store, origin)


def _report(results: MatrixResults, label: str, seed: int, benchmarks: list[str], out: Path) -> Path:
    """The page of a matrix of one arm that was not trained here."""
    from bench.report import build

    analysis = Analysis(primary=Primary(over=tuple(benchmarks)))
    question = f"How many problems does {label} solve?"
    spec = MatrixSpec(label, question, (seed,), {}, (Arm(label, frozenset(("sft", "rl"))),), {}, analysis, Path(label))
    return build(spec, results, out)


def _show(results: MatrixResults, label: str, seed: int) -> None:
    """Accuracy with its interval, and what went wrong, by benchmark."""
    from bench.stats import accuracy

    table = Table(Column("data", no_wrap=True), "n", "% right, 95 % interval", "not read")
    answered = {str(name): rows for name, rows in results.verdicts.groupby("benchmark")}
    for name, part in results.summaries[label, seed]["benchmarks"].items():
        value = "-"
        if name in answered:
            found = accuracy(answered[name])
            value = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
        states = ", ".join(f"{part['states'][state]} {state}" for state in _UNREAD if part["states"][state])
        table.add_row(part["dataset"], f"{part['n']}/{part['expected']}", value, states or "none")
    Console().print(table)
