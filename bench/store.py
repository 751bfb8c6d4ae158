"""The store of stages: one directory per finished stage, named after the hash of everything that decides its result.

``<root>/<kind>-<hash12>/`` is a finished stage. It holds ``spec.json``, ``status.json``, ``metrics.jsonl``,
``timing.jsonl``, ``log.txt`` and ``out/``. While a stage runs, its directory is ``<root>/.work/<id>/``. It survives a
kill, so that the stage can resume. An atomic rename publishes the finished stage.

``StageSpec`` and ``Status`` are written to disk field by field: a renamed field makes existing stores unreadable.
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

# Files that decide how a model behaves. Others in its directory (a model card, an image) may change freely.
_MODEL_FILES = (".json", ".safetensors", ".txt", ".jinja", ".model")


def canonical(value: object) -> str:
    """JSON that has exactly one spelling for each value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage to run; the content of its ``spec.json``.

    id: ``<kind>-<hash12>``, with the hash of ``identity``.
    identity: everything that decides the result.
    locations: where each input is: a path relative to the store, an absolute path, or ``hub:OWNER/NAME@REVISION``.
    run: the function that does the work, as ``module:name``.
    execution: how the stage runs, such as threads and batch sizes. Not part of the identity, with one exception: the
    dtype of an evaluation.
    degraded: the values of ``execution`` that were reduced after memory ran out.
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

    def path(self, name: str, store: "Store") -> Path:
        """The path of the input ``name`` on this machine; a model on the hub is fetched first."""
        location = self.locations[name]
        if on_hub(location):
            return from_hub(location)
        path = store.root / location
        if not path.exists():
            raise ConfigurationError(f"{self.id}: its input {name!r} is not at {path}")
        return path

    def data(self, name: str, store: "Store") -> "DataSource":
        """The input ``name`` as a source of data; data on the hub are fetched when they are read."""
        from vold.data.sources import DataSource

        return DataSource.parse(self.locations[name], store.root)


def from_hub(location: str, weights: bool = True) -> Path:
    """Fetch the missing files of a model on the hub, with or without its weights, and return its directory.

    Raises ConfigurationError when there is no such model, and InfrastructureError when it cannot be fetched.
    """
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
    """The progress of a stage; the content of its ``status.json``.

    started, finished: seconds since the epoch; ``finished`` is 0 while the stage runs.
    cpu_seconds, wall_seconds, attempts: sums over all attempts.
    """

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
        """The status in a directory; None when there is none or a crash cut it short."""
        try:
            return Status(**json.loads((directory / "status.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        write_whole(directory / "status.json", json.dumps(asdict(self), indent=1) + "\n")


class Store:
    """A directory of finished and running stages, and of cached hashes of models and data."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path(self, stage: str) -> Path:
        return self.root / stage

    def work(self, stage: str) -> Path:
        return self.root / ".work" / stage

    def done(self, stage: str) -> bool:
        """Whether the stage is finished."""
        return (self.root / stage / "status.json").is_file()

    def settled(self, spec: StageSpec) -> bool:
        """Whether nothing is left to do for the stage.

        A finished evaluation that lacks responses is settled only if its execution says ``evaluation.accept_missing``.
        Otherwise the next run asks for the missing responses.
        """
        if not self.done(spec.id):
            return False
        accepted = spec.execution.get("evaluation", {}).get("accept_missing", False)
        return accepted or spec.kind != "eval" or not _lacks_responses(self.path(spec.id) / "out")

    def reopen(self, stage: str) -> None:
        """Turn a finished stage back into a running one, with all its files. The caller must hold its lock."""
        self.work(stage).parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.work(stage), ignore_errors=True)  # left by an attempt that another one overtook
        self.path(stage).rename(self.work(stage))

    def status(self, stage: str) -> Status | None:
        """The status of the finished stage or of its last attempt; None if there was none."""
        return Status.read(self.path(stage)) or Status.read(self.work(stage))

    def prepare(self, spec: StageSpec) -> Path:
        """Make the stage's work directory with its ``spec.json``; files of an earlier attempt stay."""
        work = self.work(spec.id)
        work.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(spec), indent=1, sort_keys=True, ensure_ascii=False)
        write_whole(work / "spec.json", text + "\n")
        return work

    def publish(self, stage: str) -> Path:
        """Turn the work directory into the finished stage.

        If another process has published the stage already, its files stay: the content is the same.
        """
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
        """Hold the lock ``name``; the kernel releases it when the process ends, even if it is killed.

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
                            f"{self.root}: in use by process {holder} ({name}); wait for it, or use another --store"
                        ) from None
                    time.sleep(0.1)
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def content_hash(self, path: Path, model: bool = False, attachments: Sequence[Path] = ()) -> str:
        """SHA-256 over the names and bytes of a file or directory; cached until sizes or times change.

        model: hash only the files that decide how a model behaves.
        attachments: further files in the directory of a single file that belong to it, such as its images.

        Raises ConfigurationError when the path is missing or has nothing to hash.
        """
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if model:
            files = [p for p in files if p.suffix in _MODEL_FILES]
        if not files or not path.exists():
            raise ConfigurationError(f"{path}: no such file or directory, or an empty one")
        names = [p.relative_to(path).as_posix() for p in files] if path.is_dir() else [path.suffix]
        files += attachments
        names += [other.relative_to(path.parent).as_posix() for other in attachments]
        stamp = digest([[n, p.stat().st_size, p.stat().st_mtime_ns] for n, p in zip(names, files, strict=True)])
        cache = self.root / ".hashes" / f"{digest([str(path.resolve()), model])[:16]}.json"
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            cached = json.loads(cache.read_text(encoding="utf-8"))
            if cached["stamp"] == stamp:
                return cached["sha256"]
        value = digest([[name, _file_hash(p)] for name, p in zip(names, files, strict=True)])
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, json.dumps({"path": str(path.resolve()), "stamp": stamp, "sha256": value}) + "\n")
        return value


def _lacks_responses(result: Path) -> bool:
    try:
        return summary.read(result).missing > 0
    except ConfigurationError:
        return False  # the next reader of the result reports what is wrong with it


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
