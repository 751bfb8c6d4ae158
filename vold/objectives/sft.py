"""Next-token negative log-likelihood."""

from torch import Tensor


def nll(logprobs: Tensor) -> Tensor:
    """Per-token loss [T] from the student's log-probabilities [T] of the trace's tokens."""
    return -logprobs
