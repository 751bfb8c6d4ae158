"""What a check has to say: how bad, what, where, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """``ERROR``: the run fails or trains on nonsense; ``WARNING``: probably not meant; ``NOTE``: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """``id`` is ``theme.name``; ``where`` a file or a setting; ``mend`` what to change."""

    level: Level
    id: str
    what: str
    where: str
    mend: str

    @property
    def theme(self) -> str:
        return self.id.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.mend}"


def error(id: str, what: str, where: object, mend: str) -> Finding:
    return Finding(Level.ERROR, id, what, str(where), mend)


def warning(id: str, what: str, where: object, mend: str) -> Finding:
    return Finding(Level.WARNING, id, what, str(where), mend)


def note(id: str, what: str, where: object, mend: str) -> Finding:
    return Finding(Level.NOTE, id, what, str(where), mend)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop a run."""
    return [finding for finding in findings if finding.level is Level.ERROR]
