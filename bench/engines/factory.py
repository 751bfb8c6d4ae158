"""From the name of an engine and a checkpoint to the engine, kept warm from one checkpoint to the next."""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Literal, Protocol

from bench.engines.base import Engine, Swappable
from bench.engines.endpoint import is_remote
from bench.errors import ConfigurationError
from vold.config import Execution
from vold.files import MODEL_SUFFIXES, WEIGHTS
from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import EngineError

EngineName = Literal["auto", "builtin", "vllm", "vllm_server", "openai"]
IN_PROCESS = frozenset({"builtin", "vllm"})
"""Engines that compute in the process that asks them."""

# Files of a checkpoint that say how it came about, and nothing of what it is.
_HISTORY = frozenset({"recipe.json", "model.safetensors.index.json"})


class EngineChoice(Protocol):
    """What of an evaluation's settings decides which engine is built, and how it reads turns."""

    @property
    def engine(self) -> str: ...

    @property
    def pixel_limits(self) -> tuple[int, int] | None: ...

    @property
    def thinking(self) -> bool | None: ...


def resolve(name: str) -> str:
    """``auto`` is vLLM where a GPU and vLLM are present, else the builtin engine; any other name stays."""
    if name != "auto":
        return name
    return "vllm" if gpu_present() and importlib.util.find_spec("vllm") else "builtin"


def gpu_present() -> bool:
    """Whether this process may use an NVIDIA GPU; imports nothing heavy."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))


def check_kind(engine: str, model: Path) -> None:
    """Raise ConfigurationError where one is for models behind servers and the other is not."""
    if is_remote(model) != (engine == "openai"):
        raise ConfigurationError(
            f"{model}: the engine openai is for models behind a server (URL#MODEL, or a directory with endpoint.json), "
            f"and these are for it alone; here the engine is {engine}"
        )


def build(config: EngineChoice, model: Path, execution: Execution) -> Engine:
    """A fresh engine over ``model``.

    Raises ModelError where there is no checkpoint, ConfigurationError where engine and model do not go together,
    EngineError if it cannot start.
    """
    check_kind(config.engine, model)
    if config.engine == "openai":
        from bench.engines.openai import connect

        return connect(model, execution.client, config.pixel_limits, config.thinking)
    if config.engine == "vllm_server":
        from bench.engines.vllm_server import Served

        return Served(model, execution, config.pixel_limits, config.thinking)
    if config.engine == "vllm":
        from bench.engines.vllm import VLLM

        return VLLM(model, execution, config.pixel_limits, config.thinking)
    from bench.engines.builtin import Builtin  # torch and transformers, only when something is to be answered

    return Builtin(model, execution, config.pixel_limits, config.thinking)


class EnginePool:
    """The engine of the checkpoint that was asked for last; one of the same form takes its place in the warm engine.

    The same form: equal settings, tokenizer, template and image processor, byte for byte. The new weights are proven
    to be in use; where that fails or the form differs, the engine is closed and a fresh one built.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._form = ""
        self._model: tuple[Path, str] | None = None
        """Where the weights in use were read, and the checkpoint's hash as it then was."""
        self._batch = 1
        """What the last engine was to decode together at most."""
        self._most: int | None = None

    def __enter__(self) -> "EnginePool":
        return self

    def __exit__(self, *error: object) -> None:
        self.drop()

    def engine(self, config: EngineChoice, model: Path, execution: Execution, sha256: str) -> Engine:
        """As ``build``, warm where that can be, and within the memory that there is (see ``broke``).

        sha256: of the checkpoint as it is now (``model_identity``); one that was overwritten is another.
        """
        if self._most is not None:
            batch = min(execution.rollout_batch, self._most)
            execution = execution.model_copy(update={"rollout_batch": batch})
        self._batch = execution.rollout_batch
        form = _form(config, model, execution)
        if self._engine is not None and form == self._form:
            if (model, sha256) == self._model:
                return self._engine
            if isinstance(self._engine, Swappable) and self._engine.swap(model):
                self._model = model, sha256
                return self._engine
        self.drop()
        self._engine = build(config, model, execution)
        self._form, self._model = form, (model, sha256)
        return self._engine

    def broke(self, error: EngineError) -> None:
        """Close the engine after ``error``; those that follow decode no more at once than it had come down to.

        Where memory ran out, half of that.
        """
        batch = self._batch if self._engine is None else self._engine.about().get("batch", self._batch)
        self.drop()
        if is_out_of_memory(error):
            batch = max(1, batch // 2)
        if batch < self._batch:
            self._most = batch

    def drop(self) -> None:
        """Close the engine, if there is one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def _form(config: EngineChoice, model: Path, execution: Execution) -> str:
    """Hash of all that an engine is built from, except weights."""
    settings = (config.engine, config.pixel_limits, config.thinking, execution.model_dump_json())
    total = hashlib.sha256(repr(settings).encode())
    for file in sorted(model.glob("*")):
        if file.suffix in MODEL_SUFFIXES - {WEIGHTS} and file.name not in _HISTORY:
            total.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
