"""Stage 1, the cold start: SFT on reasoning traces. The loss is the next-token NLL of the completions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vold.config import MAX_NONFINITE_STEPS, SFTConfig
from vold.data.prompts import Trace, chat
from vold.data.reading import claim_data, read_traces
from vold.data.samplers import draw
from vold.data.sources import DataSource
from vold.execution import Execution
from vold.models import EncodedPrompt, Student
from vold.models.packing import TokenSequence, completion_hidden, completion_targets, micro_batches, token_index
from vold.objectives.fused import Head, head_loss
from vold.objectives.reduce import token_weights
from vold.objectives.sft import nll
from vold.preflight.pair import check_models
from vold.training.journal import Stopwatch
from vold.training.loop import StepResult, run_steps
from vold.training.metrics import Metrics
from vold.training.optim import Optimizer, learning_rate
from vold.training.progress import Progress, silent
from vold.training.runtime import make_optimizer, precision, start_training
from vold.training.trainee import load_trainee

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TraceSequence:
    """A trace as token ids, without pixels.

    Its images are read again for every step that uses it, because those of all traces would not fit into memory.
    """

    trace: Trace
    sequence: TokenSequence

    def __len__(self) -> int:
        return len(self.sequence)

    def with_images(self, student: Student) -> TokenSequence:
        """The sequence with the pixels of its images."""
        if not self.trace.images:
            return self.sequence
        return replace(self.sequence, pixels=_prompt(student, self.trace).pixels)


def _prompt(student: Student, trace: Trace) -> EncodedPrompt:
    return student.encode(chat(trace.text, trace.images), trace.images)


def encode_traces(student: Student, traces: Sequence[Trace], max_length: int) -> list[TraceSequence]:
    """The token ids of each trace: chat prompt, completion and end of turn.

    Traces longer than ``max_length`` tokens are left out with a warning. Raises ValueError if no trace is left, or
    naming the first trace whose images cannot be read.
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
        sequence = TraceSequence(trace, TokenSequence(prompts[key], (*completion, student.end_of_turn_id)))
        if len(sequence) <= max_length:
            encoded.append(sequence)
    if not encoded:
        raise ValueError(f"none of {len(traces)} traces fits into max_length {max_length}; raise max_length")
    if dropped := len(traces) - len(encoded):
        _log.warning("%d of %d traces are longer than max_length %d and are left out", dropped, len(traces), max_length)
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
    """Train ``student`` on ``traces`` and write the checkpoint to ``run/out``. Resumes an interrupted run.

    Raises ValueError for traces or a student that do not fit the settings.
    """
    if (run / "out").exists():
        return
    loaded = read_traces(traces)
    device, ranks = start_training(execution)
    if ranks.main:
        claim_data(run, loaded)
    model = load_trainee(student, config, execution, device, seed, images=any(trace.images for trace in loaded))
    check_models(model)
    sequences = encode_traces(model, loaded, config.max_length)
    optimizer = make_optimizer(model, config.optimizer, MAX_NONFINITE_STEPS, execution, ranks)

    def step(index: int, watch: Stopwatch) -> StepResult:
        batch = draw(seed, "sft", len(sequences), config.batch_size, index)
        own = [sequences[position].with_images(model) for position in ranks.share(batch, "batch_size")]
        rate = learning_rate(config.optimizer, index, config.steps)
        with watch.part("train"):
            loss, tokens = _accumulate(model, own, execution, optimizer)
            norm, skipped = optimizer.step(loss, rate)
        total = sum(len(sequences[position]) for position in batch)
        metrics: Metrics = {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
        metrics |= {"tokens": tokens, "skipped": int(skipped)}
        return StepResult(metrics, {"train": total})

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
    """Accumulate the gradients of the batch's mean NLL from this rank's part. Returns the batch's loss and tokens."""
    ranks = optimizer.ranks
    lengths = [len(sequence.completion_ids) for sequence in own]
    all_lengths = ranks.gather(torch.tensor(lengths, device=model.device))
    weights = token_weights(all_lengths, "token_mean")[ranks.span(sum(lengths))]
    loss = torch.zeros((), dtype=torch.float64, device=model.device)

    def summand(rows: list[int]) -> Tensor:
        part = [own[row] for row in rows]
        targets = completion_targets(part, model.device)
        loss_of = nll(weights[token_index(lengths, rows)])
        with precision(execution, model.device):
            return head_loss(completion_hidden(model, part), Head(model.head), targets, loss_of)[0]

    for rows in optimizer.batches(micro_batches(own, execution.micro_batch_tokens)):
        loss += optimizer.accumulate(partial(summand, rows))
    return float(ranks.sum(loss)), int(all_lengths.sum())
