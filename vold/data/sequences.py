"""Prompts with completions: micro-batches by length, and the positions that predict the completion."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vold.models.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One prompt and its completion, as ids."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def micro_batches(sequences: Sequence[TokenSequence], budget: int) -> Iterator[list[int]]:
    """Indices of ``sequences`` in batches of similar length whose padded size is at most ``budget`` tokens.

    A single sequence over the budget is a batch of its own. Sequences without completion have nothing to learn
    from and are left out.
    """
    order = sorted(range(len(sequences)), key=lambda index: (-len(sequences[index]), index))
    batch: list[int] = []
    for index in (index for index in order if sequences[index].completion_ids):
        if batch and (len(batch) + 1) * len(sequences[batch[0]]) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def completion_hidden(model: LanguageModel, sequences: Sequence[TokenSequence]) -> Tensor:
    """Hidden states [T, H] of the positions that predict the completions' tokens, laid end to end."""
    # The last completion token predicts nothing that is wanted, so it is not run.
    width = max(len(sequence) for sequence in sequences) - 1
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    wanted: list[Tensor] = []
    for row, sequence in enumerate(sequences):
        tokens = (sequence.prompt_ids + sequence.completion_ids)[:-1]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        start = row * width + len(sequence.prompt_ids) - 1
        wanted.append(torch.arange(start, start + len(sequence.completion_ids)))
    hidden = model.hidden_states(ids.to(model.device))
    return hidden.flatten(0, 1)[torch.cat(wanted).to(model.device)]


def completion_targets(sequences: Sequence[TokenSequence], device: torch.device) -> Tensor:
    """The completions' tokens [T], laid end to end."""
    return torch.tensor([token for sequence in sequences for token in sequence.completion_ids], device=device)


def token_index(lengths: Sequence[int], rows: Sequence[int]) -> Tensor:
    """Where the tokens of ``rows`` lie in the array of all completions of ``lengths``, laid end to end."""
    ends = torch.tensor(list(lengths)).cumsum(0).tolist()
    return torch.cat([torch.arange(ends[row] - lengths[row], ends[row]) for row in rows])
