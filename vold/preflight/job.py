"""The training run that the preflight checks: its settings, its inputs and its machine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vold.config import RLConfig, SFTConfig
from vold.data.sources import DataSource
from vold.execution import Execution
from vold.preflight.devices import Device


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    run: directory of its checkpoints.
    data: traces (SFT) or prompts (RL); None if an earlier stage has yet to write them.
    where: gives the file and line of a setting, for messages.
    weights_here: False if weights are fetched only when the run starts.
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
