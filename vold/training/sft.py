"""Stage 1, the cold start: the student imitates reasoning traces (next-token NLL on the completion alone)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vold.config import MAX_NONFINITE_STEPS, Execution, SFTConfig
from vold.data.prompts import Trace, chat
from vold.data.reading import claim_data, read_traces
from vold.data.samplers import draw
from vold.data.sources import DataSource
from vold.models import EncodedPrompt, Student
from vold.models.packing import TokenSequence, completion_hidden, completion_targets, micro_batches, token_index
from vold.objectives.fused import Head, head_loss
from vold.objectives.reduce import token_weights
from vold.objectives.sft import nll
from vold.preflight.pair import check_models
from vold.training.journal import Stopwatch
from vold.training.loop import StepResult, run_steps
from vold.training.optim import Optimizer, learning_rate
from vold.training.progress import Progress, silent
from vold.training.runtime import make_optimizer, precision, start
from vold.training.trainee import load_trainee

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TraceSequence:
    """A trace as ids. Its images are read again whenever it is learned from: those of all would fill the memory."""

    trace: Trace
    sequence: TokenSequence

    def __len__(self) -> int:
        return len(self.sequence)

    def with_images(self, student: Student) -> TokenSequence:
        """What the student is trained on."""
        if not self.trace.images:
            return self.sequence
        return replace(self.sequence, pixels=_prompt(student, self.trace).pixels)


def _prompt(student: Student, trace: Trace) -> EncodedPrompt:
    return student.encode(chat(trace.text, trace.images), trace.images)


def encode_traces(student: Student, traces: Sequence[Trace], max_length: int) -> list[TraceSequence]:
    """Chat prompt, completion and end of turn of each trace; longer ones than ``max_length`` are left out and told.

    Raises ValueError when none is left, or naming the trace whose images cannot be read.
    """
    prompts: dict[tuple[str, tuple[Path, ...]], tuple[int, ...]] = {}
    encoded = []
    for trace in traces:
        key = (trace.text, trace.images)
        if key not in prompts:
            try:
                prompts[key] = _prompt(student, trace).prompt_ids
            except ValueError as error:
                raise ValueError(f"trace {trace.id!r}: {error}") from error
        completion = student.tokenizer(trace.completion, add_special_tokens=False)["input_ids"]
        lesson = TraceSequence(trace, TokenSequence(prompts[key], (*completion, student.end_of_turn_id)))
        if len(lesson) <= max_length:
            encoded.append(lesson)
    if not encoded:
        raise ValueError(f"none of {len(traces)} traces fits into max_length {max_length}")
    if dropped := len(traces) - len(encoded):
        _log.warning("%d of %d traces are over max_length %d and were left out", dropped, len(traces), max_length)
    return encoded


def train_sft(
    config: SFTConfig,
    *,
    student: Path,
    traces: Path | DataSource,
    run: Path,
    seed: int,
    execution: Execution,
    progress: Progress = silent,
) -> None:
    """Train ``student`` on ``traces`` and write the checkpoint to ``run/out``; resumes what ``run`` holds."""
    if (run / "out").exists():
        return
    imitated = read_traces(traces)
    device, ranks = start(execution)
    if ranks.main:
        claim_data(run, imitated)
    model = load_trainee(student, config, execution, device, seed, images=any(trace.images for trace in imitated))
    check_models(model)
    lessons = encode_traces(model, imitated, config.max_length)
    optimizer = make_optimizer(model, config.optimizer, MAX_NONFINITE_STEPS, execution, ranks)

    def step(index: int, watch: Stopwatch) -> StepResult:
        chosen = draw(seed, "sft", len(lessons), config.batch_size, index)
        own = [lessons[position].with_images(model) for position in ranks.share(chosen, "batch_size")]
        rate = learning_rate(config.optimizer, index, config.steps)
        with watch.part("train"):
            loss, tokens = _accumulate(model, own, execution, optimizer)
            norm, skipped = optimizer.step(loss, rate)
        learned = sum(len(lessons[position]) for position in chosen)
        metrics = {"loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens": tokens, "skipped": int(skipped)}
        return StepResult(metrics, {"train": learned})

    run_steps(
        step,
        config=config,
        steps=config.steps,
        model=model,
        optimizer=optimizer,
        run=run,
        execution=execution,
        progress=progress,
    )


def _accumulate(
    model: Student, own: Sequence[TokenSequence], execution: Execution, optimizer: Optimizer
) -> tuple[float, int]:
    """Gradients of the batch's mean NLL from this rank's ``own`` part; returns the loss and tokens of the whole."""
    ranks = optimizer.ranks
    lengths = [len(sequence.completion_ids) for sequence in own]
    everyones = ranks.gather(torch.tensor(lengths, device=model.device))
    weights = token_weights(everyones, "token_mean")[ranks.span(sum(lengths))]
    loss = torch.zeros((), dtype=torch.float64, device=model.device)

    def share(rows: list[int]) -> Tensor:
        part = [own[row] for row in rows]
        targets = completion_targets(part, model.device)
        loss_of = nll(weights[token_index(lengths, rows)])
        with precision(execution, model.device):
            return head_loss(completion_hidden(model, part), Head(model.head), targets, loss_of)[0]

    for rows in optimizer.batches(micro_batches(own, execution.micro_batch_tokens)):
        loss += optimizer.accumulate(partial(share, rows))
    return float(ranks.sum(loss)), int(everyones.sum())
