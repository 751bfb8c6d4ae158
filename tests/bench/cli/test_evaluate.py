"""What ``vold-bench eval`` asks, shows while it runs, and prints at the end."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import binomtest

from bench.benchmark_data import data_sources
from bench.benchmarks.registry import BENCHMARKS
from bench.cli import evaluate
from bench.cli.parsing import execution_options, problem_ids, requested_splits
from bench.display import evaluation, summary
from bench.display.evaluation import EvaluationView
from bench.errors import ConfigurationError
from bench.evaluate_models import EvaluationOutputs, dry_run, evaluate_models
from bench.evaluation.response_log import log_line
from bench.evaluation_request import EvaluationRequest, model_labels, plan_stages, selections
from bench.records import Response
from bench.store import Store
from bench.summary import read
from tests.helpers.evaluation_results import a_benchmark_summary, problems, write_result


def test_ids_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("q1\n\n q 2,x \n")
    assert problem_ids(["q1, q2,"]) == ["q1", "q2"]
    assert problem_ids([f"@{tmp_path}/ids.txt"]) == ["q1", "q 2,x"]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        problem_ids(["@no/such/file"])


def test_models_with_the_same_last_part_have_their_whole_path_as_label() -> None:
    assert model_labels(["runs/a/last", "runs/b/last", "smallworld/student_a"]) == {
        "runs/a/last": "runs/a/last", "runs/b/last": "runs/b/last", "student_a": "smallworld/student_a",
    }  # fmt: skip
    assert model_labels(["runs/a/out", "runs/b/out"]) == {"a": "runs/a/out", "b": "runs/b/out"}
    with pytest.raises(ConfigurationError, match="twice"):
        model_labels(["a", "a"])


def test_a_directory_is_one_model_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert model_labels(["."]) == {"a": "."} and model_labels(["x/..", "x/"]) == {"a": "x/..", "x": "x/"}
    (tmp_path / "a" / "latest").symlink_to("x")
    assert model_labels(["latest"]) == {"latest": "latest"}
    for other in ("./x", "../a/x", "latest", str(tmp_path / "a" / "x")):
        with pytest.raises(ConfigurationError, match="twice"):
            model_labels(["x", other])
    assert model_labels(["http://h/v1#org/m"]) == {"m": "http://h/v1#org/m"}


@pytest.mark.parametrize("entry", ["mathvision=", "", "mathvision= "])
def test_data_without_a_place_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="names no directory"):
        data_sources([entry], [])


def test_a_directory_may_bear_a_benchmarks_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mathvision").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_sources(["mathvision"], ["mathvision"]) == {"mathvision": "mathvision"}


def shown(out: Path, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    summary.show("student", read(out), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("samples", [1, 2])
def test_a_data_sets_name_is_shown_as_it_is(tmp_path: Path, samples: int) -> None:
    given = {"a": [r"\boxed{3}"] * samples}
    text = shown(write_result(tmp_path, problems(["a"]), given, dataset="a[/b]\x1b[31m"), 120)
    assert r"a[/b]\x1b[31m" in text and "\x1b" not in text


def test_the_table_has_interval_mde_baselines_and_what_is_missing_in_80_columns(tmp_path: Path) -> None:
    texts = {"a": [r"\boxed{3}"], "b": [r"\boxed{4}"], "c": ["I do not know"]}
    text = shown(write_result(tmp_path, problems(["a", "b", "c", "d"]), texts))
    low, high = binomtest(1, 3).proportion_ci(method="wilson")
    assert re.search(rf"mathvision test +3/4 +33\.3 \[{100 * low:.1f}, {100 * high:.1f}\] +[\d.]+ +0\.0 / 100\.0", text)
    assert "1 unparsed, 1 missing" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_several_samples_have_a_line_for_each_measure(tmp_path: Path) -> None:
    texts = {"a": [r"\boxed{3}", r"\boxed{4}"], "b": [r"\boxed{4}", r"\boxed{3}"]}
    text = shown(write_result(tmp_path, problems(["a", "b"]), texts))
    for measure, value in (("mathvision test, avg@2 +4/4", 50), ("  pass@2 +2", 100), ("  maj@2 +2", 50)):
        assert re.search(rf"{measure} +{value}\.0 \[[\d.]+, [\d.]+\] ", text)


def lines(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[float, int, int, dict[str, float]]]) -> list[str]:
    """What the plain view prints for calls at these seconds."""
    now = 0.0
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=300)
    view = EvaluationView(console, "student", 2)
    for now, done, total, metrics in calls:  # noqa: B007  the clock reads it
        view(done, total, metrics)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_log_has_rates_accuracy_with_its_interval_faults_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def metrics(done: int) -> dict[str, float]:
        shares = {"right": 1 / 4, "scored": 1, "unparsed": 1 / 10, "truncated": 0, "error": 0, "tokens": 7}
        return {name: share * done for name, share in shares.items()}

    # Ten seconds of loading, then 20 responses (10 problems) a second.
    calls = [(0.0, 0, 2000, {}), *((10.0 + k, 20 * (k + 1), 2000, metrics(20 * (k + 1))) for k in range(100))]
    found = lines(monkeypatch, calls)
    assert len(found) == 4 and found[-1].startswith("student  2000/2000")
    text = next(line for line in found if "10 items/s" in line)
    assert "140 tokens/s" in text and "25.0 % right" in text and "unparsed 10.0 %" in text and "truncated 0.0 %" in text
    done = int(text.split()[1].partition("/")[0])
    low, high = binomtest(done // 8, done // 2).proportion_ci(method="wilson")
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text
    left = (2000 - done) / 20
    assert f"{int(left) // 60}:{round(left) % 60:02d} left" in text


def test_answers_that_come_in_bursts_do_not_count_the_first_burst_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 responses every 20 seconds are 1.6 problems of two samples a second."""
    bursts = [
        (20.0 * k, done, 10_000, {"tokens": 0.0}) for k in range(1, 5) for done in range(64 * (k - 1), 64 * k + 1)
    ]
    assert "1.6 items/s" in lines(monkeypatch, bursts)[-1]


@pytest.fixture
def request_(random_student: Path, tmp_path: Path) -> EvaluationRequest:
    from PIL import Image

    root = tmp_path / "data"
    root.mkdir()
    Image.new("RGB", (56, 56), (200, 30, 30)).save(root / "a.png")
    rows = [{"id": f"q{k}", "question": f"How many dots?\n<image1> {'again ' * k}", "options": [], "answer": "3",
             "image": "a.png", "level": 1, "subject": "counting"} for k in range(5)]  # fmt: skip
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"samples": 2, "temperature": 1.0, "max_tokens": 6}
    return EvaluationRequest([str(random_student)], {"mathvision": str(root)}, settings, 0, {"device": "cpu"})


def test_a_dry_run_counts_requests_and_tokens_and_what_is_answered_and_asks_nothing(
    request_: EvaluationRequest, random_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.engines.encoding import EncodingPreparer
    from bench.prompts import render

    def counted() -> dict[str, Any]:
        evaluate.show_dry_run(store, request_, EvaluationOutputs(), as_json=True)
        return json.loads(capsys.readouterr().out)[random_student.name]["benchmarks"]["mathvision"]

    store = Store(tmp_path / "store")
    config, (selection,) = selections(plan_stages(store, request_)[random_student.name], store)
    reader = EncodingPreparer(random_student, None)
    lengths = [len(reader.read_prompt(render(p, config.template)).prompt_ids) for p in selection.problems]  # type: ignore[union-attr]
    part = counted()
    assert (part["requests"], part["responses"], part["answered"]) == (5, 10, 0)
    assert (part["prompt_tokens"], part["completion_tokens"]) == (sum(lengths), 10 * 6)
    assert not any(store.root.glob("eval-*"))

    work = store.work(plan_stages(store, request_)[random_student.name].id)
    work.mkdir(parents=True)
    known = [Response("mathvision", id, k, "3", 1, "stop") for id, k in (("q0", 0), ("q0", 1), ("q1", 0))]
    (work / "responses.jsonl").write_bytes(b"".join(map(log_line, known)) + b"cut off")
    part = counted()
    assert (part["requests"], part["responses"], part["answered"]) == (4, 7, 3)
    assert part["prompt_tokens"] == sum(lengths[1:])


@pytest.mark.parametrize("fault", ["switch", "engine", "images"])
def test_a_dry_run_refuses_what_the_run_refuses(
    fault: str, request_: EvaluationRequest, random_student: Path, tmp_path: Path
) -> None:
    settings, words = {"no_think": "off"}, "no switch enable_thinking"
    if fault == "engine":
        settings, words = {"engine": "openai"}, "the engine is openai"
    if fault == "images":
        settings, words = {"min_pixels": 9999, "max_pixels": 10000}, "outside of"
    asked = replace(request_, settings={**(request_.settings or {}), **settings})
    for act in (dry_run, evaluate_models):
        with pytest.raises(ValueError, match=words):
            act(Store(tmp_path / "store"), asked)


def test_a_dry_run_of_a_model_behind_a_server_asks_nobody_and_counts_all_but_prompt_tokens(
    request_: EvaluationRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, remote = Store(tmp_path / "store"), replace(request_, models=["http://127.0.0.1:9/v1#m"])
    evaluate.show_dry_run(store, remote, EvaluationOutputs(), as_json=True)
    part = json.loads(capsys.readouterr().out)["m"]["benchmarks"]["mathvision"]
    assert (part["requests"], part["responses"], part["completion_tokens"]) == (5, 10, 60)
    assert (part["prompt_tokens"], part["counted"], part["unreadable"]) == (None, 0, 0)
    evaluate.show_dry_run(store, remote, EvaluationOutputs())
    shown = capsys.readouterr().out
    assert "not known" in shown and "cannot be asked" not in shown


def test_scores_of_clean_problems_need_a_page_and_an_audit_before_anything_starts(
    request_: EvaluationRequest, tmp_path: Path
) -> None:
    store, file = Store(tmp_path / "store"), tmp_path / "audit.json"
    with pytest.raises(ConfigurationError, match="--report"):
        evaluate_models(store, request_, EvaluationOutputs(clean_of=[file]))
    with pytest.raises(ConfigurationError, match=r"audit\.json.*data audit"):
        evaluate_models(store, request_, EvaluationOutputs(reports=tmp_path / "reports", clean_of=[file]))
    assert not any(store.root.glob("eval-*"))


def test_a_blind_evaluation_is_called_blind(request_: EvaluationRequest, random_student: Path, tmp_path: Path) -> None:
    blind = replace(request_, settings={"blind": True})
    assert list(plan_stages(Store(tmp_path / "store"), blind)) == [f"{random_student.name} (blind)"]


def test_an_unknown_id_is_refused_before_anything_starts(request_: EvaluationRequest, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    wrong = replace(request_, settings={"ids": ["q11"]}, execution={})
    with pytest.raises(ConfigurationError, match="'q11' is not a problem of mathvision; did you mean 'q1'"):
        evaluate_models(store, wrong)
    assert not store.root.joinpath(".work").exists()


def test_a_split_is_named_for_one_benchmark_or_for_all_that_have_it() -> None:
    every = list(BENCHMARKS)
    assert requested_splits(["vision"], every) == {"mmmu_pro": "vision"}
    assert requested_splits(["mmmu_pro=standard4", "testmini"], every) == {
        "mmmu_pro": "standard4",
        "mathvision": "testmini",
    }
    assert requested_splits(["test"], ["logicvista"]) == {}, "its only split is asked anyway"
    for text, words in (("visoin", "did you mean 'vision'"), ("mathvista=vision", "valid names: testmini"),
                        ("mathvison=test", "did you mean 'mathvision'")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=words):
            requested_splits([text], every)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["vision", "mmmu_pro=standard4"], "mmmu_pro has the split vision already"),
        (["mathvision=test", "mathvision=testmini"], "mathvision has the split test already"),
        (["mathvista=testmini"], "mathvista is not evaluated; add its data, or choose from mmmu_pro, mathvision"),
    ],
)
def test_a_second_split_and_one_of_a_benchmark_that_is_not_asked_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        requested_splits(texts, ["mmmu_pro", "mathvision"])
    assert requested_splits(["vision", "mmmu_pro=vision"], ["mmmu_pro"]) == {"mmmu_pro": "vision"}


def test_generated_data_have_one_split_which_changes_no_identity(request_: EvaluationRequest, tmp_path: Path) -> None:
    store, made = Store(tmp_path / "store"), {"mmmu_pro": "smallworld/test?n=2", "mathvision": "smallworld/test?n=2"}

    def stage(split: dict[str, str] | None) -> str:
        (found,) = plan_stages(store, replace(request_, sources=made, settings={"split": split})).values()
        return found.id

    assert stage({"mmmu_pro": "vision", "mathvision": "test"}) == stage(None)
    with pytest.raises(
        ConfigurationError, match=r"mmmu_pro=standard10: smallworld-.* is generated and has only the split vision"
    ):
        stage({"mmmu_pro": "standard10"})


def test_the_split_that_is_named_is_asked_and_belongs_to_the_identity(
    request_: EvaluationRequest, tmp_path: Path
) -> None:
    root = Path(request_.sources["mathvision"])
    (root / "testmini.jsonl").write_text((root / "test.jsonl").read_text().splitlines()[0] + "\n")
    store, mini = Store(tmp_path / "store"), replace(request_, settings={"split": {"mathvision": "testmini"}})
    (stage,), (whole,) = plan_stages(store, mini).values(), plan_stages(store, replace(request_, settings={})).values()
    _, (selection,) = selections(stage, store)
    assert (selection.dataset.split, len(selection.problems)) == ("testmini", 1)
    assert stage.id != whole.id and len(selections(whole, store)[1][0].problems) == 5


def test_a_split_that_lacks_an_image_is_passed_over_with_a_message_and_for_blind_runs_too(
    request_: EvaluationRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = Path(request_.sources["mathvision"]), Store(tmp_path / "store")
    rows = (root / "test.jsonl").read_text()
    (root / "testmini.jsonl").write_text(rows.splitlines()[0] + "\n")
    (root / "test.jsonl").write_text(rows.replace("a.png", "b.png"))
    said = "test passed over: record 'q0': no image b.png (5 of 5 images are missing)"
    for blind in (None, True):
        asked = replace(request_, settings={"max_tokens": 2, "blind": blind})
        evaluate.show_dry_run(store, asked, EvaluationOutputs())
        ahead = capsys.readouterr().out
        assert re.search(r"mathvision testmini +1 +1 +0 ", ahead) and said in " ".join(ahead.split())
        evaluate.run(store, asked, EvaluationOutputs(out=tmp_path / "out"), as_json=False)
        printed = capsys.readouterr()
        assert f"mathvision: {said}" in printed.err and said in " ".join(printed.out.split())
        part = json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]["mathvision"]
        assert (part["split"], part["n"], list(part["passed_over"])) == ("testmini", 1, ["test"])


def test_fresh_asks_again_and_keeps_what_was_there(
    request_: EvaluationRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    outputs = EvaluationOutputs(out=tmp_path / "copy", export=tmp_path / "forms")
    evaluate.run(store, request_, outputs, as_json=True)
    first = json.loads(capsys.readouterr().out)
    assert (tmp_path / "copy" / "summary.json").is_file() and (tmp_path / "forms" / "lm-eval").is_dir()
    assert first["benchmarks"]["mathvision"]["n"] == 10

    evaluate.run(store, replace(request_, fresh=True), EvaluationOutputs(), as_json=False)
    again = store.path(first["stage"])
    kept = again.with_name(f"{again.name}.1")
    assert (kept / "out" / "summary.json").read_bytes() == (again / "out" / "summary.json").read_bytes()
    assert "mathvision test, avg@2" in capsys.readouterr().out


def test_every_setting_of_execution_can_be_given_and_the_last_counts(
    request_: EvaluationRequest, tmp_path: Path
) -> None:
    given = ["vllm.max_length=64", "evaluation.accept_missing=true", "evaluation.hang_seconds=9", "rollout_batch=3",
             "rollout_batch=4"]  # fmt: skip
    how = execution_options({"device": "cpu", "dtype": None, "evaluation": {"workers": 1}}, given)
    (stage,) = plan_stages(Store(tmp_path / "store"), replace(request_, execution=how)).values()
    found = stage.spec.execution
    assert (found["vllm"]["max_length"], found["rollout_batch"], found["dtype"]) == (64, 4, "float32")
    assert {name: found["evaluation"][name] for name in ("accept_missing", "hang_seconds", "workers")} == {
        "accept_missing": True, "hang_seconds": 9.0, "workers": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vllm.max_lenght=64", r"--execution vllm\.max_lenght=64: .*did you mean 'vllm\.max_length'"),
        ("vllm=64", "unknown setting 'vllm'"),
        ("rollout_batch", "expected the form SETTING=VALUE"),
        ("rollout_batch=[", "not YAML"),
    ],
)
def test_an_unknown_setting_of_execution_is_refused_with_the_nearest(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        execution_options({}, [text])


def test_a_value_that_execution_refuses_is_named(request_: EvaluationRequest, tmp_path: Path) -> None:
    for how, words in (
        (execution_options({}, ["vllm.max_length=none"]), r"execution\.vllm\.max_length: .*found 'none'"),
        ({"dtype": "float16"}, r"execution\.dtype: .*bfloat16.*found 'float16'"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            plan_stages(Store(tmp_path / "store"), replace(request_, execution=how))


def test_the_number_format_of_the_command_line_is_another_evaluation(
    request_: EvaluationRequest, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from bench.cli.main import app

    def stage(*options: str) -> str:
        data = f"mathvision={request_.sources['mathvision']}"
        words = ["eval", "--model", request_.models[0], "--data", data, "--store", str(tmp_path / "store")]
        done = CliRunner().invoke(app, [*words, "--dry-run", "--json", *options], catch_exceptions=False)
        (found,) = json.loads(done.stdout).values()
        return found["stage"]

    assert stage() == stage("--dtype", "float32") == stage("--execution", "vllm.max_length=64")
    assert stage() != stage("--dtype", "bfloat16") == stage("--execution", "dtype=bfloat16")


def test_the_table_names_the_split_where_a_benchmark_has_several_and_synthetic_data_by_their_own_name(
    tmp_path: Path,
) -> None:
    given = {"a": [r"\boxed{3}"]}
    assert "mathvision test " in shown(write_result(tmp_path / "real", problems(["a"]), given))
    made = shown(write_result(tmp_path / "made", problems(["a"]), given, dataset="smallworld-chain-free"))
    assert "mathvision" not in made and "synthetic problems, not a benchmark: smallworld-chain-free" in made
    part = replace(a_benchmark_summary("logicvista", 1), synthetic=False)
    assert summary.data_name("logicvista", part) == "logicvista"
