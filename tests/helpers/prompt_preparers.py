"""Preparers for worker processes, which import this module: nothing heavy at its top."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bench.prompts import PromptPart
from vold.images import Pixels


def turns(texts: Sequence[str], drawn: list[str] | None = None) -> Iterator[list[PromptPart]]:
    for text in texts:
        if drawn is not None:
            drawn.append(text)
        yield [{"type": "text", "text": text}]


def upper(parts: Sequence[PromptPart]) -> Any:
    text = parts[0].get("text", "")
    if text.startswith("bad"):
        raise ValueError(f"{text} cannot be asked")
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if text.startswith("slow"):
        time.sleep(0.2)
    return text.upper()


def process(parts: Sequence[PromptPart]) -> Any:
    return os.getpid()


def pixels(parts: Sequence[PromptPart]) -> Any:
    import torch

    number = int(parts[0].get("text", ""))
    return ((1, number), Pixels(torch.full((4, 3), number / 7), torch.tensor([[1, 2, 2]])))


def large(parts: Sequence[PromptPart]) -> Any:
    import numpy as np

    return {"values": np.zeros(1 << 20, dtype=np.uint8)}
