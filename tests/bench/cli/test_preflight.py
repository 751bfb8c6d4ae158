"""The preflight as a person runs it: on a train file, on a matrix file, with faults and without."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import main
from bench.errors import InfrastructureError
from vold.data.prompts import Prompt, write_jsonl

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def rl(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(str(i), f"{i}+1=?", str(i + 1)) for i in range(8)])
    file = tmp_path / "rl.yaml"
    file.write_text(
        "schema: vold-bench/train@1\nstudent: smallworld/student_a\nteacher: smallworld/teacher\n"
        "prompts: prompts.jsonl\nrun: run\nexecution: {device: cpu}\n"
        "config:\n  steps: 20\n  max_new_tokens: 64\n  prompts_per_step: 4\n  distill: {weight: 0.1}\n"
    )
    return file


def preflight(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main.app, ["preflight", *words], env={"COLUMNS": "160"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_healthy_run_exits_0_and_shows_templates_memory_and_every_theme(rl: Path) -> None:
    code, text = preflight(str(rl))
    assert code == 0
    assert "What is 12 + 30?<|im_end|>" in text and r"'<|im_start|>' 'assistant' '\n'" in text
    assert "KV cache of 20 rollouts" in text
    assert text.count(" ok ") == 11 and "0 errors, 0 warnings, 0 notes: ready to train" in text


def test_an_error_exits_4_and_names_file_line_and_fix(rl: Path) -> None:
    rl.write_text(rl.read_text().replace("max_new_tokens: 64", "max_new_tokens: 9000"))
    code, text = preflight(str(rl))
    assert code == 4
    assert "rl.yaml:9:3 config.max_new_tokens" in " ".join(text.split())
    assert "set max_new_tokens to at most 40" in text and "not ready" in text


def test_json_holds_the_same_findings_and_the_parts_of_the_memory(rl: Path) -> None:
    code, text = preflight(str(rl), "--gpu", "2 x 1 GB", "--json")
    data = json.loads(text)
    assert code == 0 and data["ok"] and [finding["id"] for finding in data["findings"]] == ["settings.idle_gpus"]
    (memory,) = data["memory"]
    assert memory["device"]["count"] == 2
    counted = [p["bytes"] for p in memory["parts"] if p["moment"] in ("always", memory["at"])]
    assert memory["peak"] == sum(counted)


def test_a_gpu_that_nobody_knows_is_refused(rl: Path) -> None:
    done = CliRunner().invoke(main.app, ["preflight", str(rl), "--gpu", "Voodoo"])
    assert "--gpu: GPU 'Voodoo' is not known" in str(done.exception)


def test_a_model_that_is_not_there_is_a_finding_among_others(rl: Path) -> None:
    rl.write_text(rl.read_text().replace("smallworld/teacher", "nowhere").replace("steps: 20", "steps: 2"))
    code, text = preflight(str(rl), "--json")
    assert code == 4
    assert {finding["id"] for finding in json.loads(text)["findings"]} == {"checkpoints.missing", "settings.warmup"}


@pytest.mark.slow
def test_a_matrix_is_checked_with_every_pair_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.matrix.run.STORE", tmp_path)
    matrix = REPOSITORY / "ablations" / "teacher_mismatch.yaml"
    code, text = preflight(str(matrix), "--json")
    data = json.loads(text)
    assert code == 0
    pairs = {(Path(run["student"]).name, Path(run["teacher"]).name) for run in data["runs"] if run["kind"] == "rl"}
    students, teachers = ("student_a", "student_b", "student_c"), ("teacher", "teacher_mirror")
    assert pairs == {(student, teacher) for student in students for teacher in teachers}
    assert "traces" in data["unchecked"]["data"]


@pytest.mark.slow
def test_a_matrix_error_names_the_profiles_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.matrix.run.STORE", tmp_path)
    profile = tmp_path / "long.yaml"
    small = (REPOSITORY / "ablations" / "profiles" / "small.yaml").read_text()
    profile.write_text(small.replace("    max_new_tokens: 64", "    max_new_tokens: 5000"))
    code, text = preflight(str(REPOSITORY / "ablations" / "cold_start.yaml"), "--profile", str(profile), "--json")
    found = [finding for finding in json.loads(text)["findings"] if finding["id"] == "lengths.context"]
    line = profile.read_text().splitlines().index("    max_new_tokens: 5000") + 1
    assert code == 4 and found
    assert all(f"{profile}:{line}:5 rl.max_new_tokens" in finding["where"] for finding in found)


@pytest.mark.slow
def test_models_of_an_unreachable_hub_are_findings_next_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(location: str, weights: bool) -> Path:
        assert not weights
        raise InfrastructureError(location)

    monkeypatch.setattr("bench.matrix.run.STORE", tmp_path)
    monkeypatch.setattr("bench.matrix.preflight.from_hub", unreachable)
    code, text = preflight(str(REPOSITORY / "ablations" / "cold_start.yaml"), "--profile", "paper", "--json")
    data = json.loads(text)
    assert code == 4
    absent = [finding["where"] for finding in data["findings"] if finding["id"] == "checkpoints.missing"]
    assert "hub:Qwen/Qwen3-8B@main" in absent and "memory" in data["unchecked"]
