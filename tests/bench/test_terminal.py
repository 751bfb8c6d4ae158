"""Words of models, servers and logs on their way to a terminal."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import main
from bench.display.summary import show_judged
from bench.errors import ConfigurationError
from bench.terminal import printable
from tests.helpers.evaluation_results import a_summary
from tests.helpers.stub_server import stub_server

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
ESCAPED = r"\x1b]0;owned\x07\x1b[2J\u202e"


def test_text_lines_and_other_scripts_stay() -> None:
    assert printable("a\tb\nΔ 漢字 é 🙂") == "a\tb\nΔ 漢字 é 🙂"
    assert printable("\x00\x7f\x9b\u200b\U000e0001") == r"\x00\x7f\x9b\u200b\U000e0001"


@pytest.mark.parametrize("debug", ["", "1"])
def test_an_error_shows_control_characters_and_keeps_its_lines(
    debug: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLD_BENCH_DEBUG", debug)
    with pytest.raises(SystemExit) as left:
        main.fail(ConfigurationError(f"the end of the log:\nfirst {HOSTILE}\nlast"))
    told = capsys.readouterr().err
    assert left.value.code == 4
    assert told.endswith(f"error (configuration):\n  the end of the log:\n  first {ESCAPED}\n  last\n")
    assert all(sign.isprintable() or sign == "\n" for sign in told)


def test_a_refusal_in_a_servers_words_reaches_the_terminal_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub_server("--faults", '{"": ["401"]}', "--words", HOSTILE) as (url, _):
        words = ["eval", "--model", f"{url}#stub", "--data", "smallworld/test?n=2", "--store", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["vold-bench", *words, "--workers", "0"])
        with pytest.raises(SystemExit) as left:
            main.main()
    told = capsys.readouterr().err
    assert left.value.code == 4 and f"HTTP 401 ({ESCAPED}); give the right key" in told
    assert "\x1b" not in told and "\x07" not in told


def test_why_a_judge_gave_no_verdict_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    judge = {"model": "reader", "prompt": "judge@1", "asked": 1, "answered": 0, "missing": [{"why": HOSTILE}]}
    show_judged("model", a_summary({}), judge, Path("f"), Console())
    told = capsys.readouterr().out
    assert f"do not count as wrong: {ESCAPED}; run the command again" in told and "\x1b" not in told
