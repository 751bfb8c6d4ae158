"""Models behind a server: a directory with ``endpoint.json`` takes the place of a checkpoint."""

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from bench.errors import ConfigurationError
from vold.config import Strict
from vold.files import write_whole

FILE = "endpoint.json"
SCHEMES = ("http://", "https://")


class RemoteModel(Strict):
    """A server and a model on it. Both are part of a result's identity. The key is not, and it is never written."""

    url: str
    model: str = Field(min_length=1)
    pixel_factor: int = Field(default=28, ge=1, description="patch size times merge size, used if pixel limits are set")


def base_url(text: str) -> str:
    """The URL of a server without a slash at its end. Raises ConfigurationError for text that is not a URL."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # invalid address in brackets, or a port that is not a number
        valid = False
    if not valid:
        raise ConfigurationError(f"{text!r} is not a server's URL. Write it like http://127.0.0.1:8000/v1")
    return text.rstrip("/")


def key_from_environment(variable: str | None, option: str = "") -> str | None:
    """The key in an environment variable, None without a variable. Raises ConfigurationError if it is not set.

    option: the option that names the variable, for the error.
    """
    if variable is None:
        return None
    if key := os.environ.get(variable):
        return key
    name = f"{option} {variable}".strip()
    raise ConfigurationError(f"{name}: this environment variable is not set or empty. Set it to the server's key")


def is_remote(directory: Path) -> bool:
    return (directory / FILE).is_file()


def read_endpoint(directory: Path) -> RemoteModel:
    """The model that ``endpoint.json`` describes. Raises ConfigurationError if the file is missing or malformed."""
    path = directory / FILE
    try:
        return RemoteModel.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{directory}: there is no {FILE}. The engine openai needs one; or name the model as URL#MODEL"
        ) from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {error}. The file must contain url and model") from error


def write_endpoint(source: str, under: Path) -> Path:
    """The directory in ``under`` that describes ``URL#MODEL``. It is written if it does not exist."""
    url, _, model = source.partition("#")
    if not model:
        raise ConfigurationError(f"{source}: name the model on that server: {source}#MODEL")
    text = RemoteModel(url=base_url(url), model=model).model_dump_json(indent=1) + "\n"
    directory = under / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (directory / FILE).exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / FILE, text)
    return directory
