"""Copies of a run's metrics in TensorBoard and Weights & Biases.

The record of a run is ``metrics.jsonl`` and ``timing.jsonl``; a run that cannot write them stops. A telemetry sink that
fails is dropped with a warning, and training continues.
"""

import importlib.util
import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vold.execution import Execution, TelemetrySink
from vold.files import write_whole

_log = logging.getLogger(__name__)

Values = Mapping[str, float]


class Sink(Protocol):
    """A service that receives the finite values of each step, in order."""

    def write(self, step: int, values: Values) -> None: ...

    def close(self, failed: bool) -> None: ...


class _TensorBoard:
    """Event files under ``run/tensorboard``."""

    def __init__(self, run: Path, execution: Execution, identifier: str, settings: Mapping[str, object]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory = run / "tensorboard"
        exists = directory.exists()
        self.writer = SummaryWriter(str(directory))
        if not exists:
            self.writer.add_text("config", f"```json\n{json.dumps(settings, indent=1)}\n```", 0)

    def write(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        # Flush every step: a resumed run does not write a step again, so a killed run would lose the buffered ones.
        self.writer.flush()

    def close(self, failed: bool) -> None:
        self.writer.close()


class _WandB:
    """A run in Weights & Biases. ``WANDB_MODE=offline`` writes it to ``run/wandb`` for ``wandb sync``."""

    def __init__(self, run: Path, execution: Execution, identifier: str, settings: Mapping[str, object]) -> None:
        import wandb

        self.run = wandb.init(
            project=execution.telemetry_project,
            name=execution.telemetry_run or run.name,
            id=identifier,
            dir=str(run),
            config=dict(settings),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True, init_timeout=60, finish_timeout=60),
        )

    def write(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


_Open = Callable[[Path, Execution, str, Mapping[str, object]], Sink]
_SINKS: dict[TelemetrySink, _Open] = {"tensorboard": _TensorBoard, "wandb": _WandB}


class Telemetry:
    """The sinks that ``execution.telemetry`` names, none by default.

    ``run/telemetry.json`` holds the run's identifier and the last step that was sent. Steps that a resumed run repeats
    are not sent again.
    """

    def __init__(self, run: Path, execution: Execution, settings: Mapping[str, object]) -> None:
        """settings: the run's config, which the sinks show. Raises ValueError if the package of a sink is missing."""
        for name in execution.telemetry:
            if importlib.util.find_spec(name) is None:
                raise ValueError(
                    f"execution.telemetry: {name} is not installed; pip install 'vold-bench[{name}]', or remove {name}"
                )
        self._sinks: dict[str, Sink] = {}
        if not execution.telemetry:
            return
        self._record = run / "telemetry.json"
        self._state: dict[str, Any] = {"id": secrets.token_hex(6), "step": 0}
        if self._record.exists():
            self._state = json.loads(self._record.read_text(encoding="utf-8"))
        for name in execution.telemetry:
            try:
                self._sinks[name] = _SINKS[name](run, execution, self._state["id"], settings)
            except Exception as error:
                _warn_of_failure(name, error)

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Send the finite values of ``step`` to every sink."""
        if not self._sinks or step <= self._state["step"]:
            return
        self._state["step"] = step
        finite = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        try:
            # Recorded before sending: a run killed in between loses a step, and does not send it twice.
            write_whole(self._record, json.dumps(self._state))
        except Exception as error:
            _warn_of_failure("telemetry", error)
            self._sinks.clear()
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(step, finite)
            except Exception as error:
                _warn_of_failure(name, error)
                del self._sinks[name]

    def close(self, failed: bool) -> None:
        """Close the sinks. failed: whether the run ended with an error."""
        for name, sink in self._sinks.items():
            try:
                sink.close(failed)
            except Exception as error:
                _warn_of_failure(name, error)


def _warn_of_failure(name: str, error: Exception) -> None:
    detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    _log.warning(
        "%s failed and receives no more values (%s); training continues, and metrics.jsonl is complete", name, detail
    )
