"""A judge on a finished evaluation: its verdicts are next to the strict tables and never change them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.cli.main import app
from bench.errors import ConfigurationError, InfrastructureError
from bench.records import Verdict
from bench.review.judged import judge_result
from bench.scoring.judge import Judge, JudgeCase, JudgeConfig, JudgeVerdicts
from tests.helpers.engine_requests import stats
from tests.helpers.evaluation_results import problems, write_result
from tests.helpers.stub_server import stub_server

VAGUE = "Hmm, it might well be what I said before"
CODE = r"delimited by the code (\w+),"


class Reader(Judge):
    """A judge without a server: right for ids that start with r, missing for m, and no answer for all others."""

    def judge(self, cases: Iterable[JudgeCase]) -> JudgeVerdicts:
        self.asked: list[JudgeCase] = [case for case in cases if case.verdict.state == "unparsed"]
        judged = JudgeVerdicts({}, {})
        for row in self.asked:
            if row.verdict.id.startswith("m"):
                judged.missing[row.key] = "no form"
            else:
                read = ("right", "3") if row.verdict.id.startswith("r") else ("unparsed", "")
                judged.verdicts[row.key] = Verdict(*row.key, read[0], read[1], read[1], self.method)
        return judged


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """Four problems, two samples each: one of every kind is unparsed."""
    texts = {
        "a": [r"\boxed{3}", r"\boxed{4}"],
        "r": [VAGUE, r"\boxed{4}"],
        "n": [VAGUE, VAGUE],
        "m": [VAGUE, r"\boxed{3}"],
    }
    write_result(tmp_path / "out", problems(list(texts)), texts)
    return tmp_path


def test_judged_rows_are_next_to_the_strict_tables_which_do_not_change(stage: Path) -> None:
    before = {path.name: path.read_bytes() for path in (stage / "out").iterdir()}
    reader = Reader(JudgeConfig(url="http://h/v1", model="org/reader"), stage)
    found = judge_result(reader, stage)
    assert {path.name: path.read_bytes() for path in (stage / "out").iterdir()} == before
    assert [row.text for row in reader.asked] == [VAGUE] * 4
    (file,) = stage.glob("judged-org-reader-*.json")
    held = json.loads(file.read_text())
    assert held == found.to_json() and file == found.file
    told = held["judge"]
    assert (told["model"], told["asked"], told["answered"], [row["id"] for row in told["missing"]]) == (
        "org/reader", 4, 3, ["m"],
    )  # fmt: skip
    assert {(row["id"], row["sample"], row["state"], row["method"]) for row in held["rows"]} == {
        ("r", 0, "right", "judge:org/reader"), ("n", 0, "unparsed", "judge:org/reader"),
        ("n", 1, "unparsed", "judge:org/reader"),
    }  # fmt: skip
    part = held["benchmarks"]["mathvision"]
    # Of eight responses one is missing; right are one of a, one of r, and the one of m that is left.
    assert (part["n"], part["expected"], part["states"]["right"], part["states"]["wrong"]) == (7, 8, 3, 2)
    assert part["measures"]["avg@2"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0 + 1) / 4), "each problem weighs alike"
    assert part["measures"]["pass@2"]["items"] == 3


def test_judges_whose_names_differ_in_one_character_have_separate_files(stage: Path) -> None:
    for model in ("a/b", "a-b", "a:b"):
        judge_result(Reader(JudgeConfig(url="http://h/v1", model=model), stage), stage)
    models = [json.loads(file.read_text())["judge"]["model"] for file in stage.glob("judged-*.json")]
    assert sorted(models) == ["a-b", "a/b", "a:b"] and (stage / "judged-a-b.json").exists()


def evaluation(url: str, under: Path, *options: str) -> Result:
    words = ["eval", "--model", f"{url}#stub", "--data", "smallworld/test?n=2", "--benchmark", "mathvision"]
    words += ["--store", str(under / "store"), "--workers", "0", *options]
    return CliRunner().invoke(app, words, env={"COLUMNS": "100"})


def test_strict_results_are_kept_if_the_judge_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    faults = json.dumps({rf"(?s).*{CODE}": ["500"] * 50})
    with stub_server("--replies", json.dumps({"solve": VAGUE}), "--faults", faults) as (url, _):
        judge = ["--judge", url, "--judge-model", "stub", "--execution", "client.retries=1"]
        judge += ["--execution", "client.backoff_seconds=0", "--execution", "client.gone_after=1"]
        for options in ((), ("--json",)):
            done = evaluation(url, tmp_path, *judge, "--out", str(tmp_path / "out"), *options)
            assert isinstance(done.exception, InfrastructureError) and "judge does not answer" in str(done.exception)
            shown = json.loads(done.stdout)["benchmarks"]["mathvision"]["n"] if options else "2 unparsed" in done.stdout
            assert shown == (2 if options else True)
            assert (tmp_path / "out" / "summary.json").is_file()
        assert stats(url)["requests"] <= 2 + 2 * 4, "the settings of execution.client are the judge's too"


def test_a_judge_of_another_name_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    with stub_server() as (url, _):
        done = evaluation(url, tmp_path, "--judge", url, "--judge-model", "stubb")
        assert isinstance(done.exception, ConfigurationError) and "serves stub, not 'stubb'" in str(done.exception)
        assert stats(url)["requests"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--judge", "http://h/v1"], "go together"),
        (["--judge-key-env", "KEY"], "--judge-key-env: there is no judge"),
        (["--judge", "h", "--judge-model", "m"], "not a server's URL"),
        (["--clean-of", "a.json"], "add --report"),
        (["--clean-of", "a.json", "--report", "reports"], r"a\.json.*data audit"),
        (["--export", __file__], "--export .*: is a file"),
        (["--report", __file__], "--report .*: is a file"),
        (["--execution", "client.retries=-1"], r"execution\.client\.retries"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_by_a_dry_run_too(
    options: list[str], words: str, tmp_path: Path
) -> None:
    for dry in (["--dry-run"], []):
        done = CliRunner().invoke(app, ["eval", "--model", "smallworld/none", "--store", str(tmp_path), *options, *dry])
        assert isinstance(done.exception, ConfigurationError) and re.search(words, str(done.exception))


def test_eval_asks_a_judge_only_on_request_and_marks_its_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    replies = json.dumps({rf"(?s).*{CODE}": r"\1: 7", "solve": VAGUE})

    def evaluated(*options: str) -> str:
        words = ["eval", "--model", f"{url}#stub", "--data", "smallworld/test?n=4", "--benchmark", "mathvision"]
        words += ["--store", str(tmp_path / "store"), "--workers", "0", "--out", str(tmp_path / "out"), *options]
        done = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
        assert done.exit_code == 0, done.output
        return done.output

    with stub_server("--replies", replies) as (url, _):
        strict = evaluated()
        assert stats(url)["requests"] == 4 and "asked about" not in strict and "4 unparsed" in strict
        judged = evaluated("--judge", url, "--judge-model", "stub")
        assert stats(url)["requests"] == 8
        as_json = evaluated("--judge", url, "--judge-model", "stub", "--json")
        assert stats(url)["requests"] == 8, "nothing is asked twice"
    assert "stub, judge stub on what the rules left unparsed" in judged
    assert "asked about 4 unparsed responses, 4 answered" in judged
    assert judged.count("synthetic problems, not a benchmark: smallworld-chain-free") == 2
    found = json.loads(as_json[as_json.index("{") :])
    assert found["benchmarks"]["mathvision"]["states"]["unparsed"] == 4
    assert found["judge"]["benchmarks"]["mathvision"]["states"]["unparsed"] == 0
    assert json.loads((tmp_path / "out" / "judged-stub.json").read_text())["judge"]["answered"] == 4
