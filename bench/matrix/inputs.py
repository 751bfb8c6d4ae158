"""Models and data as inputs of stages: what they are (identity) and where they are (location)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.engines.endpoint import write_endpoint
from bench.errors import ConfigurationError
from bench.matrix.yaml_file import Where
from bench.model_source import parse_model
from bench.smallworld.sources import SMALLWORLD, dataset_path, generated_data_path, prompts_path
from bench.store import Store
from vold.data.reading import named_images
from vold.data.sources import AbsentData, DataSource
from vold.locations import HUB


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a stage.

    identity: the content's hash, the id of the stage that makes it, or its name and revision on the hub. It is part of
    the stage's identity.
    location: a path relative to the store, an absolute path, or ``hub:OWNER/NAME@REVISION``.
    absent: why the input is missing on this machine; empty if it is there. Planning continues without it.
    """

    identity: str
    location: str
    absent: str = ""


class InputResolver:
    """Turns the sources that a profile names into inputs. ``base``: the directory of relative paths."""

    def __init__(self, store: Store, base: Path) -> None:
        self.store = store
        self.base = base

    def model(self, source: str, where: Where) -> Input:
        """A model of a profile; raises ConfigurationError for a small-world name that does not exist."""
        with _errors_at(where):
            model = parse_model(source, self.base)
            if model.on_server:
                return self._local(write_endpoint(source, self.store.root / ".endpoints"), where, model=True)
        if model.on_hub:
            return Input(model.location, model.location)
        return self._local(Path(model.location), where, model=True, fix=model.fix)

    def training_data(self, source: str, where: Where) -> Input:
        """Prompts or traces, from the small world or from any source that ``vold.data.sources`` reads."""
        with _errors_at(where):
            if source.startswith(SMALLWORLD):
                return self._data(DataSource(str(prompts_path(source, self._generated()))), where)
            if source.startswith(("file:", HUB)):
                return self._data(DataSource.parse(source, self.base), where)
        raise ConfigurationError(
            f"{where}: {source!r} is not a source of training data; expected smallworld/SET?n=N, file: or hub:"
        )

    def problems(self, benchmark: str, source: str, where: Where) -> Input:
        """The problems of one benchmark: a directory in its official format, or a set of the small world."""
        if source.startswith(SMALLWORLD):
            with _errors_at(where):
                return self._local(dataset_path(benchmark, source, self._generated()), where)
        return self._local(self._path(source), where, fix=f"put the files of {benchmark} there")

    def _path(self, text: str) -> Path:
        return (self.base / Path(text).expanduser()).resolve()

    def _local(self, path: Path, where: Where, model: bool = False, fix: str = "") -> Input:
        if not path.exists():
            return Input(f"absent:{path}", str(path), f"{where}: nothing at {path}; {fix}")
        return Input(f"sha256:{self.store.content_hash(path, model)}", str(path))

    def _data(self, source: DataSource, where: Where) -> Input:
        """Data of a parsed source. Missing data on the hub are absent only offline; else their stage fetches them."""
        location = str(source) if source.revision or source.options else source.location
        try:
            source.files(fetch=False)
        except AbsentData as error:
            if source.revision and not _offline():
                return Input(location, location)
            return Input(f"absent:{location}", location, f"{where}: {error}")
        if source.revision:
            return Input(location, location)
        path = Path(source.location)
        images = named_images(path) if path.is_file() else ()
        return Input(f"sha256:{self.store.content_hash(path, attachments=images)}{source.options}", location)

    def _generated(self) -> Path:
        return generated_data_path(self.store.root / ".data")


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@contextmanager
def _errors_at(where: Where) -> Iterator[None]:
    """Turn the refusal of a source into a ConfigurationError that names its place."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{where}: {error.args[0]}") from error
