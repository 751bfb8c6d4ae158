"""The content-addressed store: one directory a finished stage, published by an atomic rename.

``<root>/<kind>-<hash12>/`` holds ``spec.json``, ``status.json``, ``metrics.jsonl``, ``timing.jsonl``, ``log.txt`` and
``out/``; ``<root>/.work/<id>/`` is the same stage while it runs, and survives a kill so that it can go on.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import summary
from bench.errors import ConfigurationError, ErrorClass, InfrastructureError
from vold.files import write_whole
from vold.locations import hub_name, on_hub

if TYPE_CHECKING:
    from vold.data.sources import DataSource

# What decides how a model behaves; other files beside it (a card, an image) may change freely.
_MODEL_FILES = (".json", ".safetensors", ".txt", ".jinja", ".model")


def canonical(value: Any) -> str:
    """JSON with one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What ``spec.json`` holds.

    ``identity`` is all that decides the result; its hash is in ``id``. ``locations`` says where each input lies:
    relative to the store, absolute, or ``hub:ID@REVISION``. ``execution`` is outside the identity; ``degraded`` are
    those of its values that were made smaller after the machine ran out of memory.
    """

    id: str
    kind: str
    identity: Mapping[str, Any]
    config: Mapping[str, Any]
    locations: Mapping[str, str]
    seed: int
    run: str
    execution: Mapping[str, Any] = field(default_factory=dict)
    degraded: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def read(directory: Path) -> "StageSpec":
        return StageSpec(**json.loads((directory / "spec.json").read_text(encoding="utf-8")))

    def path(self, name: str, store: Path) -> Path:
        """Where the input ``name`` lies on this machine; fetches it when it lives on the hub."""
        location = self.locations[name]
        if on_hub(location):
            return from_hub(location)
        path = store / location
        if not path.exists():
            raise ConfigurationError(f"{self.id}: its input {name!r} is not at {path}")
        return path

    def data(self, name: str, store: Path) -> "DataSource":
        """The data ``name`` as a source to be read; the hub's are fetched on reading."""
        from vold.data.sources import DataSource

        return DataSource.parse(self.locations[name], store)


def from_hub(location: str, weights: bool = True) -> Path:
    """A model of the hub on this machine; fetches what is not there, on request without its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    name, revision = hub_name(location)
    try:
        patterns = ["*.json", "*.txt", "*.jinja", *(["*.safetensors"] if weights else [])]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigurationError(f"{name}: no such model or revision on the hub ({error})") from error
    except (HfHubHTTPError, OSError) as error:
        raise InfrastructureError(f"{name}: cannot be fetched from the hub ({error}); run again to continue") from error


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """How a stage ended: ``done``, ``failed``, ``blocked`` (an ancestor failed) or ``stopped`` (never started)."""

    state: Literal["done", "failed", "blocked", "stopped"]
    error_class: ErrorClass | None = None
    message: str = ""


@dataclass(slots=True)
class Status:
    """How a stage stands. Times are seconds since the epoch; ``*_seconds`` add up over resumed attempts."""

    state: str = "running"
    error_class: str = ""
    message: str = ""
    started: float = 0.0
    finished: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    attempts: int = 0
    degraded: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def read(directory: Path) -> "Status | None":
        """None where there is no status, or one that a crash cut short."""
        try:
            return Status(**json.loads((directory / "status.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        write_whole(directory / "status.json", json.dumps(asdict(self), indent=1) + "\n")


class Store:
    """Finished stages by id, stages at work, and remembered hashes of models and data."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path(self, stage: str) -> Path:
        return self.root / stage

    def work(self, stage: str) -> Path:
        return self.root / ".work" / stage

    def done(self, stage: str) -> bool:
        """Whether the stage is finished; the rename published it whole."""
        return (self.root / stage / "status.json").is_file()

    def settled(self, spec: StageSpec) -> bool:
        """Whether nothing is left to do; an evaluation that lacks responses is done only where that is accepted.

        What it lacks is asked by the next run whose execution has no ``evaluation.accept_missing``.
        """
        if not self.done(spec.id):
            return False
        accepted = spec.execution.get("evaluation", {}).get("accept_missing", False)
        return accepted or spec.kind != "eval" or not _lacks_responses(self.path(spec.id) / "out")

    def reopen(self, stage: str) -> None:
        """Make a finished stage one at work again, with all that it holds; call with its lock held."""
        self.work(stage).parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.work(stage), ignore_errors=True)  # of an attempt that another one overtook
        self.path(stage).rename(self.work(stage))

    def status(self, stage: str) -> Status | None:
        """Of the finished stage, else of its last attempt, else None."""
        return Status.read(self.path(stage)) or Status.read(self.work(stage))

    def prepare(self, spec: StageSpec) -> Path:
        """The stage's work directory with its ``spec.json``; keeps what an earlier attempt left there."""
        work = self.work(spec.id)
        work.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(spec), indent=1, sort_keys=True, ensure_ascii=False)
        write_whole(work / "spec.json", text + "\n")
        return work

    def publish(self, stage: str) -> Path:
        """Make the work directory the finished stage; whoever published it first wins, the content being the same."""
        final = self.path(stage)
        try:
            self.work(stage).rename(final)
        except OSError:
            if not self.done(stage):
                raise
            shutil.rmtree(self.work(stage), ignore_errors=True)
        return final

    @contextmanager
    def lock(self, name: str, wait: float = 0.0) -> Iterator[None]:
        """Hold ``name`` alone on this machine; the kernel lets go when the process ends, however it ends.

        Raises InfrastructureError when another process holds it for longer than ``wait`` seconds.
        """
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a+") as file:
            deadline = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        file.seek(0)
                        holder = file.read().strip() or "unknown"
                        raise InfrastructureError(
                            f"{self.root}: in use by process {holder} ({name}); wait for it, or give another --store"
                        ) from None
                    time.sleep(0.1)
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def content_hash(self, path: Path, model: bool = False, beside: Sequence[Path] = ()) -> str:
        """SHA-256 over names and bytes of a file or directory; remembered while sizes and times stay the same.

        ``model`` leaves out files that do not decide how the model behaves; ``beside`` are further files under a
        file's own directory that belong to it. Raises ConfigurationError when the
        path is missing or holds nothing to hash.
        """
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if model:
            files = [p for p in files if p.suffix in _MODEL_FILES]
        if not files or not path.exists():
            raise ConfigurationError(f"{path}: no such file or directory, or an empty one")
        names = [p.relative_to(path).as_posix() for p in files] if path.is_dir() else [path.suffix]
        files += beside
        names += [other.relative_to(path.parent).as_posix() for other in beside]
        stamp = digest([[n, p.stat().st_size, p.stat().st_mtime_ns] for n, p in zip(names, files, strict=True)])
        memory = self.root / ".hashes" / f"{digest([str(path.resolve()), model])[:16]}.json"
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            known = json.loads(memory.read_text(encoding="utf-8"))
            if known["stamp"] == stamp:
                return known["sha256"]
        value = digest([[name, _file_hash(p)] for name, p in zip(names, files, strict=True)])
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps({"path": str(path.resolve()), "stamp": stamp, "sha256": value}) + "\n")
        return value


def _lacks_responses(result: Path) -> bool:
    try:
        return summary.read(result).missing > 0
    except ConfigurationError:
        return False  # the next reader of the result reports what is wrong with it


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
