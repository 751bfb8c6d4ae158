"""The generated reference pages are up to date, and the list of settings is complete."""

import json

import pytest
from typer.testing import CliRunner

from bench.cli import reference
from bench.cli.main import app
from bench.cli.settings import all_settings
from bench.errors import ConfigurationError
from bench.matrix.stages import KINDS, execution_settings, settings


@pytest.mark.parametrize("name", ["commands.md", "exit-codes.md", "settings.md"])
def test_the_reference_page_is_up_to_date(name: str) -> None:
    path = reference.FOLDER / name
    current = path.read_text(encoding="utf-8") if path.is_file() else ""
    if current != reference.pages()[name]:
        pytest.fail(f"docs/reference/{name} is out of date; run `make docs` and commit the result")


def test_every_setting_is_listed_once_with_a_description() -> None:
    rows = all_settings()
    names = [row.name for row in rows]
    expected = [name for kind in KINDS for name in settings(kind)]
    expected += [f"execution.{name}" for name in execution_settings()]
    assert sorted(names) == sorted(expected) and len(set(names)) == len(names)
    assert [row.name for row in rows if not row.description] == []


def test_a_prefix_limits_the_list_and_an_unknown_one_is_refused() -> None:
    result = CliRunner().invoke(app, ["settings", "rl.distill", "--json"], catch_exceptions=False)
    rows = json.loads(result.stdout)["settings"]
    assert len(rows) > 10 and all(row["name"].startswith("rl.distill") for row in rows)
    assert {row["name"]: row["default"] for row in rows}["rl.distill.weight"] == 0.0
    failed = CliRunner().invoke(app, ["settings", "rl.distil.weight"])
    assert isinstance(failed.exception, ConfigurationError) and "rl.distill.weight" in str(failed.exception)
