"""Gradient checkpointing: layers that keep their input alone and are computed again for the gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer


def enable_recomputation(model: Any) -> None:
    """Let the layers of a transformers model be computed again in the backward pass of ``recomputed_layers``."""
    # Nothing in these models is random, so no state of random numbers has to travel.
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})


@contextmanager
def recomputed_layers(model: Any) -> Iterator[None]:
    """Where gradients are wanted and recomputation is enabled, run layers so within; else do nothing.

    transformers recomputes the layers that are in training mode. Only the layers themselves are switched: what lies
    within them stays in evaluation mode, and decoding with a cache, outside, is left alone.
    """
    layers = []
    if torch.is_grad_enabled() and model.is_gradient_checkpointing:
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
