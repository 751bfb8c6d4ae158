"""Named, versioned prompt templates; a problem becomes text and images in the order a model reads them."""

from bench.prompts.library import TEMPLATES, find_template
from bench.prompts.rendering import PromptPart, prompt_hash, render

__all__ = ["TEMPLATES", "PromptPart", "find_template", "prompt_hash", "render"]
