"""Builds an engine for a checkpoint, and keeps it warm from one checkpoint to the next."""

import hashlib
import importlib.util
import os
import pkgutil
from pathlib import Path
from typing import Literal, Protocol

from bench.engines.base import Engine, Swappable
from bench.engines.endpoint import is_remote
from bench.errors import ConfigurationError
from vold.execution import Execution
from vold.files import MODEL_SUFFIXES, WEIGHTS
from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import EngineError

EngineName = Literal["auto", "builtin", "vllm", "vllm_server", "openai"]
ENGINES = {
    "builtin": "bench.engines.builtin:Builtin",
    "vllm": "bench.engines.vllm:VLLM",
    "vllm_server": "bench.engines.vllm_server:VLLMServers",
    "openai": "bench.engines.openai:connect",
}
"""Engine name to what builds it from (model, execution, pixel_limits, thinking); imported only when it is used."""
IN_PROCESS = frozenset({"builtin", "vllm"})
"""Engines that compute in the process that sends the requests."""

# Files that describe how a checkpoint was made and do not change what it computes.
_HISTORY = frozenset({"recipe.json", "model.safetensors.index.json"})


class EngineChoice(Protocol):
    """The settings of an evaluation that decide which engine is built and how it reads turns."""

    @property
    def engine(self) -> str: ...

    @property
    def pixel_limits(self) -> tuple[int, int] | None: ...

    @property
    def thinking(self) -> bool | None: ...


def resolve(name: str) -> str:
    """Resolve ``auto`` to vLLM if a GPU and vLLM are present, and to the builtin engine otherwise."""
    if name != "auto":
        return name
    return "vllm" if gpu_present() and importlib.util.find_spec("vllm") else "builtin"


def gpu_present() -> bool:
    """Whether this process may use an NVIDIA GPU. Imports nothing heavy."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))


def check_kind(engine: str, model: Path) -> None:
    """Raise ConfigurationError unless engine and model are both remote or both local."""
    if is_remote(model) != (engine == "openai"):
        raise ConfigurationError(
            f"{model}: the engine is {engine}. The engine openai is for models behind a server (URL#MODEL, or a "
            "directory with endpoint.json), and only for these; choose the engine that fits the model"
        )


def build(config: EngineChoice, model: Path, execution: Execution) -> Engine:
    """A new engine for ``model``.

    Raises ModelError if there is no checkpoint, ConfigurationError if engine and model do not fit together, and
    EngineError if the engine cannot start.
    """
    check_kind(config.engine, model)
    return pkgutil.resolve_name(ENGINES[config.engine])(model, execution, config.pixel_limits, config.thinking)


class EnginePool:
    """Keeps one engine warm. A checkpoint of the same form replaces the weights of the running engine.

    Two checkpoints have the same form if settings, tokenizer, template and image processor are equal byte for byte.
    The new weights are then proven to be in use. If that fails or the form differs, the engine is closed and a new one
    is built.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._form = ""
        self._model: tuple[Path, str] | None = None
        """The path of the weights in use, and the checkpoint's hash when they were read."""
        self._batch = 1
        """The largest batch that the last engine was allowed."""
        self._batch_limit: int | None = None
        """The largest batch for the engines that follow, after memory ran out."""

    def __enter__(self) -> "EnginePool":
        return self

    def __exit__(self, *error: object) -> None:
        self.drop()

    def engine(self, config: EngineChoice, model: Path, execution: Execution, sha256: str) -> Engine:
        """As ``build``, but reuse the warm engine if possible and respect the batch limit that ``drop_broken`` set.

        sha256: hash of the checkpoint as it is now (``model_hash``). An overwritten checkpoint has another one.
        """
        if self._batch_limit is not None:
            batch = min(execution.rollout_batch, self._batch_limit)
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

    def drop_broken(self, error: EngineError) -> None:
        """Close the engine after ``error`` and limit later engines to the batch size that it had come down to.

        If memory ran out, the limit is half of that.
        """
        batch = self._batch if self._engine is None else self._engine.about().get("batch", self._batch)
        self.drop()
        if is_out_of_memory(error):
            batch = max(1, batch // 2)
        if batch < self._batch:
            self._batch_limit = batch

    def drop(self) -> None:
        """Close the engine, if there is one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def _form(config: EngineChoice, model: Path, execution: Execution) -> str:
    """Hash of everything that an engine is built from, except the weights."""
    settings = (config.engine, config.pixel_limits, config.thinking, execution.model_dump_json())
    total = hashlib.sha256(repr(settings).encode())
    for file in sorted(model.glob("*")):
        if file.suffix in MODEL_SUFFIXES - {WEIGHTS} and file.name not in _HISTORY:
            total.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
