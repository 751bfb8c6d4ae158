"""The display of a single problem."""

import json
import shutil
from pathlib import Path

import pytest

from bench.benchmarks import registry
from bench.cli.show import show
from bench.errors import ConfigurationError
from bench.smallworld.records import write_datasets
from bench.store import Store
from tests.helpers.evaluation_results import problems, write_result


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A result with its records and image, and a response with control characters for the terminal."""
    from PIL import Image

    store = Store(tmp_path / "store")
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (30, 20)).save(data / "a.png")
    row = {"id": "7", "question": "1 + 2?\n<image1>", "options": [], "answer": "3", "image": "a.png", "level": 1,
           "subject": "counting"}  # fmt: skip
    (data / "test.jsonl").write_text(json.dumps(row) + "\n")
    home = store.path("eval-0123")
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e it is [bold]\\boxed{4}[/bold]"
    write_result(home / "out", registry.read_benchmark("mathvision", data).problems, {"7": [hostile, "\\boxed{3}"]})
    (home / "spec.json").write_text(json.dumps({"locations": {"data.mathvision": str(data)}}))
    (home / "status.json").write_text("{}")
    return store


def test_a_problem_is_shown_with_record_image_prompt_responses_and_verdicts(store, capsys):
    show("7", store=store.root)
    shown = capsys.readouterr().out
    for text in ("reference answer: 3 (integer)", "a.png (30 x 20", "prompt, before the chat template", "[image]",
                 "response 1 (1 tokens, stop)", "wrong by boxed", "right by boxed"):  # fmt: skip
        assert text in shown


def test_control_characters_of_a_model_are_shown_as_text(store, capsys):
    show("7", "eval-0123", store=store.root)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert r"\x1b]0;owned\x07\x1b[2J\u202e it is [bold]\boxed{4}[/bold]" in shown


def test_all_of_it_is_in_the_json(store, capsys):
    show("7", None, "mathvision", store.root, as_json=True)
    found = json.loads(capsys.readouterr().out)["problems"][0]
    assert found["problem"]["answer"] == "3" and found["images"][0]["width"] == 30
    assert [sample["state"] for sample in found["samples"]] == ["wrong", "right"]


def test_a_judges_verdict_is_below_the_verdict_of_the_rules(store, capsys):
    judged = {"state": "right", "correct": True, "extracted": "\x1b[2J3", "normalised": "3", "method": "judge:a-judge"}
    rows = [{"benchmark": "mathvision", "id": "7", "sample": 0, **judged},
            {"benchmark": "mathvision", "id": "8", "sample": 1, **judged}]  # fmt: skip
    file = store.path("eval-0123") / "judged-a-judge.json"
    summary = json.loads((store.path("eval-0123") / "out" / "summary.json").read_text())
    kept = {name: summary[name] for name in ("config", "model", "scoring")}
    file.write_text(json.dumps({**kept, "judge": {"model": "a-judge\x1b[2J"}, "rows": rows}))
    show("7", store=store.root)
    shown = capsys.readouterr().out
    first, second = shown.split("response 1")
    assert "verdict: wrong by boxed" in first and "with judge a-judge\\x1b[2J: right by judge:a-judge" in first
    assert "a-judge" not in second and "\x1b" not in shown
    show("7", store=store.root, as_json=True)
    assert json.loads(capsys.readouterr().out)["problems"][0]["judged"] == [
        {"judge": "a-judge\x1b[2J", "sample": 0, **judged}
    ]
    copy = shutil.copytree(store.path("eval-0123") / "out", store.root / "copy")
    show("7", str(copy), store=store.root)
    assert "with judge" not in capsys.readouterr().out
    shutil.copy(file, copy)
    show("7", str(copy), store=store.root)
    assert "with judge" in capsys.readouterr().out
    file.write_text(json.dumps({**kept, "model": {}, "judge": {"model": "another's"}, "rows": rows}))
    show("7", store=store.root)
    assert "with judge" not in capsys.readouterr().out, "it read another model's responses"
    file.write_text('{"rows": [{}]}')
    with pytest.raises(ConfigurationError, match=r"judged-a-judge\.json: does not hold a judge's verdicts"):
        show("7", store=store.root)


def test_the_record_comes_from_the_result_if_the_data_are_absent(store, capsys):
    (store.path("eval-0123") / "spec.json").unlink()
    show("7", store=store.root)
    shown = capsys.readouterr().out
    assert "not where the evaluation read them" in shown and "reference answer: 3" in shown and "response 0" in shown


def test_a_changed_record_is_not_shown_with_the_old_verdict(store, tmp_path, capsys):
    file = tmp_path / "data" / "test.jsonl"
    file.write_text(file.read_text().replace('"3"', '"777"'))
    show("7", store=store.root)
    shown = capsys.readouterr().out
    assert (
        "reference answer: 3 " in shown and "777" not in shown and "has another record or image of that id now" in shown
    )
    file.write_text("{")
    show("7", store=store.root)
    shown = capsys.readouterr().out
    assert "reference answer: 3 " in shown and "cannot be read any more" in shown


@pytest.mark.parametrize("benchmark", ["mmmu_pro", "mathvista"])
def test_images_of_a_generated_data_set_are_found(benchmark, tmp_path, capsys):
    data = write_datasets("test", 2, tmp_path / "data")[benchmark]
    dataset = registry.read_benchmark(benchmark, data)
    asked = dataset.problems
    home = Store(tmp_path / "store").path("eval-0123")
    texts = {problem.id: ["\\boxed{3}"] for problem in asked}
    write_result(home / "out", asked, texts, dataset=dataset.name)
    (home / "spec.json").write_text(json.dumps({"locations": {f"data.{benchmark}": str(data)}}))
    (home / "status.json").write_text("{}")
    show(asked[0].id, store=tmp_path / "store")
    shown = capsys.readouterr().out
    assert "absent" not in shown and "bytes)" in shown


def test_damaged_tables_are_named_with_the_fix(store):
    table = store.path("eval-0123") / "out" / "verdicts.parquet"
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(ConfigurationError, match=r"verdicts\.parquet: cannot be read .*--fresh"):
        show("7", store=store.root)


def test_an_id_that_was_not_asked_is_refused(store):
    with pytest.raises(ConfigurationError, match="no finished evaluation"):
        show("8", store=store.root)
    with pytest.raises(ConfigurationError, match="not answered"):
        show("8", "eval-0123", store=store.root)


def test_a_synthetic_problem_is_labelled_and_found_by_its_data_sets_name(store, capsys):
    home = store.path("eval-0456")
    write_result(home / "out", problems(["7"]), {"7": ["\\boxed{3}"]}, dataset="smallworld-chain-free")
    (home / "status.json").write_text("{}")
    show("7", "eval-0456", "smallworld-chain-free", store.root)
    text = capsys.readouterr().out
    assert "smallworld-chain-free (synthetic) 7" in text and "mathvision" not in text
    with pytest.raises(ConfigurationError, match="did you mean 'smallworld-chain-free'"):
        show("7", "eval-0456", "smallworld-chain", store.root)


@pytest.mark.parametrize("name", ["mathvision:7", "7"])
def test_a_problem_is_found_by_the_name_that_compare_prints(store, capsys, name):
    show(name, store=store.root, as_json=True)
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["benchmark"], problem["id"]) == ("mathvision", "7")
