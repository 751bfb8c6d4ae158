"""Named, versioned prompt templates; a problem becomes text and pictures in the order a model reads them."""

from bench.prompts.library import TEMPLATES, template
from bench.prompts.rendering import Part, prompt_hash, render

__all__ = ["TEMPLATES", "Part", "prompt_hash", "render", "template"]
