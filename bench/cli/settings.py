"""``vold-bench settings``: every setting of a stage and of its execution."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import Json
from bench.errors import ConfigurationError
from bench.hints import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_TYPES = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "NoneType": "null"}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "multiple_of": "a multiple of"}


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting. ``name`` is dotted and begins with its stage or with ``execution``; ``default`` is a JSON value."""

    name: str
    type: str
    default: object
    description: str

    @property
    def default_text(self) -> str:
        """The default as YAML would have it."""
        return _yaml(self.default)


def list_settings(
    prefix: Annotated[
        str, typer.Argument(help="Only settings whose name begins with this, such as rl.distill or execution.vllm.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List every setting with its type, default and description."""
    rows = all_settings()
    matches = [row for row in rows if row.name.startswith(prefix)]
    if not matches:
        parts = [row.name.split(".") for row in rows]
        prefixes = dict.fromkeys(".".join(words[:size]) for words in parts for size in range(1, len(words) + 1))
        raise ConfigurationError(f"{prefix}: no setting begins with this; {nearest(prefix, prefixes)}")
    if as_json:
        return print_json({"settings": [asdict(row) for row in matches]})
    table = Table(Column("setting", no_wrap=True), show_lines=True)
    for header in ("type", "default", "description"):
        table.add_column(header, overflow="fold")  # a value that is cut cannot be copied
    for row in matches:
        table.add_row(*map(Text, (row.name, row.type, row.default_text, row.description)))
    Console().print(table)


def all_settings() -> list[SettingRow]:
    """The settings of every kind of stage in the order of the stages, then those of ``execution``."""
    from bench.matrix.stages import KINDS, config_class
    from vold.execution import Execution

    models = {kind: config_class(kind) for kind in KINDS} | {"execution": Execution}
    return [
        setting
        for prefix, model in models.items()
        for setting in _settings(prefix, model, model().model_dump(mode="json"))
    ]


def _settings(prefix: str, model: "type[BaseModel]", defaults: dict[str, Any]) -> Iterator[SettingRow]:
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings(f"{prefix}.{name}", inner, defaults[name])
        else:
            yield SettingRow(f"{prefix}.{name}", _field_type(field), defaults[name], field.description or "")


def _field_type(field: "FieldInfo") -> str:
    bounds = [
        f"{words} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, words in _BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([_type_text(field.annotation), *bounds])


def _type_text(annotation: object) -> str:
    """A type in words, such as ``integer or null``; the values of a Literal are listed."""
    import types
    from typing import Literal, Union, get_args, get_origin

    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin is Literal:
        return _either(map(str, inner))
    if origin in (Union, types.UnionType):
        return _either(dict.fromkeys(map(_type_text, inner)))
    if origin is dict:
        return f"mapping of {_type_text(inner[0])} to {_type_text(inner[1])}"
    if origin is not None:
        return f"list of {_type_text(inner[0])}"
    if fields := getattr(annotation, "model_fields", None):
        return f"mapping with {', '.join(fields)}"
    name = getattr(annotation, "__name__", str(annotation))
    return _TYPES.get(name, name)


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _yaml(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_yaml(each)}" for name, each in value.items()) + "}"
    return str(value) or '""'
