"""YAML files with positions: every error names file, line and column, and the nearest valid name."""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.errors import ConfigurationError
from bench.hints import nearest

SUFFIX = ".yaml"

Loc = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

# Words that YAML 1.1 readers take for booleans. As names, they would mean different things to different tools.
_YAML11_BOOLEANS = {"y", "n", "yes", "no", "on", "off", "true", "false"}


@dataclass(frozen=True, slots=True)
class Where:
    """A position in a file (line and column count from 1), or an option of the command line (line 0)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class YamlFile:
    """One YAML file: its data, and the position of each of its keys."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when the file is missing, not UTF-8 or not YAML."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        self.path = path
        try:
            self._root = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigurationError(f"{path}: no such file; {_siblings(path)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read ({error})") from error
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = Where(str(path), mark.line + 1, mark.column + 1) if mark else Where(str(path))
            raise ConfigurationError(f"{where}: not YAML: {error.problem or error.context}") from error
        except YAMLError as error:
            raise ConfigurationError(f"{path}: not YAML: {error}") from error
        self.data = _plain(self._root)
        if not isinstance(self.data, dict):
            raise ConfigurationError(f"{path}:1:1: expected a mapping with keys, found {type(self.data).__name__}")

    def where(self, loc: Sequence[str | int]) -> Where:
        """The position of ``loc``, or of its deepest part that the file has."""
        node: Any = self._root
        position = (0, 0)
        for part in loc:
            try:
                position = node.lc.key(part) if hasattr(node, "keys") else node.lc.item(part)
                node = node[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return Where(str(self.path), position[0] + 1, position[1] + 1)

    def fail(self, loc: Sequence[str | int], message: str) -> NoReturn:
        """Raise ConfigurationError at a position of this file."""
        raise ConfigurationError(f"{self.where(loc)}: {message}")

    def has(self, loc: Sequence[str | int]) -> bool:
        """Whether the file itself has a value at ``loc``."""
        node = self.data
        for part in loc:
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    def validate(self, model: type[Model], data: object = None, below: "Sequence[YamlFile]" = ()) -> Model:
        """Check the file against ``model`` and return the model.

        data: what to check instead of the file's own data, merged from it and the files ``below`` it.

        Raises ConfigurationError naming every mistake with its position.
        """
        try:
            return model.model_validate(self.data if data is None else data)
        except ValidationError as error:
            lines = []
            # A misspelt key also makes a key missing. The spelling comes first, because that is what needs fixing.
            for wrong in sorted(error.errors(), key=lambda wrong: wrong["type"] == "missing"):
                source = next((s for s in (self, *below) if s.has(wrong["loc"])), self)
                lines.append(f"{source.where(wrong['loc'])}: {explain(wrong, model)}")
            raise ConfigurationError("\n".join(lines)) from error

    def check_name(self, name: object, loc: Sequence[str | int]) -> None:
        """Refuse a name that another YAML reader would take for a boolean, or that has other characters than a word."""
        if isinstance(name, bool) or (isinstance(name, str) and name.lower() in _YAML11_BOOLEANS):
            self.fail(loc, f"{name!r} is a boolean in YAML 1.1 and cannot be a name; use another word")
        if not isinstance(name, str) or not name or not all(c.isalnum() or c in "_-." for c in name):
            self.fail(loc, f"{name!r} is not a valid name: use letters, digits, '_', '-' and '.'")


def is_bare_name(text: str) -> bool:
    """Whether ``text`` names a bundled file or a profile (``cold_start``), and is not a path (``cold_start.yaml``)."""
    return "/" not in text and not text.endswith(SUFFIX)


def setting_place(sources: Sequence[YamlFile], loc: Sequence[str], name: str) -> str:
    """The position of the setting ``name`` in the first of ``sources`` that has it, or a note that none has it."""
    source = next((source for source in sources if source.has(loc)), None)
    return f"{source.where(loc)} {name}" if source else f"{sources[0].path}: {name} (not set, its default)"


def explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One sentence about an error of pydantic: what was expected and what the file has."""
    loc: Loc = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"unknown key {str(loc[-1])!r}; {nearest(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if error["type"] == "missing":
        return f"key {str(loc[-1])!r} is missing"
    key = ".".join(map(str, loc)) or "the file"
    value = f", found {error['input']!r}" if not isinstance(error.get("input"), dict | list) else ""
    return f"{key}: {error['msg'].removeprefix('Value error, ')}{value}"


def _keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The names that are valid at ``loc`` inside ``model``."""
    annotation: object = model
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = annotation.model_fields
            by_alias = {field.alias or name: field for name, field in fields.items()}
            annotation = by_alias[str(part)].annotation if str(part) in by_alias else None
        else:
            arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
            annotation = arguments[-1] if arguments else None
        annotation = _without_none(annotation)
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    return [field.alias or name for name, field in annotation.model_fields.items()]


def _without_none(annotation: object) -> object:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((a for a in typing.get_args(annotation) if a is not type(None)), None)
    return annotation


def _plain(node: object) -> Any:
    """Convert the YAML reader's own classes, which carry formatting, to ordinary dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for scalar in (bool, int, float, str):
        if isinstance(node, scalar):
            return scalar(node)
    return node


def _siblings(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path.parent} is not a directory either"
    return nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
