"""The files metrics.jsonl and timing.jsonl with one object per step, and the stopwatch and memory that fill them."""

import json
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from vold.files import naming_full_disk, write_whole


class Journal:
    """Appends rows to a JSONL file. Each row has a ``step``, counted from 1.

    earlier: the rows that the file already had when the run resumed.
    """

    def __init__(self, path: Path, resume_after: int) -> None:
        """Keep the rows up to step ``resume_after`` and drop all others, also a half-written last line."""
        self.path = path
        lines = list(_lines_until(path, resume_after))
        self.earlier: list[dict[str, float | int | None]] = [json.loads(line) for line in lines]
        write_whole(path, "".join(lines))

    def write(self, row: Mapping[str, float | int | None]) -> None:
        """Append one row. NaN and infinite numbers, which JSON does not have, become null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        with naming_full_disk(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")


def _lines_until(path: Path, step: int) -> Iterator[str]:
    """The lines of the steps up to ``step``, up to the first damaged line."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if json.loads(line)["step"] <= step:
                        yield line
                except (ValueError, KeyError, TypeError):
                    return


class Stopwatch:
    """Measures the seconds that each part of one step takes.

    A GPU works asynchronously, so the clock waits for it before and after each part.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the duration of the block to the part ``name``."""
        _wait_for_gpu()
        start = time.perf_counter()
        try:
            yield
        finally:
            _wait_for_gpu()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def row(self, step: int, tokens: Mapping[str, int]) -> dict[str, float | int]:
        """The seconds of each part, and its tokens per second if ``tokens`` has its number of tokens."""
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
    """Peak memory in bytes: of a GPU since the last call, otherwise of this process since its start."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
