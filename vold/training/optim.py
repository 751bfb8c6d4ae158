"""AdamW over what is trainable, the learning-rate schedule, and the guard against non-finite steps."""

import math

import torch

from vold.config import OptimizerConfig


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is no finite number."""


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """The rate of update ``step`` (from 0) of ``total``: linear warm-up, then constant, linear or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[config.schedule]
    return config.learning_rate * factor


class Optimizer:
    """One clipped AdamW update at a time; weight decay spares vectors (norms and biases)."""

    def __init__(self, model: torch.nn.Module, config: OptimizerConfig, max_nonfinite: int) -> None:
        self.config = config
        self.max_nonfinite = max_nonfinite
        self.nonfinite_in_a_row = 0
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.named:
            raise ValueError("every part of the model is frozen: nothing to train")
        matrices = [p for p in self.named.values() if p.ndim > 1]
        vectors = [p for p in self.named.values() if p.ndim <= 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    def zero_grad(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def step(self, loss: float, rate: float) -> tuple[float, bool]:
        """Update once from the accumulated gradients; returns the gradient norm before clipping and "skipped".

        A non-finite loss or gradient leaves the weights as they are; ``max_nonfinite`` of them in a row raise
        NonFiniteError.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.named.values(), self.config.max_grad_norm))
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self.nonfinite_in_a_row += 1
            if self.nonfinite_in_a_row >= self.max_nonfinite:
                raise NonFiniteError(
                    f"{self.nonfinite_in_a_row} steps in a row had a loss of {loss} or a gradient norm of {norm}; "
                    "lower the learning rate or look at the last rows of metrics.jsonl"
                )
            return norm, True
        self.nonfinite_in_a_row = 0
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        return norm, False
