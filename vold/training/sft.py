"""Stage 1, the cold start: the student imitates reasoning traces (next-token NLL on the completion alone)."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from vold.config import MAX_NONFINITE_STEPS, Execution, SFTConfig
from vold.data.prompts import Trace
from vold.data.reading import claim_data, read_traces
from vold.data.samplers import draw
from vold.data.sequences import TokenSequence, completion_hidden, completion_targets, micro_batches, token_index
from vold.data.sources import DataSource
from vold.models import Student, freeze, load_student
from vold.objectives.fused import Head, head_loss
from vold.objectives.reduce import token_weights
from vold.objectives.sft import nll
from vold.preflight.pair import check_models
from vold.training.journal import Stopwatch
from vold.training.loop import StepResult, run_steps
from vold.training.optim import Optimizer, learning_rate
from vold.training.progress import Progress, silent
from vold.training.runtime import precision, prepare

_log = logging.getLogger(__name__)


def encode_traces(student: Student, traces: Sequence[Trace], max_length: int) -> list[TokenSequence]:
    """Chat prompt, completion and end of turn of each trace; longer ones than ``max_length`` are left out and told.

    Raises ValueError when none is left.
    """
    prompts = {text: student.encode_text(text) for text in {trace.text for trace in traces}}
    encoded = []
    for trace in traces:
        completion = student.tokenizer(trace.completion, add_special_tokens=False)["input_ids"]
        sequence = TokenSequence(prompts[trace.text], (*completion, student.end_of_turn_id))
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
    claim_data(run, imitated)
    device = prepare(execution)
    model = load_student(student, device=device)
    check_models(model)
    freeze(model, config.freeze)
    sequences = encode_traces(model, imitated, config.max_length)
    optimizer = Optimizer(model.model, config.optimizer, MAX_NONFINITE_STEPS)

    def step(index: int, watch: Stopwatch) -> StepResult:
        chosen = draw(seed, "sft", len(sequences), config.batch_size, index)
        batch = [sequences[position] for position in chosen]
        rate = learning_rate(config.optimizer, index, config.steps)
        with watch.part("train"):
            loss, tokens = _accumulate(model, batch, execution)
            norm, skipped = optimizer.step(loss, rate)
            optimizer.zero_grad()
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


def _accumulate(model: Student, batch: Sequence[TokenSequence], execution: Execution) -> tuple[float, int]:
    """Gradients of the batch's mean NLL, micro-batch by micro-batch; returns the loss and its number of tokens."""
    lengths = [len(sequence.completion_ids) for sequence in batch]
    weights = token_weights(torch.tensor(lengths), "token_mean").to(model.device)
    loss = 0.0
    for rows in micro_batches(batch, execution.micro_batch_tokens):
        part = [batch[row] for row in rows]
        targets = completion_targets(part, model.device)
        loss_of = nll(weights[token_index(lengths, rows)])
        with precision(execution, model.device):
            value, _ = head_loss(completion_hidden(model, part), Head(model.head), targets, loss_of)
        value.backward()
        loss += value.item()
    return loss, sum(lengths)
