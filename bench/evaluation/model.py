"""The model of an evaluation: its name, and the hash that identifies it."""

import hashlib
from pathlib import Path

from bench.engines.endpoint import is_remote, read_endpoint
from bench.errors import ConfigurationError
from bench.summary import ModelRecord
from vold.files import MODEL_SUFFIXES, WEIGHTS

_HUB = "models--"
"""Prefix of a model's directory in the hub's cache: ``models--OWNER--NAME/snapshots/COMMIT``."""


def model_record(path: Path) -> ModelRecord:
    """The model at ``path``. Raises ConfigurationError if there is neither a checkpoint nor an endpoint."""
    return ModelRecord(model_name(path), model_hash(path))


def model_name(path: Path) -> str:
    """The name by which the server knows the model, ``OWNER/NAME`` from the hub's cache, or the directory's name.

    A stage and a training run publish their checkpoint in a directory ``out``, which goes by the name of the directory
    above it. A server's name can be any text; use ``vold.files.file_name`` to derive the name of a file.
    """
    if is_remote(path):
        return read_endpoint(path).model
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith(_HUB):
        return repository.removeprefix(_HUB).replace("--", "/", 1)
    return directory_name(path)


def directory_name(path: Path) -> str:
    """The name of a checkpoint's directory, or of the one above ``out``."""
    return path.parent.name if path.name == "out" else path.name


def model_hash(path: Path) -> str:
    """SHA-256 of the names and bytes of a checkpoint's weights and settings."""
    files = sorted(file for file in path.glob("*") if file.suffix in MODEL_SUFFIXES)
    if not any(file.suffix == WEIGHTS for file in files) and not is_remote(path):
        raise ConfigurationError(f"{path}: no checkpoint (config.json and *.safetensors) here; check the path")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
