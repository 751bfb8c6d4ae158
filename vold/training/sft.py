"""Stage 1, the cold start: the student imitates reasoning traces (next-token NLL on the completion alone)."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vold.config import MAX_NONFINITE_STEPS, Execution, SFTConfig
from vold.data.prompts import Trace, chat
from vold.data.reading import claim_data, read_traces
from vold.data.samplers import draw
from vold.data.sequences import TokenSequence, completion_hidden, completion_targets, micro_batches, token_index
from vold.data.sources import DataSource
from vold.models import Student, freeze, load_student, to_freeze
from vold.objectives.fused import Head, head_loss
from vold.objectives.reduce import token_weights
from vold.objectives.sft import nll
from vold.preflight.pair import check_models
from vold.training.journal import Stopwatch
from vold.training.loop import StepResult, run_steps
from vold.training.optim import Optimizer, learning_rate
from vold.training.progress import Progress, silent
from vold.training.runtime import make_optimizer, precision, start

_log = logging.getLogger(__name__)


def encode_traces(student: Student, traces: Sequence[Trace], max_length: int) -> list[TokenSequence]:
    """Chat prompt, completion and end of turn of each trace; longer ones than ``max_length`` are left out and told.

    The pixels of all pictures are held in memory. Raises ValueError when no trace is left.
    """
    prompts = {key: student.encode(chat(*key), key[1]) for key in {(trace.text, trace.images) for trace in traces}}
    encoded = []
    for trace in traces:
        completion = student.tokenizer(trace.completion, add_special_tokens=False)["input_ids"]
        prompt = prompts[trace.text, trace.images]
        sequence = TokenSequence(prompt.ids, (*completion, student.end_of_turn_id), prompt.pixels)
        if len(sequence) <= max_length:
            encoded.append(sequence)
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
    model = load_student(student, device=device)
    check_models(model)
    freeze(model, to_freeze(config.freeze, pictures=any(row.images for row in imitated)))
    sequences = encode_traces(model, imitated, config.max_length)
    optimizer = make_optimizer(model, config.optimizer, MAX_NONFINITE_STEPS, execution, ranks)

    def step(index: int, watch: Stopwatch) -> StepResult:
        chosen = draw(seed, "sft", len(sequences), config.batch_size, index)
        batch = [sequences[position] for position in chosen]
        rate = learning_rate(config.optimizer, index, config.steps)
        with watch.part("train"):
            loss, tokens = _accumulate(model, batch, execution, optimizer)
            norm, skipped = optimizer.step(loss, rate)
        padded = sum(map(len, batch))
        metrics = {"loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens": tokens, "skipped": int(skipped)}
        return StepResult(metrics, {"train": padded})

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
    model: Student, batch: Sequence[TokenSequence], execution: Execution, optimizer: Optimizer
) -> tuple[float, int]:
    """Gradients of the batch's mean NLL, this rank's share in micro-batches; returns the batch's loss and tokens."""
    ranks, own = optimizer.ranks, optimizer.ranks.share(batch, "batch_size")
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
