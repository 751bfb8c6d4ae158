"""Writes checkpoints that any Hugging Face tool can load."""

import logging
import shutil
from pathlib import Path

from vold.files import MODEL_SUFFIXES, WEIGHTS, publish_directory
from vold.models.language_model import LanguageModel
from vold.models.lora import merged_weights

# All other files are copied: tokenizer, chat template, image processor, generation config. The recipe is not, because
# it says how the source checkpoint was made, which is not true of a model trained from it.
_NOT_COPIED = {"config.json", "model.safetensors.index.json", "recipe.json"}

# Saving imports DeepSpeed if it is installed, which then warns that there is no GPU.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in str(record.msg))


def save_checkpoint(model: LanguageModel, out: Path) -> None:
    """Write the weights as safetensors, with copies of the source checkpoint's other files.

    ``out`` appears only when it is complete.
    """
    with publish_directory(out) as directory:
        model.model.save_pretrained(directory, state_dict=merged_weights(model))
        for file in sorted(model.path.iterdir()):
            if file.suffix in MODEL_SUFFIXES - {WEIGHTS} and file.name not in _NOT_COPIED:
                shutil.copyfile(file, directory / file.name)
