"""The ratio of the lower bound to the measured time of a full-size RL step, for decode, teacher and train.

``python -m perf.roofline`` builds Qwen2.5-VL-3B and Qwen3-8B from their configs with random weights and runs an RL step
on the GPU. ``--reduced`` runs the same code on tiny models on the CPU, with peaks that are measured there. Completions
never end early, so a step has exactly the stated size.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu

# isort: split
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bench.smallworld import checkpoint_path
from perf.bounds import DEVICES, DevicePeaks, Shape, StepSize, decode_seconds, teacher_seconds, train_seconds
from perf.trial import memory_mb
from vold.config import RLConfig
from vold.data.prompts import Prompt
from vold.distributed import ALONE
from vold.execution import Execution
from vold.models import LanguageModel, Student, attention, freeze
from vold.models.recomputation import enable_recomputation
from vold.teacher import Teacher
from vold.training.journal import Stopwatch
from vold.training.rl import RLStage
from vold.training.runtime import frozen_dtype

QWEN2_5_VL_3B: dict[str, Any] = {
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 2048,
    },
    "tie_word_embeddings": True,
}
"""Qwen/Qwen2.5-VL-3B-Instruct as published (arXiv 2502.13923 and the checkpoint's config.json)."""

QWEN3_8B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
}
"""Qwen/Qwen3-8B as published (arXiv 2505.09388 and the checkpoint's config.json)."""

_TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
}


def student_config(reduced: bool) -> Qwen2_5_VLConfig:
    """The config of the student: the published one, or a tiny one of the same architecture."""
    if not reduced:
        return Qwen2_5_VLConfig(**QWEN2_5_VL_3B)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = QWEN2_5_VL_3B["vision_config"] | {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
    return Qwen2_5_VLConfig(
        text_config=_TINY | {"rope_parameters": rope},
        vision_config=vision | {"out_hidden_size": 64, "fullatt_block_indexes": [0]},
        tie_word_embeddings=True,
    )


def teacher_config(reduced: bool) -> Qwen3Config:
    """The config of the teacher: the published one, or a tiny one of the same architecture."""
    settings: dict[str, Any] = _TINY | {"head_dim": 16} if reduced else QWEN3_8B
    return Qwen3Config(**settings)


class _Unending(Student):
    """A student that no token stops before the length limit."""

    stop_ids = ()  # type: ignore[assignment]


def build_stage(size: StepSize, execution: Execution, reduced: bool) -> RLStage:
    """The RL stage of the trainer with random weights. The teacher term makes it learn from every token."""
    device = torch.device(execution.device)
    path = checkpoint_path("student_a")
    tokenizer = AutoTokenizer.from_pretrained(path)
    settings = {"attn_implementation": attention.register()}
    with device:
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            student_config(reduced), dtype=torch.float32, **settings
        ).eval()
        reader = Qwen3ForCausalLM._from_config(
            teacher_config(reduced), dtype=frozen_dtype(execution), **settings
        ).eval()
    student = _Unending(path, model, tokenizer, image_processor=None)
    config = RLConfig.model_validate(
        {
            "steps": 1,
            "prompts_per_step": size.prompts,
            "group_size": size.group,
            "max_new_tokens": size.completion,
            "rollout": "builtin",
            "distill": {"weight": 0.1, "mask": "all"},
            "freeze": ("vision", "merger"),
        }
    )
    freeze(student, config.freeze)
    enable_recomputation(model)
    teacher = Teacher(LanguageModel(path, reader.requires_grad_(False), tokenizer), execution.micro_batch_tokens)
    return RLStage(config, execution, ALONE, student, teacher, _prompts(student, size), validation=(), seed=0)


def _prompts(student: Student, size: StepSize) -> list[Prompt]:
    """Distinct prompts of exactly ``size.prompt`` tokens, including those of the chat template."""
    room = size.prompt - len(student.encode_text(""))
    texts = [f"{index:>{room}}".replace(" ", "+") for index in range(size.prompts)]
    if any(len(student.encode_text(text)) != size.prompt for text in texts):
        raise ValueError(f"prompts cannot have {size.prompt} tokens: the chat template alone has {size.prompt - room}")
    return [Prompt(id=str(index), text=text, answer="0") for index, text in enumerate(texts)]


def measured_device(size: int = 1024) -> DevicePeaks:
    """The peaks of this machine's processor in float32: the best of several matrix products and of several copies."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    source, target = torch.randn(size * size * 16), torch.empty(size * size * 16)
    flops = 2 * size**3 / _best_seconds(lambda: torch.mm(a, b))
    bandwidth = 2 * source.nbytes / _best_seconds(lambda: target.copy_(source))
    return DevicePeaks(
        "this CPU", flops, bandwidth, f"measured: a product of {size} x {size} matrices, a copy", width=4
    )


def _best_seconds(work: Any, repeats: int = 7) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def gpu_peaks() -> DevicePeaks:
    """The published peaks of the GPU. Raises ValueError without a GPU, and for a GPU that DEVICES does not have."""
    if not torch.cuda.is_available():
        raise ValueError("this machine has no GPU; use --reduced to run on the CPU")
    name = torch.cuda.get_device_name()
    peaks = next((device for device in DEVICES if device.gpu == name), None)
    if peaks is None:
        raise ValueError(f"no published peaks for {name!r}; add them to DEVICES in perf/bounds.py")
    return peaks


def measure_step(size: StepSize, execution: Execution, device: DevicePeaks, reduced: bool) -> str:
    """Run one step after a warm-up step and return the table as Markdown."""
    stage = build_stage(size, execution, reduced)
    stage.step(0, Stopwatch())
    watch = Stopwatch()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with watch.part("step"):
        stage.step(0, watch)
    assert stage.teacher is not None
    shapes = Shape.of(stage.student.model.config), Shape.of(stage.teacher.model.model.config)
    bounds = {
        "rollout": decode_seconds(shapes[0], size, device, execution.rollout_batch),
        "teacher": teacher_seconds(shapes[1], size, device),
        "train": train_seconds(*shapes, size, device),
    }
    return roofline_table(bounds, watch.seconds, size, device, _peak_gb())


def _peak_gb() -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else memory_mb("VmHWM") / 1e3


def roofline_table(
    bounds: dict[str, float], seconds: dict[str, float], size: StepSize, device: DevicePeaks, peak_gb: float
) -> str:
    """A Markdown table of the bound, the measured time and their ratio, for each stage and for the step."""
    lines = [
        f"{size.prompts} prompts x {size.group}, {size.prompt} + {size.completion} tokens, on {device.name} "
        f"({device.flops / 1e12:.4g} TFLOP/s, {device.bandwidth / 1e12:.4g} TB/s; {device.source}); "
        f"peak memory {peak_gb:.1f} GB",
        "",
        "| stage | bound s | measured s | bound / measured |",
        "|---|---|---|---|",
    ]
    rows = [(name, bound, seconds[name]) for name, bound in bounds.items()]
    rows.append(("step", sum(bounds.values()), seconds["step"]))
    lines += [f"| {name} | {bound:.4g} | {taken:.4g} | {bound / taken:.2f} |" for name, bound, taken in rows]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    size = StepSize(options.prompts, options.group, options.prompt_tokens, options.completion_tokens)
    execution = Execution(
        device="cpu" if options.reduced else "cuda",
        dtype="float32" if options.reduced else "bfloat16",
        threads=1 if options.reduced else None,
        micro_batch_tokens=options.micro_batch_tokens,
        rollout_batch=options.rollout_batch,
        gradient_checkpointing=True,
    )
    if options.reduced:
        torch.set_num_threads(1)
    device = measured_device() if options.reduced else gpu_peaks()
    text = measure_step(size, execution, device, options.reduced)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduced", action="store_true", help="Use tiny models on the CPU.")
    small = parser.parse_known_args(arguments)[0].reduced
    parser.add_argument("--prompts", type=int, default=4 if small else 128)
    parser.add_argument("--group", type=int, default=4 if small else 8)
    parser.add_argument("--prompt-tokens", type=int, default=32 if small else 256)
    parser.add_argument("--completion-tokens", type=int, default=64 if small else 2048)
    parser.add_argument("--micro-batch-tokens", type=int, default=16384)
    parser.add_argument("--rollout-batch", type=int, default=256, help="Sequences that are decoded together.")
    parser.add_argument("--out", type=Path, help="Also write the table to this file.")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
