"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on the student's language model, by peft."""

import re

import torch
from torch import Tensor

from vold.config import LoraConfig
from vold.models.language_model import LanguageModel
from vold.models.student import Student
from vold.seeding import derive

_ADAPTER = "default"


def add_adapters(student: Student, config: LoraConfig, seed: int) -> None:
    """Add adapters to the layers ``config.targets`` of the language model and freeze everything else.

    New adapters do not change the model's output. Raises ValueError if peft is missing or a target does not name a
    linear layer.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("lora needs peft; run `pip install 'vold-bench[lora]'`, or leave lora out") from error
    names = {name.rsplit(".", 1)[-1] for name, m in student.trunk.named_modules() if isinstance(m, torch.nn.Linear)}
    if unknown := sorted(set(config.targets) - names):
        raise ValueError(f"lora.targets: no linear layer {unknown[0]!r}; choose from {', '.join(sorted(names))}")
    prefix = next(name for name, module in student.model.named_modules() if module is student.trunk)
    targets = "|".join(map(re.escape, config.targets))
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft only divides it, so a float works
        target_modules=rf"{re.escape(prefix)}\..*\.({targets})",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora"))
        peft.inject_adapter_in_model(settings, student.model, adapter_name=_ADAPTER)
    student.model.eval()


@torch.no_grad()
def merged_weights(model: LanguageModel) -> dict[str, Tensor]:
    """The weights under their names in a checkpoint, with adapters merged into copies of the adapted layers."""
    modules = dict(model.model.named_modules())
    merged: dict[str, Tensor] = {}
    for name, tensor in model.model.state_dict().items():
        owner, _, leaf = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        if owner and leaf == "weight":
            tensor = tensor + modules[owner].get_delta_weight(_ADAPTER)
        merged[name.replace(".base_layer.", ".")] = tensor
    return merged
