"""The frozen teacher, which reads the student's rollouts: the prompt in its own chat template, then the completion ids.

It returns final hidden states, one per completion token. Its output head is applied chunk by chunk where the
log-probabilities or the exact KL are computed (``vold.objectives.fused``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vold.models import LanguageModel
from vold.models.packing import TokenSequence, completion_hidden, micro_batches, token_index


class Teacher:
    """The teacher. budget: most tokens of one forward pass, in which a prompt that sequences share counts once."""

    def __init__(self, model: LanguageModel, budget: int) -> None:
        self.model = model
        self.budget = budget
        self._prompts: dict[str, tuple[int, ...]] = {}

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """The token ids of a prompt in the teacher's own chat template."""
        if text not in self._prompts:
            self._prompts[text] = self.model.encode_text(text)
        return self._prompts[text]

    @torch.no_grad()
    def score(self, texts: Sequence[str | None], completions: Sequence[tuple[int, ...]]) -> Tensor:
        """The hidden states [T, H] that predict the T tokens of all completions, in the order of the completions.

        texts: the prompt of each completion. A completion whose text is None is not read, and its states are 0.
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
