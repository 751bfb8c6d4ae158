"""Finds a benchmark's problems in training data: the same image, a similar image, or 13 words in a row."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.benchmarks.base import Dataset
from bench.errors import ConfigurationError
from bench.records import Problem
from vold.data.formats import DataRecord, MalformedRow
from vold.data.images import image_file
from vold.data.reading import records
from vold.data.sources import DataSource
from vold.images import open_image

SCHEMA = "vold-bench/audit@1"
NGRAM = 13
"""Number of consecutive words that two texts share, as in Brown et al. 2020 (arXiv:2005.14165, appendix C)."""
DISTANCE = 3
"""How many of the 64 bits of the difference hashes of similar images may differ. Of 75,466 tested pairs of different
images, 2 are this close. Of 389 images that were scaled or saved again as JPEG of quality 60, at least 378 are
found."""
_PLAIN = 4
"""A hash with at most this many bits set or unset comes from an image without features and is ignored."""
_WORD = re.compile(r"\w+")
_MARK = re.compile(r"<image ?\d*>")
_EVERY = 10_000

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A reason why a problem is not clean. ``where`` is the file and row of the training data."""

    id: str
    why: str
    where: str


def difference_hash(image: Image.Image) -> int:
    """A hash of 64 bits (dHash): for 9 x 8 grey pixels, whether each is brighter than its left neighbour."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS), dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def ngrams(text: str) -> Iterator[Words]:
    """All sequences of ``NGRAM`` words. Case, punctuation and image marks are ignored."""
    words = _WORD.findall(_MARK.sub(" ", text).lower())
    return (tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1))


class _Images:
    """The benchmark's images, by their bytes and by their difference hash."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._exact: dict[str, list[str]] = {}
        self._ids: list[str] = []
        hashes: list[int] = []
        for problem in problems:
            for path in problem.images:
                self._exact.setdefault(_sha256(path), []).append(problem.id)
                look = difference_hash(open_image(path))
                if not _is_plain(look):
                    self._ids.append(problem.id)
                    hashes.append(look)
        self._hashes: NDArray[np.uint64] = np.array(hashes, dtype=np.uint64)

    def hits(self, path: Path, where: str, limit: int) -> Iterator[Hit]:
        same = self._exact.get(_sha256(path), ())
        yield from (Hit(id, "the same image", where) for id in same)
        look = difference_hash(open_image(path))
        if _is_plain(look):
            return
        distances = np.bitwise_count(self._hashes ^ np.uint64(look))
        for index in np.flatnonzero(distances <= limit):
            if self._ids[index] not in same:
                yield Hit(self._ids[index], f"a similar image ({distances[index]} of 64 bits differ)", where)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_plain(look: int) -> bool:
    return not _PLAIN < look.bit_count() < 64 - _PLAIN


def audit(
    dataset: Dataset, against: Sequence[str], distance: int = DISTANCE, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Compare every problem with every row of training data in any form of ``vold.data.sources``.

    The texts of a row are its prompt and its completion. Returns {"schema", "benchmark", "split", "against", "ngram",
    "distance", "n", "too_short", "hits": [{"id", "why", "where"}], "clean": [id]}, where ``hits`` has each problem once
    per kind of reason, with the first location. Raises ValueError if training data cannot be read.
    """
    if not against:
        raise ConfigurationError("--against: name training data, such as traces.jsonl or hub:OWNER/NAME")
    grams: dict[Words, list[str]] = {}
    too_short = 0
    for problem in dataset.problems:
        own = set(ngrams(problem.question))
        too_short += not own
        for gram in own:
            grams.setdefault(gram, []).append(problem.id)
    images = _Images(dataset.problems)
    first: dict[tuple[str, str], Hit] = {}
    for source in against:
        for number, (where, directory, record) in enumerate(_training(source), 1):
            for hit in _hits(record, where, directory, grams, images, distance):
                first.setdefault((hit.id, hit.why.partition(" (")[0]), hit)
            if number % _EVERY == 0:
                say(f"{source}: {number} rows, {len(first)} hits")
    hit_ids = {hit.id for hit in first.values()}
    return {
        "schema": SCHEMA,
        "benchmark": dataset.benchmark,
        "split": dataset.split,
        "against": list(against),
        "ngram": NGRAM,
        "distance": distance,
        "n": len(dataset.problems),
        "too_short": too_short,
        "hits": [{"id": hit.id, "why": hit.why, "where": hit.where} for hit in first.values()],
        "clean": [problem.id for problem in dataset.problems if problem.id not in hit_ids],
    }


def _training(text: str) -> Iterator[tuple[str, Path, DataRecord]]:
    """The file and row, the file's directory, and the record. Raises ValueError for a malformed row."""
    source = DataSource.parse(text, Path.cwd())
    for file, number, record in records(source):
        if not isinstance(record, MalformedRow):
            yield f"{file}:{number}", file.parent, record
        elif source.malformed == "refuse":
            raise ValueError(f"{file}:{number}: {record}; correct it, or skip such rows with {text}?malformed=skip")


def _hits(
    record: DataRecord, where: str, directory: Path, grams: dict[Words, list[str]], images: _Images, distance: int
) -> Iterator[Hit]:
    for text in (record.text, record.completion or ""):
        for gram in ngrams(text):
            yield from (Hit(id, f"{NGRAM} words ({' '.join(gram)})", where) for id in grams.get(gram, ()))
    for image in record.images:
        yield from images.hits(image_file(image, directory), where, distance)


@dataclass(frozen=True, slots=True)
class Audit:
    """The content of an audit file: ids of the clean problems, and of those with a hit."""

    benchmark: str
    clean: frozenset[str]
    hit: frozenset[str]


def read_audit(file: Path) -> Audit:
    """Read an audit file. Raises ConfigurationError if it is not one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: not JSON ({error}); write it with `vold-bench data audit`") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ConfigurationError(f"{file}: not an audit file; write it with `vold-bench data audit`")
    return Audit(content["benchmark"], frozenset(content["clean"]), frozenset(hit["id"] for hit in content["hits"]))


def clean_ids(file: Path, benchmark: str, problems: Iterable[Problem]) -> frozenset[str]:
    """The clean problems of an audit. Raises ConfigurationError if it is of another benchmark or split."""
    audit = read_audit(file)
    if audit.benchmark != benchmark:
        raise ConfigurationError(f"{file}: not an audit of {benchmark}; write it with `vold-bench data audit`")
    unknown = sorted({problem.id for problem in problems} ^ (audit.clean | audit.hit))
    if unknown:
        raise ConfigurationError(
            f"{file}: is an audit of other records ({len(unknown)} ids are only in one of them, first {unknown[0]!r}); "
            "audit the records that are scored"
        )
    return audit.clean
