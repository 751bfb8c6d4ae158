"""Device, ranks, precision and optimizer of a stage, from its ``Execution``."""

from contextlib import AbstractContextManager, nullcontext

import torch

from vold.config import OptimizerConfig
from vold.distributed import Ranks, join, local_rank
from vold.execution import Execution
from vold.models import Student
from vold.training.optim import Optimizer


def prepare_device(execution: Execution) -> torch.device:
    """Set the number of threads and return the device. Each process of a machine gets a GPU of its own.

    Raises ValueError if ``execution.device`` names a GPU and there is none.
    """
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
    name = execution.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"execution.device is {name}, but torch finds no GPU; set it to cpu or auto")
    if name == "cuda":
        torch.cuda.set_device(local_rank())
        return torch.device("cuda", local_rank())
    return torch.device(name)


def start_training(execution: Execution) -> tuple[torch.device, Ranks]:
    """Prepare the device and connect to the other processes of this training run."""
    device = prepare_device(execution)
    return device, join(device, always=execution.parallel.strategy != "none")


def make_optimizer(
    model: Student, config: OptimizerConfig, limit: int, execution: Execution, ranks: Ranks
) -> Optimizer:
    """The optimizer for the strategy in ``execution``. The run ends after ``limit`` non-finite steps in a row."""
    if execution.parallel.strategy == "none":
        return Optimizer(model.model, config, limit, ranks)
    from vold.training.zero import ZeroOptimizer

    return ZeroOptimizer(model, config, limit, execution, ranks)


def frozen_dtype(execution: Execution) -> torch.dtype:
    """The type of weights that are never updated."""
    return torch.bfloat16 if execution.dtype == "bfloat16" else torch.float32


def precision(execution: Execution, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a stage computes.

    For bfloat16 it is autocast over float32 weights, because the updates are too small for bfloat16 weights.
    """
    if execution.dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
