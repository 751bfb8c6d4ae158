"""Facts about a checkpoint that need no weights: its vocabulary, image token and longest prompt."""

import json
from pathlib import Path

from bench.errors import ConfigurationError


def vocabulary(checkpoint: Path) -> tuple[list[int], list[int]]:
    """The token ids that end a completion, and the ids that must never be sampled."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from vold.models.language_model import banned_ids, stop_ids

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    rows = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).get_text_config().vocab_size
    listed = (checkpoint / "generation_config.json").exists()
    generation = GenerationConfig.from_pretrained(checkpoint) if listed else GenerationConfig()
    return list(stop_ids(tokenizer, generation)), list(banned_ids(tokenizer, rows))


def image_facts(checkpoint: Path) -> tuple[int | None, int]:
    """The token id that marks image positions, and the patch size times the merge size."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    vision = config.get("vision_config", {})
    return config.get("image_token_id"), vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2)


def positions(checkpoint: Path) -> int:
    """How many positions the model was built for, prompt and completion together; 0 if its config does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).get_text_config()
    return getattr(config, "max_position_embeddings", 0)


def check_room(prompt: int, new: int, max_length: int | None, built_for: int) -> None:
    """Raise ConfigurationError if only ``execution.vllm.max_length`` is too short for a prompt.

    prompt, new: numbers of tokens. built_for: positions of the model. A prompt that is too long for the model itself is
    an error of that prompt alone, and is not raised here.
    """
    needed = prompt + new
    if max_length is not None and max_length < needed <= built_for:
        raise ConfigurationError(
            f"a prompt of {prompt} tokens and {new} new tokens need {needed} of the model's {built_for} positions, but "
            f"execution.vllm.max_length is {max_length}. Raise it, or lower max_tokens"
        )
