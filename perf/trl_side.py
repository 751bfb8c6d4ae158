"""TRL's GRPOTrainer on the small world: its unchanged code, with clocks around the methods of a step."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu

# isort: split
import datasets
import torch
from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from perf.trial import LEARNING_RATE, SEED, Step, Trial, memory_mb, rl_config, write_trial_prompts
from vold.config import RLConfig
from vold.data.prompts import Prompt
from vold.data.samplers import draw
from vold.models import Student, freeze, load_student
from vold.rewards import rewards
from vold.training.journal import Stopwatch


def run_trl(trial: Trial, directory: Path) -> tuple[list[Step], float]:
    """All steps on the prompts of ``run_ours`` in the same order, and the memory in MB after the first step."""
    torch.set_num_threads(trial.threads)
    config = rl_config(trial)
    student = load_student(Path(trial.student))
    student.model.set_attn_implementation("sdpa")
    freeze(student, config.freeze)
    clock = _Clock()
    trainer = _TimedTrainer(
        clock,
        model=student.model,
        reward_funcs=_reward,
        train_dataset=_dataset(trial, config, directory),
        processing_class=_processor(student) if trial.images else student.tokenizer,
        args=_arguments(config, student, directory),
    )
    trainer.train()
    return clock.steps, clock.held_mb


def _arguments(config: RLConfig, student: Student, directory: Path) -> GRPOConfig:
    """TRL's settings for the same step: one batch, one update, no reference model, float32, no logs and checkpoints."""
    optimizer = config.optimizer
    return GRPOConfig(
        output_dir=str(directory / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=config.prompts_per_step * config.group_size,
        num_generations=config.group_size,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        max_steps=config.steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        max_grad_norm=optimizer.max_gradient_norm,
        epsilon=config.clip_low,
        epsilon_high=config.clip_high,
        loss_type="dapo",
        beta=0.0,
        # A sampled image placeholder has no image, so the next forward pass would fail.
        generation_kwargs={"suppress_tokens": list(student.banned_ids)},
        shuffle_dataset=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )


def _dataset(trial: Trial, config: RLConfig, directory: Path) -> datasets.Dataset:
    """Conversational prompts with the columns of the reward, and a column of images where the trial uses them."""
    rows = [json.loads(line) for line in write_trial_prompts(trial, directory).read_text().splitlines()]
    batches = [draw(SEED, "prompts", len(rows), config.prompts_per_step, step) for step in range(config.steps)]
    rows = [rows[index] for batch in batches for index in batch]
    columns: dict[str, list[Any]] = {
        "prompt": [[{"role": "user", "content": row["text"]}] for row in rows],
        "answer": [row["answer"] for row in rows],
        "options": [list(row["options"]) for row in rows],
    }
    if not trial.images:
        return datasets.Dataset.from_dict(columns)
    columns["image"] = [str(directory / row["images"][0]) for row in rows]
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def _processor(student: Student) -> Qwen2_5_VLProcessor:
    """A processor for TRL from the checkpoint's image processor and tokenizer, which pads on the left."""
    tokenizer = student.tokenizer
    tokenizer.padding_side = "left"
    return Qwen2_5_VLProcessor(
        student.image_processor, tokenizer, Qwen2VLVideoProcessor(), chat_template=tokenizer.chat_template
    )


def _reward(completions: Sequence[Any], answer: Sequence[str], options: Sequence[Any], **rest: Any) -> list[float]:
    """The reward of this trainer with the signature that TRL calls."""
    texts = [completion[0]["content"] for completion in completions]
    return rewards(texts, [Prompt("", "", a, tuple(o)) for a, o in zip(answer, options, strict=True)])


class _Clock(TrainerCallback):
    """Times each step from the end of the previous step, so that loading its rows counts."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.held_mb = 0.0
        self.begin()

    def begin(self) -> None:
        self.watch, self.tokens, self.start, self.cpu = Stopwatch(), 0, time.perf_counter(), time.process_time()

    def on_train_begin(self, *arguments: Any, **rest: Any) -> None:
        self.begin()

    def on_step_end(self, *arguments: Any, **rest: Any) -> None:
        step, cpu, seconds = time.perf_counter() - self.start, time.process_time() - self.cpu, self.watch.seconds
        train = step - seconds["before_train"]
        self.steps.append(Step(self.tokens, cpu, step, seconds["rollout"], seconds["reward"], train))
        self.held_mb = self.held_mb or memory_mb("VmRSS")
        self.begin()


class _TimedTrainer(GRPOTrainer):
    def __init__(self, clock: _Clock, **arguments: Any) -> None:
        self.clock = clock
        super().__init__(callbacks=[clock], **arguments)

    def _prepare_inputs(self, *arguments: Any, **rest: Any) -> Any:
        with self.clock.watch.part("before_train"):
            return super()._prepare_inputs(*arguments, **rest)

    def _generate_single_turn(self, *arguments: Any, **rest: Any) -> Any:
        with self.clock.watch.part("rollout"):
            ids, logprobs = super()._generate_single_turn(*arguments, **rest)
        self.clock.tokens += sum(map(len, ids))
        return ids, logprobs

    def _calculate_rewards(self, *arguments: Any, **rest: Any) -> Any:
        with self.clock.watch.part("reward"):
            return super()._calculate_rewards(*arguments, **rest)
