"""Next-token negative log-likelihood."""

from torch import Tensor

from vold.objectives.fused import TokenLoss


def nll(weights: Tensor) -> TokenLoss:
    """The NLL of a trace's tokens, each with its weight [T]."""
    return lambda stats, span: -stats.logprobs * weights[span]
