"""Stage 2: GRPO and on-policy distillation on the same rollouts."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from vold.config import Execution, RLConfig
from vold.data.images import check_images
from vold.data.prompts import Prompt
from vold.data.reading import claim_data, read_prompts
from vold.data.sources import DataSource
from vold.distributed import Ranks
from vold.models import Student, load_teacher
from vold.objectives.distill import distill_weight
from vold.preflight.pair import check_models
from vold.rewards import self_test
from vold.rollout.factory import build_engine
from vold.rollout.proof import weights_of
from vold.teacher import Teacher
from vold.training.health import guarded_loss
from vold.training.journal import Stopwatch
from vold.training.loop import StepResult, run_steps
from vold.training.metrics import rollout_metrics, rollout_totals
from vold.training.objective import Objective
from vold.training.optim import learning_rate
from vold.training.progress import Progress, silent
from vold.training.rollouts import Collector, Rollouts
from vold.training.runtime import frozen_dtype, make_optimizer, precision, start
from vold.training.trainee import load_trainee
from vold.training.validation import Validator


def train_rl(
    config: RLConfig,
    *,
    student: Path,
    teacher: Path | None,
    prompts: Path | DataSource,
    run: Path,
    seed: int,
    execution: Execution,
    progress: Progress = silent,
    validation: Path | DataSource | None = None,
) -> None:
    """Train ``student`` on ``prompts`` and write the checkpoint to ``run/out``; resumes what ``run`` holds.

    ``teacher`` may be None when ``distill.weight`` is 0; then no KL is measured. ``validation`` are prompts that are
    asked now and then and never learned from.
    """
    if (run / "out").exists():
        return
    if teacher is None and config.distill.active:
        raise ValueError(
            "distill.weight is above 0, but there is no teacher: name a checkpoint under `teacher`, or set it to 0"
        )
    asked = read_prompts(prompts)
    held_out = [] if validation is None else read_prompts(validation)
    _check(asked, config, teacher is not None)
    _check(held_out, config, has_teacher=False)
    self_test()
    device, ranks = start(execution)
    if ranks.main:
        claim_data(run, asked)
    model = load_trainee(student, config, execution, device, seed, images=any(prompt.images for prompt in asked))
    scorer = None
    if teacher is not None:
        reader = load_teacher(teacher, dtype=frozen_dtype(execution), device=device)
        scorer = Teacher(reader, execution.micro_batch_tokens)
    check_models(model, scorer.model if scorer else None)
    stage = RLStage(config, execution, ranks, model, scorer, asked, held_out, seed)
    with closing(stage.engine):
        run_steps(
            stage.step,
            config=config,
            steps=config.steps,
            model=model,
            optimizer=stage.optimizer,
            run=run,
            execution=execution,
            progress=progress,
        )


def _check(prompts: Sequence[Prompt], config: RLConfig, has_teacher: bool) -> None:
    """Refuse prompts whose reward could only be 0, and images that the teacher would not see."""
    unanswered = [prompt.id for prompt in prompts if not prompt.answer.strip()]
    if unanswered:
        raise ValueError(
            f"{len(unanswered)} of {len(prompts)} prompts have no answer to reward (the first is {unanswered[0]!r}); "
            "leave them out of the data, or give them one"
        )
    if has_teacher and (config.distill.active or config.distill.monitor_every > 0):
        check_images(prompts, config.distill.images, "distill.images")


class RLStage:
    """Everything that a step needs."""

    def __init__(
        self,
        config: RLConfig,
        execution: Execution,
        ranks: Ranks,
        student: Student,
        teacher: Teacher | None,
        prompts: Sequence[Prompt],
        validation: Sequence[Prompt],
        seed: int,
    ) -> None:
        self.config, self.execution, self.ranks = config, execution, ranks
        self.student, self.teacher = student, teacher
        self.engine = build_engine(student, config.rollout, execution)
        self.collector = Collector(student, self.engine, prompts, config, seed, ranks)
        self.validator = Validator(student, self.engine, validation, config, ranks)
        self.optimizer = make_optimizer(student, config.optimizer, config.max_nonfinite_steps, execution, ranks)
        self.objective = Objective(student, teacher.model if teacher else None, config, execution, self.optimizer)

    def step(self, index: int, watch: Stopwatch) -> StepResult:
        """Roll out, reward, let the teacher read, update; each rank its share of the prompts."""
        weight = distill_weight(self.config.distill, index, self.config.steps)
        with precision(self.execution, self.student.device), self.optimizer.whole():
            rollouts, validated = self._rollouts(index, watch)
            states = self._teacher_states(index, weight, rollouts, watch)
        rate = learning_rate(self.config.optimizer, index, self.config.steps)
        skipped, first = False, None
        with watch.part("train"):
            for _ in range(self.config.updates_per_batch):
                update = self.objective.backward(rollouts, states, weight, first.stats.logprobs if first else None)
                first = first or update
                totals = rollout_totals(rollouts, first, update, self.config.max_new_tokens)
                totals = totals.reduced(self.ranks.sum, self.ranks.gather)
                norm, skip = self.optimizer.step(guarded_loss(totals.sums["loss"], totals), rate)
                skipped |= skip
        metrics = rollout_metrics(totals, start=index == 0)
        metrics |= {"grad_norm": norm, "learning_rate": rate, "distill_weight": weight, "skipped": int(skipped)}
        metrics |= {"validation_reward": validated}
        counts = torch.tensor([sum(rollouts.lengths) + rollouts.discarded_tokens, sum(map(len, rollouts.sequences))])
        sampled, whole = self.ranks.sum(counts).tolist()
        tokens = {"rollout": sampled, "teacher": whole, "train": whole * self.config.updates_per_batch}
        return StepResult(metrics, tokens)

    def _rollouts(self, index: int, watch: Stopwatch) -> tuple[Rollouts, float | None]:
        """And the validation's reward; from an engine proven to hold the present weights, asleep while they change."""
        if not self.engine.live:
            with watch.part("sync"):
                if self.student.device.type == "cuda":
                    torch.cuda.empty_cache()  # the engine needs what the last update has left
                self.engine.sync(weights_of(self.student))
        rollouts, validated = self.collector.collect(index, watch), self.validator.measure(index, watch)
        self.engine.sleep()
        return rollouts, validated

    def _teacher_states(self, index: int, weight: float, rollouts: Rollouts, watch: Stopwatch) -> Tensor | None:
        """The teacher reads when its term is on, and on the steps that monitor the KL."""
        distill = self.config.distill
        monitors = distill.monitor_every > 0 and (index % distill.monitor_every == 0 or index + 1 == self.config.steps)
        if self.teacher is None or not (weight > 0 or monitors):
            return None
        with watch.part("teacher"):
            return self.teacher.score(rollouts.texts, [sequence.completion_ids for sequence in rollouts.sequences])
