"""Models and data as inputs of stages: what they are (identity) and where they lie (location)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.engines.endpoint import SCHEMES, write_endpoint
from bench.errors import ConfigurationError
from bench.matrix.yaml_file import Where
from bench.smallworld.sources import SMALLWORLD, dataset_path, generated_data_path, prompts_path
from bench.store import Store
from vold.data.reading import named_images
from vold.data.sources import AbsentData, DataSource
from vold.locations import HUB, hub_location, hub_name


@dataclass(frozen=True, slots=True)
class Input:
    """``identity`` enters a stage's hash; ``location`` is relative to the store, absolute, or ``hub:ID@REVISION``.

    ``absent`` says why the input cannot be used on this machine yet, or is empty: planning goes on without it.
    """

    identity: str
    location: str
    absent: str = ""


class Materials:
    """Resolves the sources that a profile names. ``base``: the directory of relative paths."""

    def __init__(self, store: Store, base: Path) -> None:
        self.store = store
        self.base = base

    def model(self, source: str, where: Where) -> Input:
        """A model of a profile; raises ConfigurationError for a small-world name that does not exist."""
        if source.startswith(SMALLWORLD):
            from bench.smallworld import checkpoint_path

            with _placed(where):
                path = checkpoint_path(source.removeprefix(SMALLWORLD))
            return self._local(path, where, model=True, mend="build it with `vold-bench smallworld build`")
        if source.startswith((".", "/", "~")):
            return self._local(self._path(source), where, model=True, mend="give a checkpoint directory")
        if source.startswith(SCHEMES):
            with _placed(where):
                path = write_endpoint(source, self.store.root / ".endpoints")
            return self._local(path, where, model=True)
        location = hub_location(*hub_name(source))
        return Input(location, location)

    def training_data(self, source: str, where: Where) -> Input:
        """Prompts or traces in any of the forms of ``vold.data.sources``, or of the small world."""
        with _placed(where):
            if source.startswith(SMALLWORLD):
                return self._data(DataSource(str(prompts_path(source, self._generated()))), where)
            if source.startswith(("file:", HUB)):
                return self._data(DataSource.parse(source, self.base), where)
        raise ConfigurationError(
            f"{where}: {source!r} is no source of training data; expected smallworld/SET?n=N, file: or hub:"
        )

    def problems(self, benchmark: str, source: str, where: Where) -> Input:
        """One benchmark's problems: a directory in its official form."""
        if source.startswith(SMALLWORLD):
            with _placed(where):
                return self._local(dataset_path(benchmark, source, self._generated()), where)
        return self._local(self._path(source), where, mend=f"put the files of {benchmark} there")

    def _path(self, text: str) -> Path:
        return (self.base / Path(text).expanduser()).resolve()

    def _local(self, path: Path, where: Where, model: bool = False, mend: str = "") -> Input:
        if not path.exists():
            return Input(f"absent:{path}", str(path), f"{where}: nothing at {path}; {mend}")
        return Input(f"sha256:{self.store.content_hash(path, model)}", str(path))

    def _data(self, source: DataSource, where: Where) -> Input:
        """Data of the hub that are not here are fetched by the stage that reads them, unless this machine may not."""
        location = str(source) if source.revision or source.options else source.place
        try:
            source.files(fetch=False)
        except AbsentData as error:
            if source.revision and not _offline():
                return Input(location, location)
            return Input(f"absent:{location}", location, f"{where}: {error}")
        if source.revision:
            return Input(location, location)
        path = Path(source.place)
        beside = named_images(path) if path.is_file() else ()
        return Input(f"sha256:{self.store.content_hash(path, beside=beside)}{source.options}", location)

    def _generated(self) -> Path:
        return generated_data_path(self.store.root / ".data")


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@contextmanager
def _placed(where: Where) -> Iterator[None]:
    """Say where the source stands that is refused."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{where}: {error.args[0]}") from error
