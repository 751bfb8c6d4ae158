"""Proof that a rollout engine computes with the trainer's present weights.

Three things are read back from the engine after every synchronisation, because each alone misses some faults:

1. Fingerprints of all its tensors. They are exact, but a kernel may compute with a packed copy made earlier.
2. Whether its linear layers follow their own tensors.
3. The log-probabilities of two fixed probes, a text and an image. They test the whole computation, but a small update
   changes them by less than rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from vold.images import Pixels
from vold.models.encoder import EncodedPrompt
from vold.models.language_model import LanguageModel
from vold.models.lora import merged_weights
from vold.models.student import Student

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.25}
"""Largest accepted difference of a probe token's log-probability, by the engine's precision.

In bfloat16 and for log-probabilities below -1, the tolerance is multiplied by their absolute value: both sides round
logits of about 20 to 0.06, at different steps, and relative differences up to 0.09 were observed.
"""

_PROBE = "Add 17 and 26, then halve it: (17 + 26) / 2 = 21.5, not 22."
_TEXT = [{"type": "text", "text": _PROBE}]
_CHUNK = 1 << 22
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class SyncError(RuntimeError):
    """The engine does not compute with the weights that it was given. Its rollouts would be those of another policy."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A fixed prompt that both sides score. logprobs: of every token that can be sampled, except for the first."""

    prompt_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    pixels: Pixels | None = None


@dataclass(frozen=True)
class Weights:
    """The trainer's side of a synchronisation.

    tensors: by their names in a Hugging Face checkpoint. An output head that is tied to the embeddings is listed under
    both names. probes: scored under the policy, which excludes ``banned_ids``, at temperature 1.
    """

    tensors: Mapping[str, Tensor]
    probes: tuple[Probe, ...]
    banned_ids: tuple[int, ...] = ()

    def fingerprints(self, dtype: torch.dtype) -> dict[str, int]:
        """The fingerprint of each tensor as an engine of ``dtype`` holds it."""
        return {name: fingerprint(tensor.to(dtype)) for name, tensor in self.tensors.items()}


@dataclass(frozen=True, slots=True)
class Readback:
    """The engine's side of a synchronisation: what it holds and what it computes.

    fingerprints: of its tensors; None for one that it does not have. deaf: names of the layers whose output does not
    follow their own weight. probes: log-probabilities of each probe. cached: whether it still has keys, values or image
    embeddings of the old weights.
    """

    fingerprints: Mapping[str, int | None]
    deaf: Sequence[str]
    probes: Sequence[Sequence[float]]
    cached: bool = False


@dataclass(frozen=True, slots=True)
class SyncProof:
    """A proven synchronisation. tensors: number of equal tensors. probe_error: largest error of a log-probability."""

    tensors: int
    probe_error: float


def weights_of(model: LanguageModel) -> Weights:
    """The live tensors of ``model`` (copies if adapters are merged in), and the probes scored by it."""
    prompts = [EncodedPrompt(model.encode_text(_PROBE))]
    if isinstance(model, Student):
        image = Image.radial_gradient("L").resize((112, 84)).convert("RGB")
        prompts.append(model.encode([{"role": "user", "content": [{"type": "image"}, *_TEXT]}], [image]))
    tensors = {name: tensor.detach() for name, tensor in merged_weights(model).items()}
    return Weights(tensors, tuple(_probe(model, prompt) for prompt in prompts), model.banned_ids)


@torch.no_grad()
def _probe(model: LanguageModel, prompt: EncodedPrompt) -> Probe:
    ids = torch.tensor([prompt.prompt_ids], device=model.device)
    images = {}
    if prompt.pixels is not None:
        assert isinstance(model, Student)
        images = {
            "pixel_values": prompt.pixels.values.to(model.device),
            "image_grid_thw": prompt.pixels.grid_thw.to(model.device),
            "mm_token_type_ids": (ids == model.image_token_id).int(),
        }
    logits = model.model(input_ids=ids, **images).logits[0, :-1].float()
    logits[:, list(model.banned_ids)] = -torch.inf
    logprobs = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].tolist()
    return Probe(prompt.prompt_ids, drawable(prompt.prompt_ids, logprobs, model.banned_ids), prompt.pixels)


def drawable(ids: Sequence[int], logprobs: Sequence[float], banned: Sequence[int]) -> tuple[float, ...]:
    """The log-probabilities [len(ids) - 1] of ids[1:] without those of banned ids, which are -inf."""
    return tuple(value for token, value in zip(ids[1:], logprobs, strict=True) if token not in banned)


def fingerprint(tensor: Tensor) -> int:
    """A 64-bit checksum of a tensor's bits and their order. It is the same on every device.

    The bits of element i, as an integer, are multiplied by an odd number that depends on i and summed modulo 2^64. So
    any change of a single element changes the sum, and so does swapping two elements.
    """
    bits = tensor.detach().contiguous().view(-1).view(_BITS[tensor.element_size()])
    total = 0
    for start in range(0, bits.numel(), _CHUNK):
        part = bits[start : start + _CHUNK].to(torch.int64)
        index = torch.arange(start, start + len(part), device=part.device)
        total += int((part * (index * 0x5851F42D4C957F2D | 1)).sum())
    return total % (1 << 64)


def prove(weights: Weights, readback: Readback, dtype: torch.dtype, tolerance: float | None = None) -> SyncProof:
    """Compare both sides. Raises SyncError naming the first tensor, layer or probe token that differs."""
    expected = weights.fingerprints(dtype)
    stale = [name for name, value in expected.items() if readback.fingerprints.get(name) != value]
    if stale:
        missing = [name for name in stale if readback.fingerprints.get(name) is None]
        fault = f"the rollout engine has no tensor {missing[0]}" if missing else f"{stale[0]} is not the trainer's"
        raise SyncError(
            f"after the weights were copied, {fault} ({len(stale)} of {len(expected)} tensors differ); "
            "its rollouts were not used"
        )
    if readback.deaf:
        raise SyncError(
            f"{readback.deaf[0]} of the rollout engine does not compute with its own weights ({len(readback.deaf)} "
            "layers; a kernel keeps a packed copy); use another precision or backend"
        )
    if readback.cached:
        raise SyncError("the rollout engine still has cached keys and values of the old weights")
    allowed = TOLERANCE[dtype] if tolerance is None else tolerance
    return SyncProof(len(expected), _probe_error(weights, readback, allowed, in_proportion=dtype != torch.float32))


def _probe_error(weights: Weights, readback: Readback, allowed: float, in_proportion: bool) -> float:
    """The largest difference of a probe token. Raises SyncError if one is above ``allowed`` or NaN."""
    worst = 0.0
    for probe, values in zip(weights.probes, readback.probes, strict=True):
        for number, (ours, theirs) in enumerate(zip(probe.logprobs, values, strict=True), 1):
            error = abs(ours - theirs)
            if not error <= allowed * (max(1.0, abs(ours)) if in_proportion else 1.0):
                raise SyncError(
                    f"token {number} of the {'text' if probe.pixels is None else 'image'} probe has log-probability "
                    f"{theirs:.6f} in the rollout engine and {ours:.6f} in the trainer (tolerance {allowed:.0e})"
                )
            worst = max(worst, error)
    return worst
