"""vLLM in a process of its own: the server program, which ``vold.rollout.vllm_remote`` starts and calls.

It listens on the loopback interface, accepts only requests with the run's random token, and ends with its parent.
Messages are JSON over HTTP. Tensors are in a safetensors file that the message names.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vold.execution import VLLMExecution
from vold.files import JsonObject
from vold.images import Pixels
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.process import receive_task, send_reply
from vold.rollout.proof import Probe, Weights
from vold.rollout.vllm import VLLMEngine

OK, REFUSED, _BROKEN = 200, 422, 500


def pixel_tensors(pixels: Sequence[Pixels | None]) -> dict[str, Tensor]:
    """The images of several prompts as named tensors, which ``_pixels`` reads."""
    tensors: dict[str, Tensor] = {}
    for index, item in enumerate(pixels):
        if item is not None:
            tensors |= {f"{index}.values": item.values, f"{index}.grid": item.grid_thw}
    return tensors


def _pixels(tensors: Mapping[str, Tensor], index: int) -> Pixels | None:
    return Pixels(tensors[f"{index}.values"], tensors[f"{index}.grid"]) if f"{index}.values" in tensors else None


def _generate(engine: VLLMEngine, message: JsonObject, tensors: Mapping[str, Tensor]) -> object:
    requests = [
        RolloutRequest(tuple(row["prompt_ids"]), tuple(row["seeds"]), _pixels(tensors, index))
        for index, row in enumerate(message["requests"])
    ]
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in message["sampling"].items()
    }
    groups = engine.generate(requests, Sampling(**fields))
    return [[(sample.completion_ids, sample.logprobs, sample.finish_reason) for sample in group] for group in groups]


def _load(engine: VLLMEngine, message: JsonObject, tensors: Mapping[str, Tensor]) -> object:
    probes = tuple(
        Probe(tuple(row["prompt_ids"]), tuple(row["logprobs"]), _pixels(tensors, index))
        for index, row in enumerate(message["probes"])
    )
    weights = {name: tensors[stored] for name, stored in message["names"].items()}
    return asdict(engine.load(Weights(weights, probes, tuple(message["banned_ids"]))))


def _sleep(engine: VLLMEngine, message: JsonObject, tensors: Mapping[str, Tensor]) -> None:
    engine.sleep()


_METHODS = {"/generate": _generate, "/load": _load, "/sleep": _sleep}


def _handler(engine: VLLMEngine, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, answer = self._work()
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _work(self) -> tuple[int, object]:
            if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {token}"):
                return 403, "wrong token"
            try:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                tensors = load_file(message["tensors"]) if message["tensors"] else {}
                return OK, _METHODS[self.path](engine, message, tensors)
            except ValueError as error:
                return REFUSED, str(error)
            except Exception as error:
                return _BROKEN, f"{type(error).__name__}: {error}"

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    return Handler


def main() -> None:
    """Serve until the parent process ends."""
    task = receive_task()
    try:
        engine = VLLMEngine(
            Path(task["checkpoint"]), VLLMExecution.model_validate(task["settings"]),
            device=torch.device(task["device"]), dtype=task["dtype"], max_batch=task["max_batch"],
        )  # fmt: skip
    except ValueError as error:
        return send_reply(task, {"refused": str(error)})
    server = HTTPServer(("127.0.0.1", 0), _handler(engine, task["token"]))
    send_reply(task, {"port": server.server_address[1]})
    server.serve_forever()


if __name__ == "__main__":
    main()
