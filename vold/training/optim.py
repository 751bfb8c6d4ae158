"""AdamW on the trained weights, the learning-rate schedule, and the guard against non-finite steps."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from vold.config import OptimizerConfig
from vold.distributed import ALONE, Ranks

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not finite."""


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """The learning rate at ``step`` (from 0) of ``total``: linear warm-up, then constant, or linear or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[config.schedule]
    return config.learning_rate * factor


class Backward:
    """Back-propagation of the micro-batches of a step on one rank. ``Optimizer`` adds the sums over ranks."""

    ranks: Ranks = ALONE

    def batches(self, batches: Iterable[list[int]]) -> Iterator[list[int]]:
        """The micro-batches of this rank. The caller calls ``accumulate`` once for each."""
        return iter(batches)

    def whole_weights(self) -> AbstractContextManager[None]:
        """A context in which every rank holds all weights and may run the model as often as it needs."""
        return nullcontext()

    def accumulate(self, loss: Callable[[], Tensor]) -> Tensor:
        """Compute a scalar loss and add its gradients to those of the step. Returns its value, detached."""
        value = loss()
        value.backward()
        return value.detach()


class Optimizer(Backward):
    """AdamW with gradient clipping. Weight decay spares vectors (norms and biases).

    Gradients are summed over ranks, so the losses must have the denominators of the whole batch.
    """

    layout = "whole weights"
    """How the training state is split over files. A run can only read a state of its own layout."""
    measures_gradients = True
    """Whether ``take_norm`` is available."""
    file = "state.safetensors"

    def __init__(
        self, model: torch.nn.Module, config: OptimizerConfig, max_nonfinite: int, ranks: Ranks = ALONE
    ) -> None:
        self.config, self.ranks = config, ranks
        self.max_nonfinite = max_nonfinite
        self.nonfinite_in_a_row = 0
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.named:
            raise ValueError("every part of the model is frozen: nothing to train")
        matrices = [p for p in self.named.values() if p.ndim > 1]
        vectors = [p for p in self.named.values() if p.ndim <= 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay,
        )  # fmt: skip

    def step(self, loss: float, rate: float) -> tuple[float, bool]:
        """Update once from the accumulated gradients and clear them.

        Returns the norm of the gradients before clipping, and whether the update was skipped. loss: the sum over all
        ranks. If the loss or a gradient is not finite, every rank skips the update. Raises NonFiniteError after
        ``max_nonfinite`` skipped updates in a row.
        """
        norm, applied = self._update(loss, rate)
        self.nonfinite_in_a_row = 0 if applied else self.nonfinite_in_a_row + 1
        if self.nonfinite_in_a_row >= self.max_nonfinite:
            raise NonFiniteError(
                f"{self.nonfinite_in_a_row} steps in a row had a loss of {loss} or a gradient norm of {norm}; "
                "lower the learning rate, and see the last rows of metrics.jsonl for the cause"
            )
        return norm, not applied

    def restart(self) -> None:
        """Forget the moments of all earlier updates, as at the start of a run."""
        self.adamw.state.clear()

    def take_norm(self) -> float:
        """The norm of the accumulated gradients, summed over ranks. Clears them."""
        self._sum_gradients()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.named.values() if p.grad is not None])
        self.adamw.zero_grad(set_to_none=True)
        return float(norm)

    def _update(self, loss: float, rate: float) -> tuple[float, bool]:
        """Returns the norm of the gradients and whether the weights were updated."""
        self._sum_gradients()
        norm = float(torch.nn.utils.clip_grad_norm_(self.named.values(), self.config.max_gradient_norm))
        finite = math.isfinite(norm) and math.isfinite(loss)
        if finite:
            for group in self.adamw.param_groups:
                group["lr"] = rate
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm, finite

    def _sum_gradients(self) -> None:
        for parameter in self.named.values():
            # Weights that this rank's samples did not reach may have a gradient on another rank or in another step.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.ranks.world > 1:
                torch.distributed.all_reduce(parameter.grad)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the training state that this rank writes. Empty if another rank writes all of them."""
        if not self.ranks.main:
            return {}
        state: dict[str, Tensor] = {}
        for name, parameter in self.named.items():
            state[f"weight/{name}"] = parameter.detach()
            for key, value in self.adamw.state.get(parameter, {}).items():
                state[f"{key}/{name}"] = value
        return state

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the result of ``tensors``. Raises ValueError if it belongs to another model."""
        if {key.split("/", 1)[1] for key in tensors} != set(self.named):
            raise ValueError("it trains other weights")
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(tensors[f"weight/{name}"])
                moments = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
                if moments:
                    device = parameter.device
                    self.adamw.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in moments.items()}
