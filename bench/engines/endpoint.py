"""A model behind somebody's server: a directory with ``endpoint.json`` stands where a checkpoint would."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from bench.errors import ConfigurationError
from vold.config import Strict
from vold.files import write_whole

FILE = "endpoint.json"
SCHEMES = ("http://", "https://")


class RemoteModel(Strict):
    """What is asked, and where; both belong to the identity of a result. The key does not, and is never written."""

    url: str
    model: str = Field(min_length=1)
    pixel_factor: int = Field(default=28, ge=1, description="patch size times merge size, where pixel limits are set")


def base_url(text: str) -> str:
    """A server's URL without a slash at its end; raises ConfigurationError for what is none."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that hold no address, a port that is no number
        known = False
    if not known:
        raise ConfigurationError(f"{text!r} is no URL of a server; expected one such as http://127.0.0.1:8000/v1")
    return text.rstrip("/")


def is_remote(directory: Path) -> bool:
    return (directory / FILE).is_file()


def described(directory: Path) -> RemoteModel:
    """The model that ``endpoint.json`` describes; raises ConfigurationError where it describes none."""
    path = directory / FILE
    try:
        return RemoteModel.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{directory}: no {FILE} lies there; the engine openai needs one, or URL#MODEL"
        ) from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {error}; expected url and model") from error


def describe(source: str, under: Path) -> Path:
    """The directory under ``under`` that describes ``URL#MODEL``, written there when absent."""
    url, _, model = source.partition("#")
    if not model:
        raise ConfigurationError(f"{source}: name the model that the server shall answer with, as {source}#MODEL")
    text = RemoteModel(url=base_url(url), model=model).model_dump_json(indent=1) + "\n"
    directory = under / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (directory / FILE).exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / FILE, text)
    return directory
