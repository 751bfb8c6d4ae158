"""The extension of a vLLM worker: loads weights by name, reads them back and bans token ids.

vLLM mixes this class into its own worker (``worker_extension_cls``) and calls its methods by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vold.rollout.proof import fingerprint


class WorkerExtension:
    """Methods of the worker that holds the model. Their names begin with ``vold_`` to differ from all names of vLLM."""

    if TYPE_CHECKING:
        model_runner: Any

    @torch.no_grad()
    def vold_load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors into the model, by their names in a Hugging Face checkpoint."""
        self.model_runner.get_model().load_weights(iter(tensors.items()))

    @torch.no_grad()
    def vold_read(self, shapes: Mapping[str, Sequence[int]]) -> tuple[dict[str, int | None], list[str]]:
        """The fingerprints of the tensors in ``shapes`` (checkpoint names), and the layers that ignore their weight."""
        model = self.model_runner.get_model()
        tensors = {name: _tensor(model, name, shapes) for name in shapes}
        prints = {name: None if tensor is None else fingerprint(tensor) for name, tensor in tensors.items()}
        return prints, [name for name, module in model.named_modules() if _is_deaf(module)]

    def vold_ban(self, ids: Sequence[int]) -> None:
        """Give ``ids`` a probability of 0 in everything that the model computes."""
        model = self.model_runner.get_model()
        compute = type(model).compute_logits
        banned = torch.tensor(list(ids), dtype=torch.long, device=next(model.parameters()).device)

        def compute_logits(*args: object, **kwargs: object) -> Tensor | None:
            logits = compute(model, *args, **kwargs)
            return logits if logits is None else logits.index_fill_(-1, banned, -torch.inf)

        model.compute_logits = compute_logits


def _tensor(model: torch.nn.Module, name: str, shapes: Mapping[str, Sequence[int]]) -> Tensor | None:
    """The model's own tensor for a checkpoint's name: cut out of a fused tensor, and without padding rows."""
    parameters = _parameters(model)
    for mapped, size, start in _locations(model, name, shapes):
        if mapped in parameters:
            tensor = parameters[mapped]
            return tensor[start : start + size] if tensor.ndim else tensor
    return None


def _parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _locations(
    model: torch.nn.Module, name: str, shapes: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, int, int]]:
    """Where a tensor may be, as (name in vLLM, rows, first row): in a fused layer, then under its own mapped name."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    mapped = (mapper.apply_list([name]) if mapper else [name])[0]
    size = shapes[name][0] if shapes[name] else 1
    last, leaf = ["", *name.split(".")][-2:]
    prefix = mapped.rpartition(".")[0].rpartition(".")[0]
    for fused, parts in getattr(model, "packed_modules_mapping", {}).items():
        if last in parts:
            siblings = [name.replace(f".{last}.{leaf}", f".{part}.{leaf}") for part in parts]
            start = sum(shapes[sibling][0] for sibling in siblings[: parts.index(last)])
            yield f"{prefix}.{fused}.{leaf}", size, start
    yield mapped, size, 0


def _is_deaf(module: torch.nn.Module) -> bool:
    """Whether a linear layer computes with a copy: its output stays the same when its weight changes sign.

    Changing the sign is exact, so a second change restores every bit.
    """
    method: Any
    method, weight = getattr(module, "quant_method", None), getattr(module, "weight", None)
    if not hasattr(method, "apply") or weight is None or weight.ndim != 2:
        return False
    inputs = torch.linspace(-1, 1, 2 * weight.shape[1], dtype=weight.dtype, device=weight.device).view(2, -1)
    before = method.apply(module, inputs).clone()
    weight.neg_()
    after = method.apply(module, inputs).clone()
    weight.neg_()
    return not bool((after + before).abs().max() <= 1e-3 * before.abs().max())
