"""vLLM in a process of its own: the trainer's side. The server program is ``vold.rollout.vllm_program``.

A synchronisation is proven here, from the trainer's own tensors. The server only reports what it holds and computes.
"""

import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vold.execution import VLLMExecution
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.process import ServerProcess, gpu_name, log_directory
from vold.rollout.proof import Readback, SyncProof, Weights, prove
from vold.rollout.vllm_program import OK, REFUSED, pixel_tensors

_SHARED_MEMORY = Path("/dev/shm")


class ServerEngine:
    """Implements ``RolloutEngine`` with a server that it starts, checks and stops. Parameters as for VLLMEngine."""

    live = False

    def __init__(
        self, checkpoint: Path, settings: VLLMExecution, *, device: torch.device, dtype: str, max_batch: int
    ) -> None:
        self.settings, self.dtype = settings, getattr(torch, dtype)
        self._token = secrets.token_hex(32)
        task = {
            "checkpoint": str(checkpoint), "settings": settings.model_dump(), "dtype": dtype, "device": device.type,
            "max_batch": max_batch, "token": self._token,
        }  # fmt: skip
        gpu = gpu_name(device.index) if device.type == "cuda" and device.index is not None else None
        program = [sys.executable, "-m", "vold.rollout.vllm_program"]
        self.server = ServerProcess(program, task, log_directory() / "rollout.log", settings.timeout_seconds, gpu)
        self._port = int(self.server.reply["port"])
        self._scratch = Path(tempfile.mkdtemp(prefix="vold-rollout-"))

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        rows = [{"prompt_ids": request.prompt_ids, "seeds": request.seeds} for request in requests]
        tensors = pixel_tensors([request.pixels for request in requests])
        groups = self._call("generate", {"requests": rows, "sampling": asdict(sampling)}, tensors)
        return [
            [Completion(tuple(ids), tuple(logprobs), reason) for ids, logprobs, reason in group] for group in groups
        ]

    def sync(self, weights: Weights) -> SyncProof:
        """Hand over the weights and compare what the server reports. Raises SyncError if it differs."""
        tensors, names = _named_once(weights.tensors, self.dtype)
        tensors |= pixel_tensors([probe.pixels for probe in weights.probes])
        probes = [{"prompt_ids": probe.prompt_ids, "logprobs": probe.logprobs} for probe in weights.probes]
        answer = self._call("load", {"names": names, "probes": probes, "banned_ids": weights.banned_ids}, tensors)
        return prove(weights, Readback(**answer), self.dtype, self.settings.tolerance)

    def sleep(self) -> None:
        self._call("sleep", {}, {})

    def close(self) -> None:
        """Stop the server and remove the files that were written for it."""
        self.server.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _call(self, method: str, message: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Any:
        """The server's answer. Raises ValueError if it refuses the input, and EngineError for any other failure."""
        path = _tensor_file(tensors, self._scratch) if tensors else None
        body = json.dumps({**message, "tensors": None if path is None else str(path)})
        connection = HTTPConnection("127.0.0.1", self._port, timeout=self.settings.timeout_seconds)
        try:
            connection.request("POST", f"/{method}", body, {"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            status, answer = response.status, json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise self.server.failure(f"did not answer {method} ({type(error).__name__}: {error})") from error
        finally:
            connection.close()
            if path is not None:
                path.unlink(missing_ok=True)
        if status == REFUSED:
            raise ValueError(answer)
        if status != OK:
            raise self.server.failure(f"failed in {method}: {answer}")
        return answer


def _named_once(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each stored tensor once, and for every name the one under which its tensor is stored (tied weights share it)."""
    first: dict[tuple[int, torch.Size], str] = {}
    names = {name: first.setdefault((tensor.data_ptr(), tensor.shape), name) for name, tensor in tensors.items()}
    return {name: tensors[name].to(dtype) for name in dict.fromkeys(names.values())}, names


def _tensor_file(tensors: Mapping[str, Tensor], scratch: Path) -> Path:
    """Write ``tensors`` to a file for the server: in shared memory if there is room, otherwise on the disk."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    fits = _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > 2 * size
    handle, path = tempfile.mkstemp(".safetensors", scratch.name, _SHARED_MEMORY if fits else scratch)
    os.close(handle)
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return Path(path)
