"""Stage 2: GRPO and on-policy distillation on the same rollouts of text prompts."""

from pathlib import Path

import torch
from torch import Tensor

from vold.config import Execution, RLConfig
from vold.data.reading import read_prompts
from vold.models import Student, check_pair, freeze, load_student, load_teacher
from vold.rewards import self_test
from vold.rollout.builtin import BuiltinEngine
from vold.teacher import Teacher
from vold.training.journal import Stopwatch
from vold.training.loop import Metrics, StepResult, run_steps
from vold.training.optim import Optimizer, learning_rate
from vold.training.policy import Objective, Update
from vold.training.progress import Progress, silent
from vold.training.rollouts import Collector, Rollouts
from vold.training.runtime import frozen_dtype, precision, prepare


def train_rl(
    config: RLConfig,
    *,
    student: Path,
    teacher: Path | None,
    prompts: Path,
    run: Path,
    seed: int,
    execution: Execution,
    progress: Progress = silent,
) -> None:
    """Train ``student`` on ``prompts`` and write the checkpoint to ``run/out``; resumes what ``run`` holds.

    ``teacher`` may be None when ``distill.weight`` is 0; then no KL is measured.
    """
    if (run / "out").exists():
        return
    if teacher is None and config.distill.weight > 0:
        raise ValueError("distill.weight is above 0, but there is no teacher")
    self_test()
    device = prepare(execution)
    model = load_student(student, device=device)
    freeze(model, config.freeze)
    scorer = None
    if teacher is not None:
        reader = load_teacher(teacher, dtype=frozen_dtype(execution), device=device)
        scorer = Teacher(reader, execution.micro_batch_tokens)
        check_pair(model, scorer.model)
    stage = _Stage(config, execution, model, scorer, prompts, seed)
    run_steps(
        stage.step,
        steps=config.steps,
        model=model,
        optimizer=stage.optimizer,
        run=run,
        execution=execution,
        progress=progress,
    )


class _Stage:
    """Everything that a step needs."""

    def __init__(
        self,
        config: RLConfig,
        execution: Execution,
        student: Student,
        teacher: Teacher | None,
        prompts: Path,
        seed: int,
    ) -> None:
        self.config, self.execution, self.student, self.teacher = config, execution, student, teacher
        engine = BuiltinEngine(student, execution.rollout_batch)
        self.collector = Collector(student, engine, read_prompts(prompts), config, seed)
        self.objective = Objective(student, teacher.model if teacher else None, config, execution)
        self.optimizer = Optimizer(student.model, config.optimizer, config.max_nonfinite_steps)

    def step(self, index: int, watch: Stopwatch) -> StepResult:
        """Roll out, reward, let the teacher read, update."""
        with precision(self.execution, self.student.device):
            rollouts = self.collector.collect(index, watch)
            states = self._teacher_states(index, rollouts, watch)
        rate = learning_rate(self.config.optimizer, index, self.config.steps)
        skipped = False
        with watch.part("train"):
            for _ in range(self.config.updates_per_batch):
                update = self.objective.backward(rollouts, states)
                norm, skip = self.optimizer.step(update.loss, rate)
                self.optimizer.zero_grad()
                skipped |= skip
        metrics = {**_metrics(rollouts, update), "grad_norm": norm, "learning_rate": rate, "skipped": int(skipped)}
        completion, whole = sum(rollouts.lengths), sum(map(len, rollouts.sequences))
        tokens = {"rollout": completion, "teacher": whole, "train": whole * self.config.updates_per_batch}
        return StepResult(metrics, tokens)

    def _teacher_states(self, index: int, rollouts: Rollouts, watch: Stopwatch) -> Tensor | None:
        """The teacher reads when its term is on, and on the steps that monitor the KL."""
        distill = self.config.distill
        monitors = distill.monitor_every > 0 and (index % distill.monitor_every == 0 or index + 1 == self.config.steps)
        if self.teacher is None or not (distill.weight > 0 or monitors):
            return None
        with watch.part("teacher"):
            return self.teacher.score(rollouts.texts, [sequence.completion_ids for sequence in rollouts.sequences])


def _metrics(rollouts: Rollouts, update: Update) -> Metrics:
    """What a step reports; with several updates on a batch, loss and token statistics are the last one's."""
    stats, lengths = update.stats, torch.tensor(rollouts.lengths, device=rollouts.rewards.device)
    ratio = (stats.logprobs - rollouts.logprobs).exp()
    quantiles = torch.quantile(ratio.float(), torch.tensor([0.05, 0.95], device=ratio.device)).tolist()
    sampled = None if stats.teacher_logprobs is None else stats.logprobs - stats.teacher_logprobs
    right = (rollouts.rewards >= 0.5).repeat_interleave(lengths)
    return {
        "reward_mean": float(rollouts.rewards.mean()),
        "reward_zero_variance_share": rollouts.zero_variance_share,
        "loss": update.loss,
        "loss_policy": update.policy,
        "loss_distill": update.distill,
        "kl_sampled": _mean(sampled),
        "kl_exact": _mean(stats.kl),
        "kl_wrong": None if stats.kl is None else _mean(stats.kl[~right]),
        "kl_right": None if stats.kl is None else _mean(stats.kl[right]),
        "entropy": _mean(stats.entropy),
        "clip_share": _mean(update.clipped.float()),
        "ratio_q05": quantiles[0],
        "ratio_q95": quantiles[1],
        "completion_tokens": float(lengths.float().mean()),
        "truncated_share": rollouts.truncated / len(rollouts.sequences),
        "tokens": int(lengths.sum()),
    }


def _mean(values: Tensor | None) -> float | None:
    return None if values is None or len(values) == 0 else float(values.double().mean())
