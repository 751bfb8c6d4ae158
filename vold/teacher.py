"""The frozen teacher reads the student's rollouts: its own chat template, the student's completion ids.

What it gives are final hidden states, one per completion token; its head is applied chunk by chunk where the
log-probabilities or the exact KL are computed (``vold.objectives.fused``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vold.models import LanguageModel
from vold.models.packing import TokenSequence, completion_hidden, micro_batches, token_index


class Teacher:
    """``budget`` bounds the tokens of one forward pass, a shared prompt counted once."""

    def __init__(self, model: LanguageModel, budget: int) -> None:
        self.model = model
        self.budget = budget
        self._prompts: dict[str, tuple[int, ...]] = {}

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """The prompt in the teacher's own chat template."""
        if text not in self._prompts:
            self._prompts[text] = self.model.encode_text(text)
        return self._prompts[text]

    @torch.no_grad()
    def score(self, texts: Sequence[str | None], completions: Sequence[tuple[int, ...]]) -> Tensor:
        """Hidden states [T, H] that predict each completion token, in the order of the completions.

        A completion whose text is None is not read: its states are 0 and say nothing.
        """
        sequences = [
            TokenSequence((), ()) if text is None else TokenSequence(self.prompt_ids(text), ids)
            for text, ids in zip(texts, completions, strict=True)
        ]
        lengths = [len(ids) for ids in completions]
        states = torch.zeros(
            sum(lengths), self.model.head.shape[1], dtype=self.model.head.dtype, device=self.model.device
        )
        for rows in micro_batches(sequences, self.budget):
            hidden = completion_hidden(self.model, [sequences[row] for row in rows])
            states[token_index(lengths, rows)] = hidden.to(states.dtype)
        return states
