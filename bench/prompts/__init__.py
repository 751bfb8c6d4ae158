"""Named, versioned prompt templates; a problem becomes text and images in the order a model reads them."""

from bench.prompts.library import TEMPLATES, template
from bench.prompts.rendering import PromptPart, prompt_hash, render

__all__ = ["TEMPLATES", "PromptPart", "prompt_hash", "render", "template"]
