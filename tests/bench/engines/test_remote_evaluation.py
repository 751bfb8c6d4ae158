"""``vold-bench eval`` against a server: a model that is only a URL and a name."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.engines.endpoint import is_remote, read_endpoint, write_endpoint
from bench.errors import ConfigurationError, InfrastructureError
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.exports import export
from bench.review.results import find_result
from bench.smallworld.records import write_datasets
from bench.store import Store
from tests.helpers.engine_requests import stats
from tests.helpers.stub_server import stub_server
from vold.execution import EvaluationExecution, Execution

REPLIES = json.dumps({"solve": "Answer: 7"})


def evaluated(tmp_path: Path, model: str, *options: str):
    arguments = ["eval", "--model", model, "--data", "smallworld/test?n=8", "--benchmark", "mathvision,logicvista"]
    arguments += ["--store", str(tmp_path / "store"), "--workers", "0", "--json", *options]
    return CliRunner().invoke(app, arguments)


def test_a_model_behind_a_url_is_evaluated_and_kept(tmp_path: Path):
    with stub_server("--keep", "--replies", REPLIES) as (url, _):
        done = evaluated(tmp_path, f"{url}#stub", "--samples", "3", "--temperature", "1")
        assert done.exit_code == 0, done.output
        bodies = stats(url)["bodies"]
        again = evaluated(tmp_path, f"{url}#stub", "--samples", "3", "--temperature", "1")
        assert again.exit_code == 0 and stats(url)["requests"] == len(bodies) == 16
    assert {body["n"] for body in bodies} == {3} and len({body["seed"] for body in bodies}) == 16
    assert all(any(part["type"] == "image_url" for part in body["messages"][0]["content"]) for body in bodies)
    summary = json.loads(done.stdout[done.stdout.index("{") :])
    assert summary["model"]["name"] == "stub"
    store = Store(tmp_path / "store")
    assert find_result("stub", store).id == find_result(f"{url}#stub", store).id == summary["stage"]
    exported = export(find_result("stub", store).path, tmp_path / "exported", ["lm-eval"])["lm-eval"]
    assert {path.parent.name for path in exported} == {"stub"}
    assert summary["engine"]["name"] == "openai" and summary["engine"]["model"] == "stub"
    for part in summary["benchmarks"].values():
        assert (part["n"], part["expected"]) == (24, 24) and part["states"]["error"] == 0


def test_what_was_not_answered_is_asked_again_and_the_rest_is_kept(tmp_path: Path):
    faults = json.dumps({"solve": ["500"] * 2})
    with stub_server("--faults", faults, "--replies", REPLIES) as (url, process):
        done = evaluated(tmp_path, f"{url}#stub")
        assert done.exit_code == 0, done.output
        assert stats(url)["requests"] == 18
        shutil.rmtree(tmp_path / "store")
        process.kill()
        process.wait()
        gone = evaluated(tmp_path, f"{url}#stub")
        assert isinstance(gone.exception, InfrastructureError) and "no server answers there" in str(gone.exception)


def _counts(done) -> tuple[int, int]:
    assert done.exit_code == 0, done.output
    parts = json.loads(done.stdout[done.stdout.index("{") :])["benchmarks"].values()
    return sum(part["n"] for part in parts), sum(part["expected"] for part in parts)


NO_RETRIES = ("--execution", "client.retries=0")
ACCEPTED = (*NO_RETRIES, "--execution", "evaluation.accept_missing=true")


@pytest.mark.slow
def test_what_is_never_answered_may_be_left_out_and_is_asked_by_the_next_run_that_accepts_no_gaps(tmp_path: Path):
    with stub_server("--keep", "--replies", REPLIES) as (url, _):
        assert evaluated(tmp_path, f"{url}#stub").exit_code == 0
        asked = ["".join(p.get("text", "") for p in b["messages"][0]["content"]) for b in stats(url)["bodies"]]
    missing = asked.count(asked[0])
    assert missing < len(asked) == 16
    # Twice in the first run, once in the second; then they are answered.
    faults = json.dumps({rf"\A{re.escape(asked[0])}\Z": ["500"] * 3 * missing})
    with stub_server("--faults", faults, "--replies", REPLIES) as (url, _):
        refused = evaluated(tmp_path, f"{url}#stub", *NO_RETRIES)
        assert isinstance(refused.exception, InfrastructureError)
        assert f"no answer to {missing} of 16 requests" in str(refused.exception)
        for _ in range(2):
            assert _counts(evaluated(tmp_path, f"{url}#stub", *ACCEPTED)) == (16 - missing, 16)
            assert stats(url)["requests"] == 16 + 2 * missing, "with the gaps accepted it is done"
        assert _counts(evaluated(tmp_path, f"{url}#stub", *NO_RETRIES)) == (16, 16)
        assert stats(url)["requests"] == 16 + 3 * missing
        assert _counts(evaluated(tmp_path, f"{url}#stub", *NO_RETRIES)) == (16, 16)
        assert stats(url)["requests"] == 16 + 3 * missing


@pytest.mark.slow
def test_a_dead_server_ends_the_run_and_leaves_out_no_responses(tmp_path: Path):
    faults = json.dumps({"solve": [""] * 10 + ["die"]})
    with stub_server("--faults", faults, "--replies", REPLIES) as (url, _):
        gone = evaluated(
            tmp_path, f"{url}#stub", *ACCEPTED, "--concurrency", "1", "--execution", "client.max_concurrency=1"
        )
    assert isinstance(gone.exception, InfrastructureError) and "no server answers there" in str(gone.exception)
    assert not list(tmp_path.glob("store/eval-*"))
    (log,) = tmp_path.glob("store/.work/eval-*/responses.jsonl")
    assert len(log.read_text().splitlines()) == 10


@pytest.mark.parametrize(("fault", "words"), [("400", "told to answer 400"), ("filtered", "content_filter")])
def test_a_server_that_refuses_everything_leaves_no_result_and_no_response(tmp_path: Path, fault: str, words: str):
    with stub_server("--faults", json.dumps({"solve": [fault] * 16}), "--replies", REPLIES) as (url, _):
        done = evaluated(tmp_path, f"{url}#stub")
        assert isinstance(done.exception, ConfigurationError) and words in str(done.exception)
        assert "".join(log.read_text() for log in tmp_path.glob("store/**/responses.jsonl")) == ""
        mended = evaluated(tmp_path, f"{url}#stub")
    assert mended.exit_code == 0, mended.output
    summary = json.loads(mended.stdout[mended.stdout.index("{") :])
    assert all(part["states"]["error"] == 0 for part in summary["benchmarks"].values())


def test_a_refusal_in_words_that_no_file_can_hold_is_that_items_error(tmp_path: Path):
    faults = json.dumps({"solve": ["", "400"]})
    with stub_server("--faults", faults, "--words", "bad \udcff", "--replies", REPLIES) as (url, _):
        done = evaluated(tmp_path, f"{url}#stub")
    assert done.exit_code == 0, done.output
    (table,) = tmp_path.glob("store/**/out/responses.parquet")
    texts = pd.read_parquet(table)["text"].tolist()
    assert texts.count("HTTP 400: bad \ufffd") == 1 and len(texts) == 16


def test_a_rerun_whose_only_request_is_refused_takes_that_as_the_items_error(tmp_path: Path):
    data = {"mathvision": write_datasets("test", 4, tmp_path / "data")["mathvision"]}
    run, config = tmp_path / "run", EvalConfig(engine="openai", max_tokens=32)
    log = run / "responses.jsonl"
    execution = Execution(evaluation=EvaluationExecution(workers=0))
    with stub_server("--faults", json.dumps({"solve": ["", "", "", "", "400"]}), "--replies", REPLIES) as (url, _):
        model = write_endpoint(f"{url}#stub", tmp_path)
        evaluate(config, model=model, data=data, run=run, seed=0, execution=execution)
        *kept, lost = log.read_text().splitlines(keepends=True)
        log.write_text("".join(kept))
        evaluate(config, model=model, data=data, run=run, seed=0, execution=execution)
    again = json.loads(log.read_text().splitlines()[-1])
    assert (again["id"], again["finish_reason"]) == (json.loads(lost)["id"], "error")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("http://127.0.0.1:9/v1", (), "#MODEL"),
        ("http:///v1#m", (), "not a server's URL"),
        ("http://[x#m", (), "'http://[x' is not a server's URL"),
        ("smallworld/student_a", ("--judge", "http://[x", "--judge-model", "m"), "'http://[x' is not a server's URL"),
        (
            "smallworld/student_a",
            ("--temperature", "inf", "--samples", "2"),
            "temperature: Input should be a finite number",
        ),
        ("http://127.0.0.1:9/v1#m", ("--engine", "builtin"), "The engine openai is for"),
        ("smallworld/student_a", ("--engine", "openai"), "The engine openai is for"),
        ("http://127.0.0.1:9/v1#m", ("--dry-run", "--engine", "builtin"), "the engine is builtin"),
        ("http://127.0.0.1:9/v1#m", ("--key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, model: str, options: tuple[str, ...], message: str):
    done = evaluated(tmp_path, model, *options)
    assert isinstance(done.exception, ConfigurationError) and message in str(done.exception)


def test_the_description_names_what_is_wrong_in_it(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"there is no endpoint\.json"):
        read_endpoint(tmp_path)
    (tmp_path / "endpoint.json").write_text('{"url": "http://h/v1", "key": "secret"}')
    assert is_remote(tmp_path)
    with pytest.raises(ConfigurationError, match="must contain url and model"):
        read_endpoint(tmp_path)
