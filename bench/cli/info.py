"""``doctor`` and ``smallworld build``."""

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.cli.json_output import print_json
from bench.cli.options import Json, listed
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
smallworld = typer.Typer(help="The embedded synthetic world.", no_args_is_help=True)


def doctor(as_json: Json = False) -> None:
    """Versions, devices, disk and optional parts of this installation."""
    import torch

    from bench.matrix.provenance import installed
    from bench.smallworld import CHECKPOINTS, checkpoint_path

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    worlds = [name for name in CHECKPOINTS if checkpoint_path(name).is_dir()]
    facts: dict[str, Any] = {
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
    table = Table("what", "found")
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console().print(table)


def _present(module: str) -> str:
    return "present" if importlib.util.find_spec(module) else "not installed"


@smallworld.command("build")
def build(
    out: Annotated[
        Path | None, typer.Option(help="Directory of the checkpoints \\[default: the bundled ones].")
    ] = None,
    names: Annotated[str, typer.Option(help="Only these, such as student_a,teacher.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Models trained side by side.")] = 2,
) -> None:
    """Train the small world's models from nothing; takes some CPU-minutes each."""
    from bench.smallworld import CHECKPOINTS, checkpoint_path
    from bench.smallworld import build as building

    chosen = listed(names)
    for name in chosen:
        if name not in CHECKPOINTS:
            raise ConfigurationError(f"--names {name}: no such model; {nearest(name, CHECKPOINTS)}")
    folder = out or checkpoint_path(CHECKPOINTS[0]).parent
    for name, skills in building.build(folder, chosen or CHECKPOINTS, jobs).items():
        print(name, "  ".join(f"{skill} {value:.3f}" for skill, value in skills.items()))
    print(f"checkpoints: {folder}")
