"""Write checkpoints that any Hugging Face tool loads."""

import shutil
from pathlib import Path

from vold.files import publish_directory
from vold.models.language_model import LanguageModel

# Everything beside the weights travels as it is: tokenizer, chat template, image processor, generation config.
_WRITTEN_BY_MODEL = {"config.json", "model.safetensors.index.json"}
_COPIED_SUFFIXES = {".json", ".jinja", ".txt"}


def save_checkpoint(model: LanguageModel, out: Path) -> None:
    """Write the weights as safetensors with the source checkpoint's companions; ``out`` appears whole or not at all."""
    with publish_directory(out) as directory:
        model.model.save_pretrained(directory)
        for file in sorted(model.path.iterdir()):
            if file.suffix in _COPIED_SUFFIXES and file.name not in _WRITTEN_BY_MODEL:
                shutil.copyfile(file, directory / file.name)
