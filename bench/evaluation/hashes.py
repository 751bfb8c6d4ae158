"""Hashes of benchmark records, which tell whether two evaluations asked the same problems."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

from bench.benchmarks.imported import row_hash
from bench.records import Problem


def record_hashes(problems: Sequence[Problem]) -> dict[str, str]:
    """By id the SHA-256 of a problem's fields and its images' bytes; the location of the files does not matter."""
    image, names = cache(_image_hash), [field.name for field in fields(Problem)]
    return {
        problem.id: row_hash({name: getattr(problem, name) for name in names}, [image(path) for path in problem.images])
        for problem in problems
    }


def combined_hash(hashes: Mapping[str, str]) -> str:
    """One SHA-256 of the result of ``record_hashes``, in any order."""
    return hashlib.sha256("".join(f"{id}\0{hashes[id]}\n" for id in sorted(hashes)).encode()).hexdigest()


def _image_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"
