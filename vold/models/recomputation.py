"""Gradient checkpointing: layers keep only their input and are computed again for the gradient."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def enable_recomputation(model: PreTrainedModel) -> None:
    """Enable recomputation in a transformers model. It takes effect inside ``recomputed_layers``."""
    # Nothing in these models is random, so the state of random numbers need not be saved.
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})


@contextmanager
def recomputed_layers(model: PreTrainedModel) -> Iterator[None]:
    """Inside this context, layers are recomputed if recomputation is enabled and gradients are on.

    transformers recomputes the layers that are in training mode. Only the layers themselves change mode. The modules
    inside them stay in evaluation mode, and decoding with a cache, outside of the context, is not affected.
    """
    layers: list[torch.nn.Module] = []
    if torch.is_grad_enabled() and model.is_gradient_checkpointing:
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
