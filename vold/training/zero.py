"""DeepSpeed's ZeRO behind the interface of ``Optimizer``: the trained weights are split over the processes.

DeepSpeed sees a single module whose forward pass computes a loss (a closure over the student). So its hooks cover the
whole computation, including the output head.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vold.config import OptimizerConfig
from vold.distributed import Ranks
from vold.execution import Execution
from vold.models import Student
from vold.models.packing import TokenSequence, completion_hidden
from vold.training.optim import MOMENTS, Optimizer

_DeepSpeed = Any
"""DeepSpeed, its engine and its optimizers, which have no type hints."""
_DUMMY = TokenSequence((0,), (0,))
"""The sequence that a rank computes to keep step with ranks that have more micro-batches."""


class _Computation(torch.nn.Module):
    """The student's trunk and head, which DeepSpeed trains (and splits, in ZeRO-3). The forward pass is any loss."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.trunk = student.trunk
        self.output = student.model.get_output_embeddings()

    def forward(self, loss: Callable[[], Tensor]) -> Tensor:
        return loss()


class ZeroOptimizer(Optimizer):
    """ZeRO-2 or ZeRO-3 over ``ranks``, which may be a single one.

    Every forward and backward pass has collective operations, so all ranks must run the same number of passes.
    """

    measures_gradients = False

    def __init__(
        self, student: Student, config: OptimizerConfig, max_nonfinite: int, execution: Execution, ranks: Ranks
    ) -> None:
        """Raises ValueError if DeepSpeed is not installed or a vision part is to be trained."""
        if any(p.requires_grad for p in student.model.model.visual.parameters()):
            raise ValueError(
                f"execution.parallel.strategy {execution.parallel.strategy} cannot train the vision tower or the "
                "merger, because not every process sees an image in every pass; freeze both, or use strategy none"
            )
        super().__init__(student.model, config, max_nonfinite, ranks)
        strategy = execution.parallel.strategy
        self.layout = f"{strategy} over {ranks.world} processes"
        self.file = f"state-{ranks.rank}.safetensors"
        self.student = student
        # Compute and cache these now: once the weights are split, the number of rows of the head is not known.
        self.vocabulary = (student.banned_ids, student.stop_ids)
        computation = _Computation(student)
        self._deepspeed = _import(student.device)
        self.engine: _DeepSpeed = self._deepspeed.initialize(
            model=computation, optimizer=self.adamw, config=_settings(execution, config, ranks)
        )[0]
        self.zero: _DeepSpeed = self.engine.optimizer
        self.cuts_weights = strategy == "zero3"
        if self.cuts_weights:
            self._deepspeed.zero.register_external_parameter(computation, student.head)

    def batches(self, batches: Iterable[list[int]]) -> Iterator[list[int]]:
        """The micro-batches of this rank, then passes without effect until all ranks have run equally many."""
        own = list(batches)
        missing = max(self.ranks.max(len(own)), 1) - len(own)
        yield from own
        for _ in range(missing):
            self.accumulate(self._zero_loss)

    def _zero_loss(self) -> Tensor:
        """A loss of 0 with a gradient of 0 at every trained weight."""
        hidden = completion_hidden(self.student, [_DUMMY])
        return (hidden.sum() + self.student.head[0].sum()) * 0

    def accumulate(self, loss: Callable[[], Tensor]) -> Tensor:
        value = self.engine(loss)
        # DeepSpeed averages gradients over ranks, but they must be summed here.
        self.engine.backward(value * self.ranks.world)
        return value.detach()

    def _update(self, loss: float, rate: float) -> tuple[float, bool]:
        if not math.isfinite(loss):
            # DeepSpeed itself drops a step whose gradient is not finite, on every rank.
            self.accumulate(lambda: self._zero_loss() * torch.nan)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.engine.step()
        return float(self.engine.get_global_grad_norm()), self.engine.was_step_applied()

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        if not self.cuts_weights:
            yield
            return
        parameters = list(self.engine.module.parameters())
        hooks = self.zero.parameter_offload
        with self._deepspeed.zero.GatheredParameters(parameters):
            # With the hooks in place, every forward pass would split the weights again.
            for hook in (*hooks.forward_hooks, *hooks.backward_hooks):
                hook.remove()
            for parameter in parameters:
                parameter.ds_active_sub_modules.clear()
            hooks.forward_hooks, hooks.backward_hooks = [], []
            try:
                yield
            finally:
                hooks._register_deepspeed_module(hooks.module)

    def _flat(self) -> list[Tensor]:
        """This rank's pieces of the trained weights, in full precision."""
        return list(
            self.zero.fp32_partitioned_groups_flat if self.cuts_weights else self.zero.single_partition_of_fp32_groups
        )

    def tensors(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for index, piece in enumerate(self._flat()):
            state[f"weight/{index}"] = piece.detach()
            for key, value in self.adamw.state.get(piece, {}).items():
                state[f"{key}/{index}"] = value
        return state

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        pieces = self._flat()
        shapes = {f"weight/{index}": piece.shape for index, piece in enumerate(pieces)}
        if shapes != {name: value.shape for name, value in tensors.items() if name.startswith("weight/")}:
            raise ValueError("it trains other weights")
        for index, piece in enumerate(pieces):
            piece.copy_(tensors[f"weight/{index}"])
            moments = {key: tensors[f"{key}/{index}"] for key in MOMENTS if f"{key}/{index}" in tensors}
            if moments:
                self.adamw.state[piece] = {k: v if k == "step" else v.to(piece.device) for k, v in moments.items()}
        if not self.cuts_weights:
            self.zero.update_lp_params()
            return
        self.zero._partition_all_parameters()
        for index in range(len(pieces)):
            self.zero._reassign_or_swap_out_partitioned_parameters(index)
        persistent = self.zero.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)


def _import(device: torch.device) -> _DeepSpeed:
    # Otherwise DeepSpeed takes a GPU if there is one, even for a model on the CPU.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed needs it even for a single process
    try:
        import deepspeed
    except ImportError as error:
        raise ValueError(
            "execution.parallel.strategy needs DeepSpeed: pip install 'vold-bench[deepspeed]', or choose strategy none"
        ) from error
    # Compiling its collectives for CPUs at first use would take minutes, and those of gloo suffice.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)  # DeepSpeed still uses deprecated names
    return deepspeed


def _settings(execution: Execution, config: OptimizerConfig, ranks: Ranks) -> dict[str, object]:
    stage = 3 if execution.parallel.strategy == "zero3" else 2
    zero: dict[str, object] = {"stage": stage}
    if execution.parallel.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": ranks.world,
        "train_micro_batch_size_per_gpu": 1,
        # A step ends when ``step`` is called, after any number of micro-batches.
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.max_gradient_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
    }
