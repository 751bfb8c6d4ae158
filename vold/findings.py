"""Findings of a check: how bad a fault is, what is wrong, where, and how to fix it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is.

    ``ERROR``: the run would fail or its result would be meaningless. ``WARNING``: probably a mistake. ``NOTE``: for
    information only.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    id: ``theme.name``.
    message: what is wrong.
    where: a file or a setting.
    fix: what to change.
    """

    level: Level
    id: str
    message: str
    where: str
    fix: str

    @property
    def theme(self) -> str:
        return self.id.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.where}: {self.message}; {self.fix}"


def error(id: str, message: str, where: object, fix: str) -> Finding:
    return Finding(Level.ERROR, id, message, str(where), fix)


def warning(id: str, message: str, where: object, fix: str) -> Finding:
    return Finding(Level.WARNING, id, message, str(where), fix)


def note(id: str, message: str, where: object, fix: str) -> Finding:
    return Finding(Level.NOTE, id, message, str(where), fix)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stop a run."""
    return [finding for finding in findings if finding.level is Level.ERROR]
