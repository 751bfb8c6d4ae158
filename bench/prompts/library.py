"""The registry of all prompt templates."""

from bench.errors import ConfigurationError
from bench.prompts.base import Template
from bench.prompts.official import OFFICIAL
from bench.prompts.own import OWN

TEMPLATES: dict[str, Template] = {template.name: template for template in (*OWN, *OFFICIAL)}


def find_template(name: str) -> Template:
    """The template ``name@version``, or the newest version of a bare name. Raises ConfigurationError."""
    versions = [key for key in TEMPLATES if key == name or key.partition("@")[0] == name]
    if not versions:
        raise ConfigurationError(f"unknown prompt template {name!r}; choose from {', '.join(TEMPLATES)}")
    return TEMPLATES[max(versions, key=lambda key: int(key.partition("@")[2]))]
