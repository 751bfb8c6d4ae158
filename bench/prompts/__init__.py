"""Named and versioned prompt templates, which render a problem as text and images in reading order."""

from bench.prompts.library import TEMPLATES, find_template
from bench.prompts.rendering import PromptPart, prompt_hash, render

__all__ = ["TEMPLATES", "PromptPart", "find_template", "prompt_hash", "render"]
