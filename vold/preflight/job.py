"""One training run as the preflight sees it: settings, places of its inputs, the machine it is meant for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vold.config import Execution, RLConfig, SFTConfig
from vold.data.sources import DataSource
from vold.preflight.devices import Device


@dataclass(frozen=True, slots=True)
class Job:
    """``data`` are traces (SFT) or prompts (RL), None where a stage before writes them.

    ``run`` is the directory that receives checkpoints; ``where`` names the place of a setting for the reader.
    ``weights_here``: False where weights are fetched only when the run starts.
    """

    config: SFTConfig | RLConfig
    student: Path
    run: Path
    teacher: Path | None = None
    data: Path | DataSource | None = None
    execution: Execution = field(default_factory=Execution)
    device: Device | None = None
    where: Callable[[str], str] = str
    weights_here: bool = True

    @property
    def kind(self) -> Literal["sft", "rl"]:
        return "sft" if isinstance(self.config, SFTConfig) else "rl"
