"""Text prompts with verifiable answers, and the traces written for them, as JSONL."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Prompt:
    """One training problem. ``text`` is the user's turn; ``options`` is empty for free-form answers.

    ``answer`` is the gold (an option's letter where there are options or where letters are the answer).
    """

    id: str
    text: str
    answer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """One completion imitated by SFT; ``correct`` is None where the answer was not checked."""

    id: str
    text: str
    completion: str
    correct: bool | None = None


def write_jsonl(path: Path, rows: Iterable[Prompt | Trace]) -> int:
    """Write rows and return their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count


def _read(path: Path) -> Iterable[tuple[int, dict[str, object]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"{path}:{number}: not JSON ({error.msg}); every line must be one object"
                    ) from error


def read_prompts(path: Path) -> list[Prompt]:
    """Read prompts; raises ValueError naming the line of a malformed row."""
    rows = []
    for number, row in _read(path):
        try:
            rows.append(Prompt(str(row["id"]), str(row["text"]), str(row["answer"]), tuple(row.get("options", ()))))  # type: ignore[arg-type]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: a prompt needs id, text and answer ({error})") from error
    return rows


def read_traces(path: Path) -> list[Trace]:
    """Read traces; raises ValueError naming the line of a malformed row."""
    rows = []
    for number, row in _read(path):
        try:
            rows.append(Trace(str(row["id"]), str(row["text"]), str(row["completion"]), row.get("correct")))  # type: ignore[arg-type]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: a trace needs id, text and completion ({error})") from error
    return rows
