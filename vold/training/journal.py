"""metrics.jsonl and timing.jsonl: one object a step, cut back to the checkpoint when a run resumes."""

import json
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from vold.files import disk_full_named, write_whole


class Journal:
    """Appends rows to a JSONL file; each has a ``step``, counted from 1. ``earlier`` are the rows kept at a resume."""

    def __init__(self, path: Path, resume_after: int) -> None:
        """Keep the rows up to step ``resume_after`` and drop the rest, a half-written last line included."""
        self.path = path
        kept = list(_rows_until(path, resume_after))
        self.earlier = [json.loads(line) for line in kept]
        write_whole(path, "".join(kept))

    def write(self, row: Mapping[str, float | int | None]) -> None:
        """Append one row; numbers that JSON does not know become null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        with disk_full_named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")


def _rows_until(path: Path, step: int) -> Iterator[str]:
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if json.loads(line)["step"] <= step:
                        yield line
                except (ValueError, KeyError, TypeError):
                    return


class Stopwatch:
    """Seconds per part of one step; a GPU, which works behind the interpreter, is waited for at both ends of a part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        _wait_for_gpu()
        start = time.perf_counter()
        try:
            yield
        finally:
            _wait_for_gpu()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def row(self, step: int, tokens: Mapping[str, int]) -> dict[str, float | int]:
        """Seconds and, where ``tokens`` says how many went through a part, tokens per second."""
        row: dict[str, float | int] = {"step": step}
        for name, seconds in self.seconds.items():
            row[f"{name}_seconds"] = round(seconds, 6)
            if name in tokens:
                row[f"{name}_tokens_per_second"] = round(tokens[name] / max(seconds, 1e-9), 1)
        return row


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU the most that was allocated since the last call, elsewhere the most this process ever held."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
