"""Stages from files of their own: traces written by a teacher, then imitated."""

import json
from pathlib import Path

import pytest

from bench import cli_train
from bench.errors import ConfigurationError

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
    cli_train.run("traces", tmp_path / "traces.yaml")
    summary, _, place = capsys.readouterr().out.rpartition("traces: ")
    assert json.loads(summary)["written"] == json.loads(summary)["prompts"] == 5
    assert Path(place.strip()) == tmp_path / "traces" / "out"
    assert json.loads((tmp_path / "traces" / "data.json").read_text())["rows"] == 5
    (tmp_path / "sft.yaml").write_text(SFT.replace("{traces}", "traces/out/traces.jsonl"))
    cli_train.run("sft", tmp_path / "sft.yaml")
    assert (tmp_path / "start" / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("nowhere.jsonl", r"traces\.yaml:3:\d+: .*nothing at .*nowhere\.jsonl"),
        ("hub:name", r"traces\.yaml:3:\d+: .*hub:OWNER/NAME@REVISION"),
        ("file:orz.json?fromat=orz", r"traces\.yaml:3:\d+: .*unknown option 'fromat'"),
    ],
)
def test_prompts_that_are_none_are_refused_at_their_place(prompts: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "traces.yaml").write_text(TRACES.format(prompts=prompts))
    with pytest.raises(ConfigurationError, match=words):
        cli_train.run("traces", tmp_path / "traces.yaml")
