"""Builds the rollout engine that a configuration names."""

import torch

from vold.config import RolloutEngineName
from vold.execution import Execution
from vold.models.language_model import LanguageModel
from vold.rollout.base import RolloutEngine
from vold.rollout.builtin import BuiltinEngine
from vold.rollout.restart import RestartingEngine


def build_engine(model: LanguageModel, name: RolloutEngineName, execution: Execution) -> RolloutEngine:
    """The engine that samples from ``model``. vLLM starts at its first use, from the directory of ``model``.

    Raises ValueError if vLLM would have to run in the process of one of several ranks.
    """
    if name == "builtin":
        return BuiltinEngine(model, execution.rollout_batch)
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if ranks > 1 and not execution.vllm.server:
        raise ValueError(
            f"vLLM cannot run in the process of one of {ranks} ranks, because it would join their process group; "
            "set execution.vllm.server: true"
        )

    def build() -> RolloutEngine:
        from vold.rollout.vllm import VLLMEngine
        from vold.rollout.vllm_remote import ServerEngine

        engine = ServerEngine if execution.vllm.server else VLLMEngine
        return engine(
            model.path, execution.vllm, device=model.device, dtype=execution.dtype, max_batch=execution.rollout_batch
        )

    return RestartingEngine(build, execution.vllm.restarts)
