"""Where and in which precision a stage computes."""

from contextlib import AbstractContextManager, nullcontext

import torch

from vold.config import Execution


def prepare(execution: Execution) -> torch.device:
    """Set the number of threads and return the device."""
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
    if execution.device != "auto":
        return torch.device(execution.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def frozen_dtype(execution: Execution) -> torch.dtype:
    """The type of weights that are read and never updated."""
    return torch.bfloat16 if execution.dtype == "bfloat16" else torch.float32


def precision(execution: Execution, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 means autocast over float32 weights: the updates are too small for bfloat16 weights."""
    if execution.dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
