"""The parts of the estimate against values computed by hand, and the suggested fix."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.vold.preflight.test_sizes import qwen2_5_vl_3b, qwen3_8b
from vold.config import DistillConfig, RLConfig, SFTConfig
from vold.execution import Execution
from vold.findings import Level
from vold.preflight.devices import Device, parse_device, this_machine
from vold.preflight.job import Job
from vold.preflight.memory import MemoryEstimate, estimate_memory, memory_findings
from vold.preflight.sizes import Sizes, model_sizes

SMALL = Sizes(
    total=1000, trained=600, rows=32, layers=3, hidden=8, intermediate=16, queries=8, key_values=4, head_norms=False
)
TEACHER = replace(SMALL, total=5000, trained=0, hidden=12)


def parts(estimated: MemoryEstimate) -> dict[str, int]:
    return {part.name: part.bytes for part in estimated.parts}


def job(config: RLConfig | SFTConfig, **execution: object) -> Job:
    settings = Execution.model_validate({"micro_batch_tokens": 64, "rollout_batch": 4, **execution})
    return Job(config, Path("student"), Path("run"), execution=settings)


def test_fp32_training_takes_16_bytes_per_trained_and_4_per_frozen_parameter() -> None:
    sizes = parts(estimate_memory(job(SFTConfig(max_length=10)), SMALL, None, 5))
    states = sizes["student's weights"] + sizes["gradients"] + sizes["AdamW's moments"]
    assert states == 16 * 600 + 4 * 400
    assert "bf16 copies of the weights" not in sizes


def test_rl_counts_rollouts_the_teacher_and_its_hidden_states() -> None:
    config = RLConfig(prompts_per_step=6, group_size=2, max_new_tokens=20, distill=DistillConfig(weight=1))
    sizes = parts(estimate_memory(job(config), SMALL, TEACHER, prompt=10))
    # 4 rows of 30 tokens; keys and values of 3 layers, 4 wide, in fp32.
    assert sizes["KV cache of 4 rollouts of 30 tokens"] == 4 * 30 * 2 * 3 * 4 * 4
    assert sizes["teacher's weights"] == 5000 * 4
    assert sizes["teacher's hidden states"] == 6 * 2 * 20 * 12 * 4
    half = parts(estimate_memory(job(config, dtype="bfloat16"), SMALL, TEACHER, prompt=10))
    assert half["teacher's weights"] == 5000 * 2 and half["bf16 copies of the weights"] == 2000


@pytest.mark.parametrize(
    ("strategy", "offload", "bytes_of_a_parameter"),
    # 4 weights + 4 gradients + 8 moments over 4 processes; arXiv 1910.02054, figure 1, with fp32 weights.
    [("none", False, 16), ("zero2", False, 4 + 12 / 4), ("zero3", False, 16 / 4), ("zero2", True, 4 + 4 / 4),
     ("zero3", True, 0)],
)  # fmt: skip
def test_zero_divides_the_states_by_the_processes(strategy: str, offload: bool, bytes_of_a_parameter: float) -> None:
    sizes = replace(SMALL, trained=1000)
    parallel = {"strategy": strategy, "offload": offload}
    estimated_parts = estimate_memory(
        job(SFTConfig(max_length=10), processes=4, parallel=parallel), sizes, None, 5
    ).parts
    names = ("student's weights", "gradients", "AdamW's moments")
    assert sum(part.bytes for part in estimated_parts if part.name in names) == 1000 * bytes_of_a_parameter
    gathered = [part.bytes for part in estimated_parts if part.moment == "rollout"]
    assert gathered == ([4000] if strategy == "zero3" else [])


def test_processes_share_the_rollouts_and_their_hidden_states() -> None:
    config = RLConfig(prompts_per_step=6, group_size=2, max_new_tokens=20, distill=DistillConfig(weight=1))
    sizes = parts(estimate_memory(job(config, processes=4, rollout_batch=100), SMALL, TEACHER, prompt=10))
    # Six prompts over four processes: two at most, with two answers each.
    assert sizes["KV cache of 4 rollouts of 30 tokens"] == 4 * 30 * 2 * 3 * 4 * 4
    assert sizes["teacher's hidden states"] == 4 * 20 * 12 * 4


def test_vllm_takes_its_share_of_the_gpu_while_it_is_awake() -> None:
    config = RLConfig(prompts_per_step=6, group_size=2, max_new_tokens=20, rollout="vllm")
    on_gpu = replace(job(config, vllm={"memory_share": 0.5}), device=Device("toy", 10_000))
    assert parts(estimate_memory(on_gpu, SMALL, None, 10))["vLLM while awake"] == 5_000
    given = replace(job(config, vllm={"kv_cache_gib": 1}), device=Device("toy", 10_000))
    assert parts(estimate_memory(given, SMALL, None, 10))["vLLM while awake"] == 4 * 1000 + (1 << 30)
    assert (
        next(part.moment for part in estimate_memory(given, SMALL, None, 10).parts if "vLLM" in part.name) == "rollout"
    )


def test_a_sequence_over_the_token_budget_gets_a_pass_of_its_own() -> None:
    short, long = (parts(estimate_memory(job(SFTConfig(max_length=n)), SMALL, None, 5)) for n in (10, 100))
    assert "activations of 64 tokens, 3 layers" in short
    assert "activations of 100 tokens, 3 layers" in long


def test_gradient_checkpointing_keeps_inputs_and_one_layer() -> None:
    short = SFTConfig(max_length=10)
    whole, lean = (
        parts(estimate_memory(job(short, gradient_checkpointing=on), SMALL, None, 5)) for on in (False, True)
    )
    one_layer = 64 * SMALL.saved_bytes(4)
    assert whole["activations of 64 tokens, 3 layers"] == 3 * one_layer
    assert lean["activations of 64 tokens, inputs of 3 layers and one of them"] == 3 * 64 * 8 * 4 + one_layer


def test_a_trained_head_needs_a_second_gradient() -> None:
    def gradient(**settings: object) -> int | None:
        config = SFTConfig.model_validate({"max_length": 10, **settings})
        return parts(estimate_memory(job(config), SMALL, None, 5)).get("output head's gradient of one pass")

    assert gradient() == 32 * 8 * 4
    assert gradient(freeze=("embeddings",)) is None and gradient(lora={"rank": 2}) is None


def test_the_peak_counts_one_moment_at_a_time() -> None:
    config = RLConfig(prompts_per_step=60, group_size=2, max_new_tokens=20, distill=DistillConfig(weight=1))
    estimated = estimate_memory(job(config, rollout_batch=1000), SMALL, TEACHER, prompt=3000)
    assert estimated.moment == "rollout"
    held = sum(part.bytes for part in estimated.parts if part.moment == "always")
    cache = 120 * 3020 * 2 * 3 * 4 * 4
    assert estimated.peak == held + cache


def test_the_papers_pair_is_too_large_for_one_small_gpu_and_the_fix_names_a_setting() -> None:
    config = RLConfig(distill=DistillConfig(weight=0.1))
    paper = replace(
        job(config, device="cuda", dtype="bfloat16", micro_batch_tokens=32_768, rollout_batch=256),
        device=parse_device("RTX 4090"),
    )
    estimated = estimate_memory(paper, model_sizes(qwen2_5_vl_3b(), config.freeze), model_sizes(qwen3_8b()), prompt=512)
    findings = memory_findings(paper, estimated)
    assert [finding.id for finding in findings] == ["memory.too_large"]
    assert "RTX 4090" in findings[0].message and "execution.gradient_checkpointing" in findings[0].fix
    # States alone: 3.09 billion trained at 16 bytes, 0.63 frozen at 4, and 2 bytes of each for autocast.
    states = sum(parts(estimated)[name] for name in list(parts(estimated))[:4])
    assert states == pytest.approx(61e9, rel=0.02)


def test_a_device_that_is_nearly_full_is_a_warning() -> None:
    whole = estimate_memory(job(SFTConfig(max_length=10)), SMALL, None, 5)
    for memory, level in ((whole.peak - 1, Level.ERROR), (whole.peak, Level.WARNING)):
        near = replace(job(SFTConfig(max_length=10)), device=Device("toy", memory))
        assert [finding.level for finding in memory_findings(near, whole)] == [level]
    roomy = replace(job(SFTConfig(max_length=10)), device=Device("toy", 2 * whole.peak))
    assert memory_findings(roomy, whole) == []


@pytest.mark.parametrize(
    ("text", "gigabytes", "count_"),
    [
        ("H200 x 8", 150.8, 8),
        ("8 x A100 80 GB", 85.9, 8),
        ("A100 40GB", 40.0, 1),
        ("NVIDIA H100 80GB HBM3", 85.5, 1),
        ("48 GB x 2", 48.0, 2),
        ("2 x rtx-4090", 25.8, 2),
        ("RTX 4090", 25.8, 1),
        ("H200x8", 150.8, 8),
    ],
)
def test_gpu_names_may_be_written_in_many_ways(text: str, gigabytes: float, count_: int) -> None:
    device = parse_device(text)
    assert (device.memory / 1e9, device.count) == (pytest.approx(gigabytes, rel=1e-2), count_)


@pytest.mark.parametrize("text", ["", "Voodoo 2", "x 8", "0 x H100"])
def test_an_unknown_gpu_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match=r"48 GB x 2.*H200"):
        parse_device(text)


def test_a_cpu_run_is_compared_with_the_ram() -> None:
    device = this_machine("cpu")
    assert device is not None and device.kind == "cpu" and device.memory > 1 << 28


def test_gpus_of_this_machine_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'NVIDIA H100 80GB HBM3, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert this_machine("auto") == Device("NVIDIA H200", 81_559 << 20, 2)
    assert this_machine("cpu") != this_machine("auto")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert this_machine("cuda") is None
