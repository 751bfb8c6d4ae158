"""The lower bounds of an RL step, checked against torch and hand counts, and the program that measures them."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3ForCausalLM

from perf.bounds import (
    DEVICES,
    DevicePeaks,
    Shape,
    StepSize,
    body_flops,
    decode_seconds,
    head_flops,
    teacher_seconds,
    train_seconds,
)
from perf.roofline import gpu_peaks, main, roofline_table, student_config, teacher_config

STUDENT, TEACHER = Shape.of(student_config(reduced=False)), Shape.of(teacher_config(reduced=False))
H200 = DEVICES[0]


@pytest.mark.parametrize("name", ["NVIDIA GH200 480GB", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-40GB"])
def test_a_board_with_unknown_peaks_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert gpu_peaks() is H200
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    with pytest.raises(ValueError, match="no published peaks"):
        gpu_peaks()


def test_shapes_count_every_matrix_of_the_published_models():
    with torch.device("meta"):
        student = Qwen2_5_VLForConditionalGeneration(student_config(reduced=False))
        teacher = Qwen3ForCausalLM(teacher_config(reduced=False))
    for shape, layers, head in (
        (STUDENT, student.model.language_model.layers, student.lm_head),
        (TEACHER, teacher.model.layers, teacher.lm_head),
    ):
        assert shape.body == sum(p.numel() for p in layers.parameters() if p.ndim == 2)
        assert shape.head == head.weight.numel()
    assert sum(p.numel() for p in student.parameters()) == pytest.approx(3.75e9, rel=0.01)
    assert sum(p.numel() for p in teacher.parameters()) == pytest.approx(8.19e9, rel=0.01)


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_flops_agree_with_those_that_torch_counts(kind):
    length, config = 24, (student_config if kind == "student" else teacher_config)(reduced=True)
    config._attn_implementation = "eager"
    model = (Qwen2_5_VLForConditionalGeneration if kind == "student" else Qwen3ForCausalLM)(config)
    trunk, shape = model.get_decoder(), Shape.of(config)
    states = torch.randn(1, length, shape.hidden, requires_grad=True)
    counter = FlopCounterMode(display=False)
    with counter:
        model.lm_head(trunk(inputs_embeds=states, use_cache=False).last_hidden_state)
    forward = counter.get_total_flops()
    # Torch also counts the masked half of attention.
    assert forward == shape.token_flops * length + shape.attention_flops(length * length)
    with counter:
        model.lm_head(trunk(inputs_embeds=states, use_cache=False).last_hidden_state).sum().backward()
    assert counter.get_total_flops() == pytest.approx(3 * forward, rel=1e-3)


def test_attended_pairs_of_a_packed_batch_agree_with_an_enumeration():
    size = StepSize(prompts=2, group=3, prompt=4, completion=5)
    rows = [range(1, 5)] * 2 + [range(5, 10)] * 6  # tokens that each token of a prompt and of a completion attends to
    assert size.attended == sum(map(sum, rows))
    assert size.tokens == sum(map(len, rows))
    shape = Shape(hidden=8, intermediate=16, layers=3, heads=2, key_heads=1, head_dim=4, vocabulary=10)
    per_layer = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8 + 3 * 8 * 16  # q, k, v, o, and the MLP's three
    assert body_flops(shape, size) == 3 * (2 * per_layer * 38 + 4 * 8 * size.attended)
    assert head_flops(shape, size) == 2 * 8 * 10 * 30


def test_the_paper_size_has_the_known_costs():
    """6.2 and 15.1 GFLOP per token, 36.9 kB of cache per token; 46 + 37 + 31 s without shared prompts in training."""
    assert STUDENT.token_flops / 1e9 == pytest.approx(6.2, rel=0.01)
    assert TEACHER.token_flops / 1e9 == pytest.approx(15.1, rel=0.01)
    assert STUDENT.cache_numbers * 2 == 36864
    apart, size = StepSize(prompts=1024, group=1), StepSize()
    heads = head_flops(TEACHER, apart) / H200.flops
    train = train_seconds(STUDENT, TEACHER, apart, H200) - heads
    teacher = teacher_seconds(TEACHER, apart, H200) + heads
    decode = decode_seconds(STUDENT, size, H200)
    assert train == pytest.approx(46, rel=0.02) and teacher == pytest.approx(37, rel=0.02)
    assert decode == pytest.approx(31, rel=0.03)
    assert train + teacher + decode == pytest.approx(115, rel=0.02)
    # Sharing prompts makes the least size smaller still.
    assert train_seconds(STUDENT, TEACHER, size, H200) < train + heads


def test_decoding_few_sequences_is_bounded_by_reading_the_weights():
    device = DevicePeaks("slow memory", flops=1e15, bandwidth=1e9, source="")
    one = decode_seconds(STUDENT, StepSize(prompts=1, group=1, prompt=8, completion=10), device)
    weights = 10 * 2 * (STUDENT.body + STUDENT.head) / 1e9
    assert weights < one < 1.001 * weights
    # Two batches of one read the weights twice.
    twice = decode_seconds(STUDENT, StepSize(prompts=2, group=1, prompt=8, completion=10), device, batch=1)
    assert twice == pytest.approx(2 * one)


def test_the_table_relates_each_bound_to_its_measurement():
    bounds = {"rollout": 1.0, "teacher": 2.0, "train": 3.0}
    seconds = {"rollout": 4.0, "teacher": 4.0, "train": 4.0, "reward": 1.0, "step": 15.0}
    text = roofline_table(bounds, seconds, StepSize(), H200, 100.0)
    assert "| teacher | 2 | 4 | 0.50 |" in text and "| step | 6 | 15 | 0.40 |" in text


@pytest.mark.slow
def test_the_reduced_program_runs_and_stays_above_its_bounds(capsys):
    main(["--reduced", "--prompts", "2", "--group", "2", "--completion-tokens", "16"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == ["rollout", "teacher", "train", "step"]
    for _, bound, measured, share in rows:
        assert 0 < float(bound) < float(measured) and 0 <= float(share) < 1
