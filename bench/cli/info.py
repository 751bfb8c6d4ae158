"""``vold-bench doctor`` and ``vold-bench smallworld build``."""

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.cli.json_output import print_json
from bench.cli.options import Json, example, split_commas
from bench.errors import ConfigurationError
from bench.hints import nearest

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
    "matplotlib",
    "math-verify",
)
_EXTRAS = {"vllm": "vllm", "deepspeed": "deepspeed", "lm-eval": "lm_eval", "vlmeval": "vlmeval"}
smallworld = typer.Typer(
    help="Train the models of the small world, the built-in synthetic world.", no_args_is_help=True
)


def doctor(as_json: Json = False) -> None:
    """Report the versions, devices, disk space and optional parts of this installation."""
    import torch

    from bench.matrix.provenance import installed
    from bench.smallworld import CHECKPOINTS, checkpoint_path

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    worlds = [name for name in CHECKPOINTS if checkpoint_path(name).is_dir()]
    facts: dict[str, object] = {
        "vold-bench": installed("vold-bench"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "CPUs": os.cpu_count(),
        "GPUs": ", ".join(cuda) or "none",
        **{name: installed(name) for name in _PACKAGES},
        **{f"extra {name}": _present(module) for name, module in _EXTRAS.items()},
        "small world": ", ".join(worlds) or "no checkpoint; run `vold-bench smallworld build`",
        "free disk, GB": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }
    if as_json:
        print_json(facts)
        return
    table = Table("part", "value")
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console().print(table)


def _present(module: str) -> str:
    return "present" if importlib.util.find_spec(module) else "not installed"


@smallworld.command("build", epilog=example("vold-bench smallworld build --name student_a,teacher --out models"))
def build(
    out: Annotated[
        Path | None, typer.Option(help="Directory of the checkpoints. \\[default: the bundled ones]")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these models, such as student_a,teacher. Repeatable, or separated by commas. \\[default: all]"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Models to train in parallel.")] = 2,
    as_json: Json = False,
) -> None:
    """Train the models of the small world from scratch, which takes some CPU minutes per model."""
    from bench.smallworld import CHECKPOINTS, checkpoint_path
    from bench.smallworld import build as building

    models = split_commas(name)
    for model in models:
        if model not in CHECKPOINTS:
            raise ConfigurationError(f"--name {model}: no such model; {nearest(model, CHECKPOINTS)}")
    folder = out or checkpoint_path(CHECKPOINTS[0]).parent
    results = building.build_checkpoints(folder, models or CHECKPOINTS, jobs)
    if as_json:
        return print_json({"checkpoints": folder, "skills": results})
    for model, skills in results.items():
        print(model, "  ".join(f"{skill} {value:.3f}" for skill, value in skills.items()))
    print(f"checkpoints: {folder}")
