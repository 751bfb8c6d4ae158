"""A model is written in the same ways in every command, profile and training file."""

from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.model_source import parse_model
from bench.smallworld import checkpoint_path


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("hub:Qwen/Qwen3-8B", "hub:Qwen/Qwen3-8B@main"),
        ("Qwen/Qwen3-8B", "hub:Qwen/Qwen3-8B@main"),
        ("Qwen/Qwen3-8B@abc123", "hub:Qwen/Qwen3-8B@abc123"),
        ("http://127.0.0.1:8000/v1#m", "http://127.0.0.1:8000/v1#m"),
        ("smallworld/teacher", str(checkpoint_path("teacher"))),
    ],
)
def test_a_model_is_on_the_hub_on_a_server_or_in_the_small_world(text: str, location: str, tmp_path: Path) -> None:
    assert parse_model(text, tmp_path).location == location


@pytest.mark.parametrize("text", ["./a/b", "../a", "~/a", "/a/b", "a/b/c", "a"])
def test_everything_else_is_a_path_below_the_base(text: str, tmp_path: Path) -> None:
    model = parse_model(text, tmp_path)
    assert Path(model.location) == (tmp_path / Path(text).expanduser()).resolve()
    with pytest.raises(ConfigurationError, match="give a checkpoint directory, OWNER/NAME@REVISION"):
        model.path()


def test_a_directory_comes_before_the_hub_unless_the_prefix_says_hub(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert parse_model("runs/mine", tmp_path).path() == tmp_path / "runs" / "mine"
    assert parse_model("hub:runs/mine", tmp_path).on_hub


def test_names_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="student_a"):
        parse_model("smallworld/student_z", tmp_path)
    with pytest.raises(ConfigurationError, match="behind a server"):
        parse_model("http://127.0.0.1:8000/v1#m", tmp_path).path()
