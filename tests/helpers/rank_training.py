"""The work of the ranks in tests, in a module that the launcher can import by name."""

import logging
import os
import signal
from pathlib import Path
from typing import Any

import torch

from vold.config import LoraConfig, OptimizerConfig, RLConfig, SFTConfig
from vold.execution import Execution
from vold.teacher import Teacher
from vold.training import rl
from vold.training.optim import Optimizer
from vold.training.progress import Progress
from vold.training.rl import train_rl
from vold.training.runtime import start_training
from vold.training.sft import train_sft

STEPS = 5
DECAYING = OptimizerConfig(learning_rate=5e-3, warmup_steps=2, schedule="cosine")
SFT = SFTConfig(steps=STEPS, batch_size=7, optimizer=DECAYING)
RL = RLConfig.model_validate(
    {"steps": STEPS, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 10, "optimizer": DECAYING,
     "distill": {"weight": 0.1, "estimator": "reverse_kl"}}
)  # fmt: skip
RL_IN_PARTS = RL.model_copy(update={"schedule": "distill_then_reward", "distill_share": 0.4})
# Several micro-batches per rank, and different numbers of them: 3 prompts and 7 traces do not divide by 2.
EXECUTION = {"device": "cpu", "threads": 1, "checkpoint_every": 3, "micro_batch_tokens": 90}


def train(stage: str, strategy: str, home: Path, run: Path, progress: Progress) -> None:
    """Train one stage with the tiny models in ``home``."""
    name, *extras = strategy.split("+")
    fields = {
        "parallel": {"strategy": name, "offload": "offload" in extras},
        "gradient_checkpointing": strategy == "zero3",
    }
    execution = Execution.model_validate(EXECUTION | fields)
    lora = {"lora": LoraConfig(rank=4, targets=("q_proj", "v_proj", "down_proj")) if "lora" in extras else None}
    shared = {"student": home / "student", "run": run, "seed": 3, "execution": execution, "progress": progress}
    if stage == "sft":
        train_sft(SFT.model_copy(update=lora), traces=home / "traces.jsonl", **shared)
    else:
        rl.self_test = lambda: None  # it starts a process, and tests/vold/test_rewards.py tests it
        config = RL_IN_PARTS if stage == "rl_in_parts" else RL
        train_rl(config.model_copy(update=lora), teacher=home / "teacher", prompts=home / "prompts.jsonl", **shared)


def train_all(runs: list[tuple[str, str, Path]], home: Path, progress: Progress) -> None:
    """Train several stages one after the other, so that the processes start only once. Resumes unfinished runs.

    In a stage called ``rl_poisoned`` the teacher's states are NaN on the last rank in the second step.
    """
    score = Teacher.score
    for stage, strategy, run in runs:
        calls: list[int] = []

        def poisoned(self: Teacher, *arguments: Any, calls: list[int] = calls) -> torch.Tensor:
            calls.append(1)
            states = score(self, *arguments)
            return states * torch.nan if len(calls) == 2 and os.environ["RANK"] == "1" else states

        Teacher.score = poisoned if stage == "rl_poisoned" else score  # type: ignore[method-assign]
        train(stage, strategy, home, run, progress)
    Teacher.score = score


def train_and_die(stage: str, strategy: str, home: Path, run: Path, rank: str, progress: Progress) -> None:
    """Train until ``rank`` is killed in the fifth step, after the training state of the third."""
    steps, step = [], Optimizer.step

    def counted(self: Optimizer, loss: float, rate: float) -> tuple[float, bool]:
        steps.append(rate)
        if len(steps) == 5 and os.environ["RANK"] == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, loss, rate)

    Optimizer.step = counted
    train(stage, strategy, home, run, progress)


def refuse(progress: Progress) -> None:
    """Raise an error on rank 1, for which the others wait."""
    logging.getLogger("vold.training.health").warning("told by rank %s", os.environ["RANK"])
    start_training(Execution.model_validate(EXECUTION))
    if os.environ["RANK"] == "1":
        raise ValueError("the traces of rank 1 are no traces")
    torch.distributed.barrier()
