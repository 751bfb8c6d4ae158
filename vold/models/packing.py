"""Packs prompts with completions into micro-batches, and locates the positions that predict the completions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vold.images import Pixels
from vold.models.language_model import LanguageModel
from vold.models.layout import Layout, Segment


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One prompt and its completion, as ids. ``pixels`` are the prompt's images.

    Sequences share their prompt in a micro-batch if it has the same ids and the same ``pixels`` object.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences end to end without padding. A shared prompt is there only once.

    ids: [T].
    positions: rotary positions [axes, T], counted within each sequence; three axes if there are images.
    predicting: positions [N] in the batch that predict the completions' N tokens, sequence by sequence.
    """

    ids: Tensor
    positions: Tensor
    layout: Layout
    pixels: tuple[Pixels, ...]
    predicting: Tensor


def micro_batches(
    sequences: Sequence[TokenSequence], budget: int, among: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Indices of ``sequences`` in batches of at most ``budget`` tokens, where a shared prompt counts once.

    Sequences of one prompt stay together, and prompts with the longest sequences come first. A single sequence over
    the budget is a batch of its own. Sequences with an empty completion are left out.

    among: indices of the sequences to batch; None: all.
    """
    batch: list[int] = []
    size = 0
    selected = set(range(len(sequences)) if among is None else among)
    groups = [
        [index for index in group if index in selected and sequences[index].completion_ids]
        for group in _by_prompt(sequences)
    ]
    for group in sorted(filter(None, groups), key=lambda group: (-max(len(sequences[i]) for i in group), group[0])):
        shared = 0
        for index in group:
            if batch and size + len(sequences[index]) - shared > budget:
                yield batch
                batch, size, shared = [], 0, 0
            batch.append(index)
            size += len(sequences[index]) - shared
            shared = len(sequences[index].prompt_ids)
    if batch:
        yield batch


def pack(model: LanguageModel, sequences: Sequence[TokenSequence]) -> Packed:
    """Pack ``sequences`` for ``model``. Each must have a completion."""
    packing = _Packing(model, len(sequences))
    for group in _by_prompt(sequences):
        packing.add(sequences, group)
    return packing.packed()


def completion_hidden(model: LanguageModel, sequences: Sequence[TokenSequence]) -> Tensor:
    """Hidden states [N, H] of the positions that predict the completions' N tokens, sequence by sequence."""
    packed = pack(model, sequences)
    return model.hidden_states(packed.ids, packed.positions, packed.layout, packed.pixels)[packed.predicting]


def completion_targets(sequences: Sequence[TokenSequence], device: torch.device) -> Tensor:
    """The completions' tokens [N], sequence by sequence."""
    return torch.tensor([token for sequence in sequences for token in sequence.completion_ids], device=device)


def token_index(lengths: Sequence[int], rows: Sequence[int]) -> Tensor:
    """Positions of the tokens of completions ``rows`` if all completions, with ``lengths``, are end to end."""
    ends = torch.tensor(list(lengths)).cumsum(0).tolist()
    return torch.cat([torch.arange(ends[row] - lengths[row], ends[row]) for row in rows])


def _by_prompt(sequences: Sequence[TokenSequence]) -> list[list[int]]:
    groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for index, sequence in enumerate(sequences):
        groups.setdefault((sequence.prompt_ids, id(sequence.pixels)), []).append(index)
    return list(groups.values())


class _Packing:
    """Builds a packed batch prompt by prompt."""

    def __init__(self, model: LanguageModel, count: int) -> None:
        self.model = model
        self.ids: list[int] = []
        self.positions: list[Tensor] = []
        self.segments: list[Segment] = []
        self.pixels: list[Pixels] = []
        self.predicting: list[Tensor] = [torch.empty(0)] * count

    def add(self, sequences: Sequence[TokenSequence], group: Sequence[int]) -> None:
        """Add the sequences of one prompt. A single one is one segment; several follow the prompt that they share."""
        first = sequences[group[0]]
        prompt = self.model.positions(first.prompt_ids, first.pixels).cpu()
        after = int(prompt.max()) + 1
        if first.pixels is not None:
            self.pixels.append(first.pixels)
        if len(group) == 1:
            # The last token of a completion does not predict a token of it, so it is not run.
            rest = first.completion_ids[:-1]
            positions = torch.cat([prompt, self._following(after, len(rest), len(prompt))], dim=1)
            segment = self._append(first.prompt_ids + rest, positions)
            start = segment.start + len(first.prompt_ids) - 1
            self.predicting[group[0]] = torch.arange(start, start + len(first.completion_ids))
            return
        shared = self._append(first.prompt_ids, prompt)
        last = torch.tensor([shared.start + shared.length - 1])
        for index in group:
            rest = sequences[index].completion_ids[:-1]
            self.predicting[index] = last
            if rest:
                own = self._append(rest, self._following(after, len(rest), len(prompt)), shared)
                self.predicting[index] = torch.cat([last, torch.arange(own.start, own.start + own.length)])

    def packed(self) -> Packed:
        device = self.model.device
        axes = max(len(positions) for positions in self.positions)
        return Packed(
            ids=torch.tensor(self.ids, device=device),
            positions=torch.cat([positions.expand(axes, -1) for positions in self.positions], dim=1).to(device),
            layout=Layout(self.segments, device),
            pixels=tuple(self.pixels),
            predicting=torch.cat(self.predicting).to(device),
        )

    def _append(self, ids: Sequence[int], positions: Tensor, prefix: Segment | None = None) -> Segment:
        segment = Segment(len(self.ids), len(ids), prefix)
        self.ids.extend(ids)
        self.positions.append(positions)
        self.segments.append(segment)
        return segment

    @staticmethod
    def _following(start: int, length: int, axes: int) -> Tensor:
        return torch.arange(start, start + length).expand(axes, -1)
