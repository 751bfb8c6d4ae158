"""The program that ``bench.engines.vllm_server`` starts: vLLM's OpenAI-compatible server for one checkpoint.

It listens on the loopback address only, requires the run's random key, and ends with its parent process.
"""

import vold  # isort: skip  # first: it makes torchvision importable with a CPU build of torch

import json
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.engines.model_facts import vocabulary
from vold.execution import VLLMExecution
from vold.rollout.process import receive_task, send_reply
from vold.rollout.vllm import check_platform, fit_process, worker_extension

assert vold.__doc__

MODEL = "model"
"""The name of the checkpoint on the server."""


def main() -> None:
    """Serve until the parent process or the engine ends."""
    task = receive_task()
    os.environ |= {
        "VLLM_API_KEY": task["key"], "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    try:
        arguments = _arguments(task)
        stop_ids, banned_ids = vocabulary(Path(task["checkpoint"]))
    except ValueError as error:
        return send_reply(task, {"refused": str(error)})
    import uvloop

    uvloop.run(_serve(task, arguments, stop_ids, banned_ids))


def _arguments(task: Mapping[str, Any]) -> Namespace:
    """vLLM's parsed command line. Raises ValueError if vLLM is missing or built for another device."""
    check_platform(task["device"])
    on_cpu = fit_process(Path(task["checkpoint"]))
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments: Any = make_arg_parser(FlexibleArgumentParser()).parse_args(command_line(task, on_cpu))
    validate_parsed_serve_args(arguments)
    return arguments


def command_line(task: Mapping[str, Any], on_cpu: bool) -> list[str]:
    """The command line of vLLM's server for a task."""
    settings = VLLMExecution.model_validate(task["settings"])
    line = [
        "--model", task["checkpoint"], "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", "0",
        "--dtype", task["dtype"], "--load-format", "safetensors", "--generation-config", "vllm",
        "--chat-template-content-format", "openai", "--max-num-seqs", str(task["max_batch"]),
        "--gpu-memory-utilization", str(settings.memory_share), "--limit-mm-per-prompt", '{"video": 0}',
        "--worker-extension-cls", worker_extension(), "--disable-uvicorn-access-log",
    ]  # fmt: skip
    if on_cpu:  # vold.rollout.vllm says why
        line.append("--no-enable-chunked-prefill")
    if settings.max_length is not None:
        line += ["--max-model-len", str(settings.max_length)]
    if on_cpu if settings.eager is None else settings.eager:
        line.append("--enforce-eager")
    if (cache := settings.cache_bytes(on_cpu)) is not None:
        line += ["--kv-cache-memory-bytes", str(cache)]
    if task["pixel_limits"]:
        low, high = task["pixel_limits"]
        line += ["--mm-processor-kwargs", json.dumps({"size": {"shortest_edge": low, "longest_edge": high}})]
    return line


async def _serve(
    task: Mapping[str, Any], arguments: Namespace, stop_ids: Sequence[int], banned_ids: Sequence[int]
) -> None:
    from vllm.entrypoints.launchers.api_server.entry import build_and_serve, build_async_engine_client
    from vllm.entrypoints.launchers.launcher import setup_server

    address, socket = setup_server(arguments, reuse_port=False)
    async with build_async_engine_client(arguments) as engine:
        await engine.collective_rpc("vold_ban", args=(banned_ids,))
        ending = build_and_serve(engine, address, socket, arguments)
        send_reply(task, {"port": socket.getsockname()[1], "stop_ids": stop_ids})
        ended = await ending
    await ended


if __name__ == "__main__":
    main()
