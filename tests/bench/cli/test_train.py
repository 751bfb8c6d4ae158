"""Stages from files of their own: traces written by a teacher, then imitated."""

import json
from pathlib import Path

import pytest

from bench.cli import train
from bench.cli.train_file import parse_data
from bench.errors import ConfigurationError
from bench.matrix.yaml_file import YamlFile
from vold.data.reading import read_prompts

TRACES = """\
schema: vold-bench/traces@1
writer: smallworld/teacher
prompts: {prompts}
run: traces
seed: 3
config: {{temperature: 0, max_new_tokens: 64, keep: correct}}
execution: {{device: cpu, threads: 1}}
"""
SFT = """\
schema: vold-bench/train@1
student: smallworld/student_a
traces: {traces}
run: start
config: {steps: 1, batch_size: 2, max_length: 160}
execution: {device: cpu, threads: 1}
"""
ORZ = [[{"from": "human", "value": f"[{i}+{i}]solve"}, {"from": "assistant", "ground_truth": {"value": str(2 * i)}}]
       for i in range(5)]  # fmt: skip


def test_a_teacher_writes_traces_and_a_student_imitates_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "orz.json").write_text(json.dumps(ORZ))
    (tmp_path / "traces.yaml").write_text(TRACES.format(prompts="file:orz.json?format=orz"))
    train.traces(tmp_path / "traces.yaml")
    summary, _, place = capsys.readouterr().out.rpartition("traces: ")
    assert json.loads(summary)["written"] == json.loads(summary)["prompts"] == 5
    assert Path(place.strip()) == tmp_path / "traces" / "out"
    assert json.loads((tmp_path / "traces" / "data.json").read_text())["rows"] == 5
    (tmp_path / "sft.yaml").write_text(SFT.replace("{traces}", "traces/out/traces.jsonl"))
    train.sft(tmp_path / "sft.yaml")
    assert (tmp_path / "start" / "out" / "model.safetensors").is_file()


def test_a_corrected_file_may_use_the_directory_of_the_run_that_was_refused(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    for traces in ("nowhere.jsonl", "elsewhere.jsonl"):
        file.write_text(SFT.replace("{traces}", traces))
        with pytest.raises(ConfigurationError, match=f"nothing at .*{traces}"):
            train.sft(file)
    (tmp_path / "start" / "metrics.jsonl").touch()
    file.write_text(SFT.replace("{traces}", "third.jsonl").replace("steps: 1", "steps: 2"))
    with pytest.raises(ConfigurationError, match=r"holds a run with other settings \(config, traces\)"):
        train.sft(file)


def test_a_file_for_another_command_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(SFT)
    with pytest.raises(ConfigurationError, match="a file for `vold-bench train sft`, not for `vold-bench train rl`"):
        train.rl(tmp_path / "sft.yaml")


def test_prompts_of_the_small_world_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "traces.yaml").write_text(TRACES.format(prompts="smallworld/sft?n=5"))
    source = YamlFile(tmp_path / "traces.yaml")
    data = parse_data(source, "prompts", "smallworld/sft?n=5")
    assert len(read_prompts(data)) == 5 and Path(data.location).is_relative_to(tmp_path / "cache")
    assert parse_data(source, "prompts", "smallworld/sft?n=5") == data


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("nowhere.jsonl", r"traces\.yaml:3:\d+: .*nothing at .*nowhere\.jsonl"),
        ("smallworld/sft", r"traces\.yaml:3:\d+: .*smallworld/NAME\?n=N"),
        ("smallworld/none?n=2", r"traces\.yaml:3:\d+: .*known: sft, rl"),
        ("hub:name", r"traces\.yaml:3:\d+: .*hub:OWNER/NAME@REVISION"),
        ("file:orz.json?fromat=orz", r"traces\.yaml:3:\d+: .*unknown option 'fromat'"),
    ],
)
def test_prompts_that_are_none_are_refused_at_their_place(prompts: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "traces.yaml").write_text(TRACES.format(prompts=prompts))
    with pytest.raises(ConfigurationError, match=words):
        train.traces(tmp_path / "traces.yaml")
