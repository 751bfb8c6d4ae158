"""The builtin engine: batched decoding with a KV cache on the trainer's own weights.

It shares the live model with the trainer, so there is nothing to synchronise. A prompt is prefilled once, and its cache
is copied to all samples of its group. Finished rows leave the batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from vold.heartbeat import beat
from vold.models.language_model import LanguageModel
from vold.objectives.fused import BANNED
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.cache import GrowingLayer
from vold.rollout.decoder import Decoder, decoder_of
from vold.rollout.proof import SyncProof, Weights
from vold.rollout.sampling import Drawn, Uniforms, draw

PREFILL_AREA = 1 << 26
"""Largest prompts x length x length of one prefill, where the last length counts as at least 1,024.

It bounds the mask to 64 MiB and the tokens to 65,536.
"""
Slot = tuple[int, int]
"""(index of the request, number of the sample within it)"""


class BuiltinEngine:
    """Implements ``RolloutEngine``. max_batch: most sequences that are decoded together."""

    live = True

    def __init__(self, model: LanguageModel, max_batch: int = 256) -> None:
        self.model = model
        self.max_batch = max_batch

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        """One completion per seed of each request. Raises ValueError for an empty prompt."""
        completions = dict(self.stream(requests, sampling))
        return [
            [completions[index, sample] for sample in range(len(request.seeds))]
            for index, request in enumerate(requests)
        ]

    @torch.inference_mode()
    def stream(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> Iterator[tuple[Slot, Completion]]:
        """The same completions with their slots, batch by batch."""
        if any(not request.prompt_ids for request in requests):
            raise ValueError("a rollout request without a prompt")
        if not requests:
            return
        longest = max(len(request.prompt_ids) for request in requests) + sampling.max_new_tokens
        decoder = decoder_of(self.model, longest)
        for slots in self._batches(requests):
            yield from zip(slots, self._decode(requests, slots, sampling, decoder), strict=True)

    def sync(self, weights: Weights) -> SyncProof:
        """Does nothing: the tensors are the trainer's own."""
        return SyncProof(0, 0.0)

    def sleep(self) -> None:
        """Does nothing: the engine holds no memory between batches."""

    def close(self) -> None:
        """Does nothing: the engine holds no resources."""

    def _batches(self, requests: Sequence[RolloutRequest]) -> Iterator[list[Slot]]:
        """Batches of slots with prompts of similar length, within the limits of one prefill. Groups stay together."""
        batch: list[Slot] = []
        prompts = 0
        for index in sorted(range(len(requests)), key=lambda index: (len(requests[index].prompt_ids), index)):
            length, prompts = len(requests[index].prompt_ids), prompts + 1
            if batch and prompts * length * max(length, 1024) > PREFILL_AREA:
                yield batch
                batch, prompts = [], 1
            for sample in range(len(requests[index].seeds)):
                if len(batch) == self.max_batch:
                    yield batch
                    batch, prompts = [], 1
                batch.append((index, sample))
        if batch:
            yield batch

    def _decode(
        self, requests: Sequence[RolloutRequest], slots: list[Slot], sampling: Sampling, decoder: Decoder
    ) -> list[Completion]:
        indices = list(dict.fromkeys(index for index, _ in slots))
        prompt_rows = {index: row for row, index in enumerate(indices)}
        owner = torch.tensor([prompt_rows[index] for index, _ in slots], device=self.model.device)
        prompts = [requests[index] for index in indices]
        prefill = _Prefill(self.model, prompts, sampling.max_new_tokens)
        uniforms = (
            Uniforms([requests[index].seeds[sample] for index, sample in slots]) if sampling.temperature else None
        )
        bias = self._bias(sampling.banned_ids)
        stops = torch.tensor(sampling.stop_ids, device=self.model.device)

        rows = torch.arange(len(slots), device=self.model.device)
        state = _State(prefill, owner, decoder)
        samples = _Samples(len(slots), sampling, rows.device)
        for step in range(sampling.max_new_tokens):
            numbers = uniforms.at(step, rows.cpu().numpy()) if uniforms else None
            drawn = draw(state.logits, numbers, sampling.temperature, bias, sampling.entropies)
            beat()
            samples.put(rows, step, drawn)
            ids, ended = drawn.ids, torch.isin(drawn.ids, stops)
            if ended.any():
                samples.stop(rows[ended], step)
                compaction = _Compaction(ended)
                rows, ids = compaction.apply(rows), compaction.apply(ids)
                state.compact(compaction)
            if len(rows) == 0 or step + 1 == sampling.max_new_tokens:
                break
            state.advance(ids)
        return samples.completions()

    def _bias(self, banned: Sequence[int]) -> Tensor | None:
        if not banned:
            return None
        bias = torch.zeros(self.model.head.shape[0], device=self.model.device)
        bias[list(banned)] = BANNED
        return bias


class _Samples:
    """The tokens sampled for the slots of a batch: arrays [slots, max_new_tokens]."""

    def __init__(self, slots: int, sampling: Sampling, device: torch.device) -> None:
        shape = (slots, sampling.max_new_tokens)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(shape, device=device)
        self.entropies = torch.zeros(shape, device=device) if sampling.entropies else None
        self.lengths = torch.full((slots,), sampling.max_new_tokens, device=device)
        self.stopped = torch.zeros(slots, dtype=torch.bool, device=device)

    def put(self, rows: Tensor, step: int, drawn: Drawn) -> None:
        self.tokens[rows, step], self.logprobs[rows, step] = drawn.ids, drawn.logprobs
        if self.entropies is not None and drawn.entropies is not None:
            self.entropies[rows, step] = drawn.entropies

    def stop(self, rows: Tensor, step: int) -> None:
        """Record that the token of ``step`` in these rows is a stop token."""
        self.lengths[rows], self.stopped[rows] = step + 1, True

    def completions(self) -> list[Completion]:
        lengths, stopped = self.lengths.tolist(), self.stopped.tolist()

        def rows(values: Tensor) -> list[tuple[Any, ...]]:
            return [tuple(row[:length]) for row, length in zip(values.tolist(), lengths, strict=True)]

        entropies = [None] * len(lengths) if self.entropies is None else rows(self.entropies)
        columns = zip(rows(self.tokens), rows(self.logprobs), stopped, entropies, strict=True)
        return [Completion(ids, values, "stop" if stop else "length", each) for ids, values, stop, each in columns]


class _Compaction:
    """Removes the rows that have ended (``ended``: [rows] bool). Only rows from the end of the batch move."""

    def __init__(self, ended: Tensor) -> None:
        self.count = len(ended) - int(ended.sum())
        self.holes = ended[: self.count].nonzero()[:, 0]
        self.movers = (~ended[self.count :]).nonzero()[:, 0] + self.count

    def apply(self, values: Tensor) -> Tensor:
        """The rows of ``values`` [rows, ...] that continue, in their new order. Overwrites ``values``."""
        values[self.holes] = values[self.movers]
        return values[: self.count]


class _Prefill:
    """The prompts of a batch, each run once, with left padding."""

    def __init__(self, model: LanguageModel, prompts: Sequence[RolloutRequest], room: int) -> None:
        self.model, self.room = model, room
        device, width = model.device, max(len(prompt.prompt_ids) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
        self.valid = torch.zeros(len(prompts), width, dtype=torch.bool, device=device)
        self.next_position = torch.zeros(len(prompts), dtype=torch.long, device=device)
        positions = torch.zeros(3, len(prompts), width, dtype=torch.long, device=device)
        for row, prompt in enumerate(prompts):
            start = width - len(prompt.prompt_ids)
            ids[row, start:] = torch.tensor(prompt.prompt_ids, device=device)
            self.valid[row, start:] = True
            positions[:, row, start:] = model.positions(prompt.prompt_ids, prompt.pixels)
            self.next_position[row] = positions[:, row].max() + 1
        # A text model has one axis of positions. Without images all three axes are equal.
        pixels = [prompt.pixels for prompt in prompts if prompt.pixels is not None]
        self.cache = Cache(layer_class_to_replicate=GrowingLayer)
        hidden = model.trunk(
            inputs_embeds=model.embed(ids, pixels),
            attention_mask={"full_attention": self._mask()},
            position_ids=positions if pixels else positions[0],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.logits = torch.nn.functional.linear(hidden[:, -1], model.head)

    def _mask(self) -> Tensor | None:
        """The mask [rows, 1, width, width]: causal and without padding. None if there is no padding.

        A padding position sees itself, because its softmax would be NaN otherwise.
        """
        if bool(self.valid.all()):
            return None
        width = self.valid.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.valid.device).tril()
        own = torch.eye(width, dtype=torch.bool, device=self.valid.device)
        return ((causal & self.valid[:, None, :]) | own)[:, None]


class _State:
    """The rows that are still decoding: their cache, mask, next positions and next-token logits.

    owner: [rows], the index of each row's prompt.
    """

    def __init__(self, prefill: _Prefill, owner: Tensor, decoder: Decoder) -> None:
        self.decoder, self.head, self.cache = decoder, prefill.model.head, prefill.cache
        self.cache.batch_select_indices(owner)
        self.logits = prefill.logits[owner]
        self.position = prefill.next_position[owner]
        self.width = prefill.valid.shape[1]
        self.mask = None
        if not bool(prefill.valid.all()):
            # Additive, because a boolean mask would be converted in every layer of every step.
            padding = torch.zeros(prefill.valid.shape, dtype=prefill.logits.dtype, device=owner.device)
            padding = padding.masked_fill(~prefill.valid, -torch.inf)
            self.mask = torch.nn.functional.pad(padding, (0, prefill.room))[owner][:, None, None]

    def compact(self, compaction: _Compaction) -> None:
        for layer in self.cache.layers:
            assert isinstance(layer, GrowingLayer)
            layer.compact(compaction.holes, compaction.movers, compaction.count)
        self.position = compaction.apply(self.position)
        if self.mask is not None:
            self.mask = compaction.apply(self.mask)

    def advance(self, ids: Tensor) -> None:
        """Append the token ids [rows] and compute the logits of the next position."""
        self.width += 1
        mask = None if self.mask is None else self.mask[..., : self.width]
        hidden = self.decoder(ids, self.position, self.cache, mask)
        self.logits = torch.nn.functional.linear(hidden, self.head)
        self.position = self.position + 1
