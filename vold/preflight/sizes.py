"""Counts the parameters and the bytes per token of a model from its config alone.

The model is built on torch's meta device, where tensors have shapes but no memory. The counts are therefore those of
the classes that will be trained, for any architecture.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.config import FreezablePart, LoraConfig
from vold.models.checkpoint import STUDENT_TYPES, Checkpoint
from vold.models.language_model import LanguageModel
from vold.models.parts import freeze as freeze_parts

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of parameters of a model, and the widths of its language model.

    total, trained: all parameters, and those that are trained.
    rows: rows of the output embedding.
    queries, key_values: number of heads times their size.
    head_norms: whether queries and keys are normalised (Qwen3).
    """

    total: int
    trained: int
    rows: int
    layers: int
    hidden: int
    intermediate: int
    queries: int
    key_values: int
    head_norms: bool

    def cache_bytes(self, element: int) -> int:
        """KV cache of one token: a key and a value per layer, with ``element`` bytes per number."""
        return 2 * self.layers * self.key_values * element

    def saved_bytes(self, element: int) -> int:
        """Bytes that one layer keeps per token for its backward pass, with ``element`` bytes per number (2: autocast).

        Counted as in Korthikanti et al. 2022 (arXiv 2205.05198, section 4), for RMSNorm, a gated MLP and attention
        that keeps no scores. Norms keep their input and the normalised input in fp32. Their output is kept once in
        fp32, or under autocast as a separate cast for each of the five projections that read it.
        """
        norms = 2 * 2 * 4 * self.hidden + (2 * 4 if element == 4 else 5 * 2) * self.hidden
        attention = element * 2 * (self.queries + self.key_values)
        head_norms = (4 + element) * (self.queries + self.key_values) if self.head_norms else 0
        return norms + attention + head_norms + 4 * element * self.intermediate


def model_sizes(
    checkpoint: Checkpoint, freeze: tuple[FreezablePart, ...] | None = None, lora: LoraConfig | None = None
) -> Sizes:
    """Sizes of a model.

    freeze: the parts that are not trained; None if nothing is trained (a teacher).
    lora: if given, only adapters are trained.

    Raises whatever transformers raises if it cannot build a model from the config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    loader = AutoModelForImageTextToText if checkpoint.config.model_type in STUDENT_TYPES else AutoModelForCausalLM
    with torch.device("meta"):
        model = loader.from_config(checkpoint.config, trust_remote_code=False)
    text, size = checkpoint.text, checkpoint.head_size
    adapters = 0 if lora is None else _adapters(model, lora)
    return Sizes(
        total=sum(parameter.numel() for parameter in model.parameters()) + adapters,
        trained=adapters if lora is not None else 0 if freeze is None else _trained(model, freeze),
        rows=text.vocab_size,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        queries=text.num_attention_heads * size,
        key_values=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * size,
        head_norms=any(name.endswith(".q_norm") for name, _ in model.named_modules()),
    )


def _trained(model: "Module", freeze: tuple[FreezablePart, ...]) -> int:
    freeze_parts(LanguageModel(Path(), model, None), freeze)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _adapters(model: Any, lora: LoraConfig) -> int:
    """Parameters of the two low-rank matrices of each adapted layer (Hu et al. 2021, arXiv 2106.09685)."""
    linear = ((name, m) for name, m in model.get_decoder().named_modules() if hasattr(m, "in_features"))
    adapted = (m for name, m in linear if name.rpartition(".")[2] in lora.targets)
    return sum(lora.rank * (m.in_features + m.out_features) for m in adapted)
