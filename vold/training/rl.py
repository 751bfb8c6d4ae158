"""Stage 2: GRPO, on-policy distillation (OPD), or both on the same rollouts.

    vold-bench train rl FILE
    vold-bench train rl FILE --processes 8

This is GRPO (Shao et al. 2024, arXiv 2402.03300) reduced to what a verifiable reward needs:

1. There is no KL penalty to a reference model, so none is loaded. The optional teacher term (OPD) takes its place.
2. There is no reward model. The reward is 1 if the answer is right and 0 otherwise, without a bonus for the format or
   the length (``vold.rewards``).
3. There is no entropy bonus.
4. Rollouts are never reused in a later step. By default a step has one update, so the probability ratio is 1 and the
   clip never binds.
5. By default the loss is the mean over all tokens of the batch, and not first over the tokens of each rollout. The
   upper clip bound is higher than the lower one.

As in every GRPO there is no value function. The advantage of a rollout is its reward minus the mean of its group, by
default divided by the group's standard deviation, and all its tokens share it. Dr.GRPO, DAPO, GSPO and CISPO are
settings of the same loss (``vold.config.ALGORITHMS``).

``train_rl`` reads and checks prompts and models, and tests the reward function. Then each step does the following:

1. Hand the student's present weights to the rollout engine and prove that it uses them (only vLLM needs this).
2. Draw prompts, sample a group of completions for each, and compute their rewards and advantages. On some steps, also
   answer the validation prompts.
3. Let the teacher read the completions that get its term, or all of them if the KL is measured in this step.
4. Accumulate the gradients of reward_weight * policy term + distill.weight * teacher term, micro-batch by micro-batch,
   and update the student with AdamW. A step with a value that is not finite is skipped. On some steps, measure first
   the gradient norm of each term alone.
5. Write the metrics and, every ``checkpoint_every`` steps, the training state.

With the schedule ``distill_then_reward`` the run has two parts. The teacher term alone is optimised in the first and
the policy term alone in the second, which starts with the weights of the first and with a fresh optimizer.

At the end the student's checkpoint is written to ``run/out``. With several processes, each takes its share of the
prompts, and the gradients are summed.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vold.config import RLConfig
from vold.data.images import check_images
from vold.data.prompts import Prompt
from vold.data.reading import claim_data, read_prompts
from vold.data.sources import DataSource
from vold.distributed import Ranks
from vold.execution import Execution
from vold.models import Student, load_teacher
from vold.objectives.schedule import TermWeights, term_weights
from vold.preflight.pair import check_models
from vold.rewards import self_test
from vold.rollout.factory import build_engine
from vold.rollout.proof import weights_of
from vold.teacher import Teacher
from vold.training.health import guarded_loss
from vold.training.journal import Stopwatch
from vold.training.loop import StepResult, run_steps
from vold.training.metrics import Metrics, Totals, rollout_metrics, rollout_totals
from vold.training.objective import Objective, Update
from vold.training.optim import learning_rate
from vold.training.progress import Progress, silent
from vold.training.rollouts import Collector, Rollouts
from vold.training.runtime import frozen_dtype, make_optimizer, precision, start_training
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
    """Train ``student`` on ``prompts`` and write the checkpoint to ``run/out``. Resumes an interrupted run.

    teacher: may be None if the loss has no teacher term; no KL to it is measured then. validation: prompts that are
    answered every ``validate_every`` steps and never trained on.

    Raises ValueError for prompts, images or models that do not fit the settings, and RewardError when the reward
    function fails its self-test.
    """
    if (run / "out").exists():
        return
    if teacher is None and config.distill.needs_teacher:
        raise ValueError(
            "distill.weight is above 0, but there is no teacher; name a checkpoint under `teacher`, or set "
            "distill.weight to 0"
        )
    training_prompts = read_prompts(prompts)
    validation_prompts = [] if validation is None else read_prompts(validation)
    teacher = teacher if config.distill.uses_teacher else None
    _check(training_prompts, config, teacher is not None)
    _check(validation_prompts, config, has_teacher=False)
    self_test()
    device, ranks = start_training(execution)
    if ranks.main:
        claim_data(run, training_prompts)
    has_images = any(prompt.images for prompt in training_prompts)
    trainee = load_trainee(student, config, execution, device, seed, images=has_images)
    scorer = None
    if teacher is not None:
        teacher_model = load_teacher(teacher, dtype=frozen_dtype(execution), device=device)
        scorer = Teacher(teacher_model, execution.micro_batch_tokens)
    check_models(trainee, scorer.model if scorer else None)
    stage = RLStage(config, execution, ranks, trainee, scorer, training_prompts, validation_prompts, seed)
    with closing(stage.engine):
        run_steps(
            stage.step,
            config=config,
            steps=config.steps,
            model=trainee,
            optimizer=stage.optimizer,
            run=run,
            execution=execution,
            progress=progress,
        )


def _check(prompts: Sequence[Prompt], config: RLConfig, has_teacher: bool) -> None:
    """Raise ValueError for prompts whose reward could only be 0, and for images that the teacher would not see."""
    unanswered = [prompt.id for prompt in prompts if not prompt.answer.strip()]
    if unanswered:
        raise ValueError(
            f"{len(unanswered)} of {len(prompts)} prompts have no reference answer to reward (the first is "
            f"{unanswered[0]!r}); add the answers, or remove these prompts from the data"
        )
    if has_teacher:
        check_images(prompts, config.distill.images, "distill.images")


class RLStage:
    """Everything that one step of RL needs, and the step itself."""

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
        """Do the step ``index`` (from 0) on this rank's share of the prompts, as the module's docstring describes."""
        weights = term_weights(self.config, index)
        part = next(part for part in self.config.parts if index in part)
        if index == part.start and index > 0:
            self.optimizer.restart()
        with precision(self.execution, self.student.device), self.optimizer.whole_weights():
            rollouts, validation_reward = self._rollouts(index, weights, watch)
            rollouts, teacher_states = self._read_by_teacher(index, weights, rollouts, watch)
        rate = learning_rate(self.config.optimizer, index - part.start, len(part))
        first, skipped = None, False
        for _ in range(1, self.config.updates_per_batch):
            first, _, _, skip = self._update(rollouts, teacher_states, weights, rate, watch, first)
            skipped |= skip
        norms = self._term_norms(index, rollouts, teacher_states, weights, watch, first)
        _, totals, norm, skip = self._update(rollouts, teacher_states, weights, rate, watch, first)
        metrics = rollout_metrics(totals, start=index == 0)
        metrics |= {"gradient_norm": norm, "learning_rate": rate, "skipped": int(skipped or skip)}
        metrics |= {"reward_weight": weights.policy, "distill_weight": weights.distill}
        metrics |= _norm_metrics(weights, norm, norms)
        metrics |= {"validation_reward": validation_reward}
        sampled, read, total = self.ranks.sum(_token_counts(rollouts)).tolist()
        tokens = {"rollout": sampled, "teacher": read, "train": total * self.config.updates_per_batch}
        return StepResult(metrics, tokens)

    def _rollouts(self, index: int, weights: TermWeights, watch: Stopwatch) -> tuple[Rollouts, float | None]:
        """The step's rollouts and the validation reward, from an engine that is proven to hold the present weights.

        The engine sleeps while the weights change.
        """
        if not self.engine.live:
            with watch.part("sync"):
                if self.student.device.type == "cuda":
                    torch.cuda.empty_cache()  # the engine needs the memory that the last update used
                self.engine.sync(weights_of(self.student))
        rollouts = self.collector.collect(index, watch, refill=weights.policy > 0)
        validation_reward = self.validator.measure(index, watch)
        self.engine.sleep()
        return rollouts, validation_reward

    def _read_by_teacher(
        self, index: int, weights: TermWeights, rollouts: Rollouts, watch: Stopwatch
    ) -> tuple[Rollouts, Tensor | None]:
        """The rollouts with what the teacher reads of them, and its hidden states [T, H]; None if it reads nothing.

        It reads all rollouts if this step measures the KL, and otherwise those that get the teacher term.
        """
        distill = self.config.distill
        monitors = self._is_due(index, distill.monitor_every)
        if self.teacher is None or not (monitors or (weights.distill > 0 and distill.target == "teacher")):
            return rollouts, None
        rollouts = replace(rollouts, teacher_reads="all" if monitors else distill.mask)
        completions = [sequence.completion_ids for sequence in rollouts.sequences]
        with watch.part("teacher"):
            return rollouts, self.teacher.score(rollouts.teacher_texts, completions)

    def _is_due(self, index: int, every: int) -> bool:
        """Whether the step ``index`` takes a measurement that is due ``every`` steps and in the last one. 0: never."""
        return every > 0 and (index % every == 0 or index + 1 == self.config.steps)

    def _term_norms(
        self,
        index: int,
        rollouts: Rollouts,
        teacher_states: Tensor | None,
        weights: TermWeights,
        watch: Stopwatch,
        first: Update | None,
    ) -> dict[str, float]:
        """The gradient norm of each term alone, from a pass for each. Empty if this step does not measure them."""
        terms = weights.terms()
        due = self._is_due(index, self.execution.gradient_norms_every)
        if len(terms) < 2 or not due or not self.optimizer.measures_gradients:
            return {}
        norms = {}
        with watch.part("gradient_norms"):
            for name, alone in terms.items():
                states = teacher_states if alone.distill else None
                self.objective.accumulate(rollouts, states, alone, first.stats.logprobs if first else None)
                norms[name] = self.optimizer.take_norm()
        return norms

    def _update(
        self,
        rollouts: Rollouts,
        teacher_states: Tensor | None,
        weights: TermWeights,
        rate: float,
        watch: Stopwatch,
        first: Update | None,
    ) -> tuple[Update, Totals, float, bool]:
        """Update the student once, where ``first`` is the first update on the same rollouts if this is a later one.

        Returns the first update, the totals over all ranks, the gradient norm, and whether the optimizer skipped it.
        """
        with watch.part("train"):
            old_logprobs = first.stats.logprobs if first else None
            update = self.objective.backward(rollouts, teacher_states, weights, old_logprobs)
            totals = rollout_totals(rollouts, first or update, update, self.config.max_new_tokens)
            totals = totals.reduced(self.ranks.sum, self.ranks.gather)
            norm, skipped = self.optimizer.step(guarded_loss(totals.sums["loss"], totals), rate)
        return first or update, totals, norm, skipped


def _token_counts(rollouts: Rollouts) -> Tensor:
    """Tokens [3] that were sampled, that the teacher read and that a pass of training has."""
    lengths = [len(sequence) for sequence in rollouts.sequences]
    texts = zip(lengths, rollouts.teacher_texts, strict=True)
    read = sum(length for length, text in texts if text is not None)
    return torch.tensor([sum(rollouts.lengths) + rollouts.discarded_tokens, read, sum(lengths)])


def _norm_metrics(weights: TermWeights, norm: float, alone: Mapping[str, float]) -> Metrics:
    """The metrics of the terms' gradient norms. norm: of the whole gradient. alone: of each term, where measured."""
    terms = weights.terms()
    measured = dict.fromkeys(terms, norm) if len(terms) == 1 else alone
    return {f"gradient_norm_{name}": measured.get(name) if name in terms else 0.0 for name in ("policy", "distill")}
