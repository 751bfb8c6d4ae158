"""Where a run can be followed beside its own files: TensorBoard and Weights & Biases.

``metrics.jsonl`` and ``timing.jsonl`` are the record, and a run that cannot write them stops. What is here is a
copy for people: a sink that fails is dropped with one warning, and training goes on.
"""

import importlib.util
import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vold.config import Execution, TelemetrySink
from vold.files import write_whole

_log = logging.getLogger(__name__)

Values = Mapping[str, float]


class Sink(Protocol):
    """Takes the finite values of one step after the other."""

    def write(self, step: int, values: Values) -> None: ...

    def close(self, failed: bool) -> None: ...


class _TensorBoard:
    """Event files under ``run/tensorboard``."""

    def __init__(self, run: Path, execution: Execution, identifier: str, about: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory = run / "tensorboard"
        begun = directory.exists()
        self.writer = SummaryWriter(str(directory))
        if not begun:
            self.writer.add_text("config", f"```json\n{json.dumps(about, indent=1)}\n```", 0)

    def write(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        # Each step, so that a killed run loses none: a resume does not write a step again.
        self.writer.flush()

    def close(self, failed: bool) -> None:
        self.writer.close()


class _WandB:
    """A run of Weights & Biases; ``WANDB_MODE=offline`` keeps it under ``run/wandb`` for ``wandb sync``."""

    def __init__(self, run: Path, execution: Execution, identifier: str, about: Mapping[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True, init_timeout=60, finish_timeout=60)
        self.run = wandb.init(
            project=execution.telemetry_project,
            name=execution.telemetry_run or run.name,
            id=identifier,
            dir=str(run),
            config=dict(about),
            resume="allow",
            settings=settings,
        )

    def write(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


_Open = Callable[[Path, Execution, str, Mapping[str, Any]], Sink]
_SINKS: dict[TelemetrySink, _Open] = {"tensorboard": _TensorBoard, "wandb": _WandB}


class Telemetry:
    """The sinks that ``execution.telemetry`` asks for, none by default.

    ``run/telemetry.json`` holds the run's identifier and the last step that was handed on: steps that a resumed run
    does again are not written a second time.
    """

    def __init__(self, run: Path, execution: Execution, about: Mapping[str, Any]) -> None:
        """``about`` is what the run is called by (its config); raises ValueError when a package is missing."""
        for name in execution.telemetry:
            if importlib.util.find_spec(name) is None:
                raise ValueError(
                    f"execution.telemetry: {name} is not installed; pip install 'vold-bench[{name}]', or leave it out"
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
                self._sinks[name] = _SINKS[name](run, execution, self._state["id"], about)
            except Exception as error:
                _given_up(name, error)

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Hand on the finite values of ``step``."""
        if not self._sinks or step <= self._state["step"]:
            return
        self._state["step"] = step
        finite = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        try:
            # Before and not after: a run killed between loses a step here rather than telling it twice.
            write_whole(self._record, json.dumps(self._state))
        except Exception as error:
            _given_up("telemetry", error)
            self._sinks.clear()
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(step, finite)
            except Exception as error:
                _given_up(name, error)
                del self._sinks[name]

    def close(self, failed: bool) -> None:
        """End what is open; ``failed`` says that the run did not come to its end."""
        for name, sink in self._sinks.items():
            try:
                sink.close(failed)
            except Exception as error:
                _given_up(name, error)


def _given_up(name: str, error: Exception) -> None:
    detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    _log.warning("%s takes no more values (%s); training goes on, metrics.jsonl is complete", name, detail)
