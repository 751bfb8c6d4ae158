"""TensorBoard and W&B get every step once, even if the run is killed. A sink that fails does not end the run."""

import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from vold.config import OptimizerConfig, SFTConfig
from vold.execution import Execution
from vold.training import telemetry
from vold.training.progress import Progress, silent
from vold.training.sft import train_sft
from vold.training.telemetry import Telemetry

STEPS = 5


def train(run: Path, student: Path, traces: Path, sinks: tuple[str, ...], progress: Progress = silent) -> None:
    config = SFTConfig(steps=STEPS, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-3))
    execution = Execution.model_validate({"threads": 1, "checkpoint_every": 2, "telemetry": sinks})
    train_sft(config, student=student, traces=traces, run=run, seed=1, execution=execution, progress=progress)


def stop_after(step: int) -> Progress:
    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return stop


def losses(run: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"]) for row in rows]


@pytest.mark.slow
def test_tensorboard_has_each_step_of_a_resumed_run_once(student_path: Path, traces: Path, tmp_path: Path) -> None:
    need("tensorboard", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):  # step 3 is repeated, because the training state is that of step 2
        train(run, student_path, traces, ("tensorboard",), stop_after(3))
    train(run, student_path, traces, ("tensorboard",))
    logged = EventAccumulator(str(run / "tensorboard"), purge_orphaned_data=False).Reload()
    assert [(e.step, e.value) for e in logged.Scalars("loss")] == [(s, pytest.approx(v)) for s, v in losses(run)]
    assert {"gradient_norm", "learning_rate", "train_seconds", "peak_memory_bytes"} <= set(logged.Tags()["scalars"])
    assert '"batch_size": 4' in logged.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_wandb_offline_has_each_step_of_a_resumed_run_once(
    student_path: Path, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("wandb", "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(run, student_path, traces, ("wandb",), stop_after(3))
    train(run, student_path, traces, ("wandb",))
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    identifier = json.loads((run / "telemetry.json").read_text())["id"]
    assert [file.name for file in files] == [f"run-{identifier}.wandb"] * 2
    logged = [(int(row["_step"]), float(row["loss"])) for file in files for row in history(file)]
    assert logged == [(s, pytest.approx(v)) for s, v in losses(run)]


def history(file: Path) -> Iterator[dict[str, str]]:
    """The logged rows of a W&B file: protobuf records in LevelDB's log format (32 KiB blocks, chunked records)."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated at import

    data, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record = (record if kind in (3, 4) else b"") + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4) and (parsed := Record.FromString(record)).WhichOneof("record_type") == "history":
            yield {item.key or item.nested_key[0]: item.value_json for item in parsed.history.item}


class Broken:
    """A sink whose disk is full from the second step on."""

    def __init__(self, *arguments: object) -> None:
        self.steps: list[int] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        if step > 1:
            raise OSError(28, "No space left on device")
        self.steps.append(step)

    def close(self, failed: bool) -> None:
        raise AssertionError("a failed sink must not be closed")


def test_a_sink_that_fails_warns_once_and_training_continues(
    student_path: Path, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need("tensorboard", "tensorboard")
    monkeypatch.setitem(telemetry._SINKS, "tensorboard", Broken)
    train(tmp_path / "run", student_path, traces, ("tensorboard",))
    assert len(losses(tmp_path / "run")) == STEPS and (tmp_path / "run" / "out").is_dir()
    (message,) = caplog.messages
    assert message.startswith(
        "tensorboard failed and receives no more values (OSError: [Errno 28] No space left on device)"
    )


def test_a_sink_that_cannot_start_does_not_end_the_run(
    student_path: Path, traces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    need("tensorboard", "tensorboard")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file where the directory should be")
    train(tmp_path / "run", student_path, traces, ("tensorboard",))
    assert len(losses(tmp_path / "run")) == STEPS
    assert sum("tensorboard failed and receives no more values" in text for text in caplog.messages) == 1


class Kept:
    """A sink that remembers."""

    def __init__(self, *arguments: object) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        KEPT.append(self)

    def write(self, step: int, values: dict[str, float]) -> None:
        self.steps.append((step, values))

    def close(self, failed: bool) -> None: ...


KEPT: list[Kept] = []


def test_repeated_steps_and_values_that_are_not_finite_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("tensorboard", "tensorboard")
    monkeypatch.setitem(telemetry._SINKS, "tensorboard", Kept)
    execution = Execution(telemetry=("tensorboard",))
    first = Telemetry(tmp_path, execution, {})
    for step in (1, 2, 3):
        first.write(step, {"loss": 1.0, "kl_exact": None, "gradient_norm": float("nan")})
    second = Telemetry(tmp_path, execution, {})
    for step in (3, 4):
        second.write(step, {"loss": 2.0})
    assert [sink.steps for sink in KEPT[-2:]] == [[(s, {"loss": 1.0}) for s in (1, 2, 3)], [(4, {"loss": 2.0})]]


def test_a_missing_package_is_refused_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"wandb is not installed; pip install 'vold-bench\[wandb\]'"):
        Telemetry(tmp_path, Execution(telemetry=("wandb",)), {})


def test_nothing_is_written_without_a_sink(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Telemetry(tmp_path, Execution(), {}).write(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir()) and not caplog.messages
