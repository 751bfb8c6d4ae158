"""Models and data as inputs of stages: what they are (identity) and where they lie (location)."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bench.errors import ConfigurationError
from bench.matrix.source import Where, nearest
from bench.matrix.store import Store

SMALLWORLD = "smallworld/"


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

            try:
                path = checkpoint_path(source.removeprefix(SMALLWORLD))
            except KeyError as error:
                raise ConfigurationError(f"{where}: {error.args[0]}") from error
            return self._local(path, where, model=True, mend="build it with `vold-bench smallworld build`")
        if source.startswith((".", "/", "~")):
            return self._local(self._path(source), where, model=True, mend="give a checkpoint directory")
        name, _, revision = source.removeprefix("hub:").partition("@")
        location = f"hub:{name}@{revision or 'main'}"
        return Input(location, location)

    def prompts(self, source: str, where: Where) -> Input:
        """Text prompts as JSONL."""
        if source.startswith(SMALLWORLD):
            name, n = _query(source, where)
            folder = self._generated(source, lambda out: _small_prompts(name, n, out, where))
            return self._local(folder / "prompts.jsonl", where)
        if source.startswith("file:"):
            path = self._path(source.removeprefix("file:"))
            return self._local(path, where, mend="write it as JSONL: id, text, answer")
        if source.startswith("hub:"):
            name = source.removeprefix("hub:")
            mend = f"export it as JSONL (id, text, answer) and name it file:PATH at {where}"
            return Input(source, source, f"prompts of the hub data set {name} are not on this machine; {mend}")
        raise ConfigurationError(f"{where}: {source!r} is no prompt source; expected smallworld/SET?n=N, file: or hub:")

    def problems(self, benchmark: str, source: str, where: Where) -> Input:
        """One benchmark's problems: a directory in its official form."""
        if source.startswith(SMALLWORLD):
            split, n = _query(source, where)
            folder = self._generated(source, lambda out: _small_problems(split, n, out, where))
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if benchmark not in index:
                raise ConfigurationError(f"{where}: unknown benchmark {benchmark!r}; {nearest(benchmark, index)}")
            return self._local(folder / index[benchmark], where)
        return self._local(self._path(source), where, mend=f"put the files of {benchmark} there")

    def _path(self, text: str) -> Path:
        return (self.base / Path(text).expanduser()).resolve()

    def _local(self, path: Path, where: Where, model: bool = False, mend: str = "") -> Input:
        if not path.exists():
            return Input(f"absent:{path}", str(path), f"{where}: nothing at {path}; {mend}")
        return Input(f"sha256:{self.store.content_hash(path, model)}", str(path))

    def _generated(self, source: str, make: Callable[[Path], None]) -> Path:
        """The directory that ``make`` fills, made once for one source and one state of the generator's code."""
        key = hashlib.sha256(source.encode() + _generator_code()).hexdigest()[:12]
        folder = self.store.root / ".data" / key
        if not folder.is_dir():
            work = folder.with_name(f".{key}.{os.getpid()}")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            make(work)
            work.rename(folder)
        return folder


def _query(source: str, where: Where) -> tuple[str, int]:
    """Name and number of ``smallworld/NAME?n=N``."""
    parts = urlsplit(source.removeprefix(SMALLWORLD))
    query = dict(parse_qsl(parts.query))
    if set(query) != {"n"} or not query["n"].isdigit() or int(query["n"]) < 1:
        raise ConfigurationError(f"{where}: {source!r} is not of the form smallworld/NAME?n=N")
    return parts.path, int(query["n"])


def _generator_code() -> bytes:
    """The generator's own source: data made by other code is made again (and is the same, or has another identity)."""
    import bench.smallworld

    folder = Path(bench.smallworld.__file__).parent
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))


def _small_prompts(name: str, n: int, out: Path, where: Where) -> None:
    from bench.smallworld.prompts import materialise

    try:
        materialise(name, n, out / "prompts.jsonl")
    except KeyError as error:
        raise ConfigurationError(f"{where}: {error.args[0]}") from error


def _small_problems(split: str, n: int, out: Path, where: Where) -> None:
    from bench.smallworld.records import materialise

    try:
        made = materialise(split, n, out)
    except KeyError as error:
        raise ConfigurationError(f"{where}: {error.args[0]}") from error
    index = {benchmark: path.relative_to(out).as_posix() for benchmark, path in made.items()}
    (out / "index.json").write_text(json.dumps(index, sort_keys=True) + "\n", encoding="utf-8")
