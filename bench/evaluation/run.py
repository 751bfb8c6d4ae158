"""One evaluation from problems to tables. An interrupted run resumes with the responses that are missing."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from bench.benchmarks.base import passed_over_lines
from bench.engines.factory import IN_PROCESS, EnginePool
from bench.errors import ConfigurationError, InfrastructureError, OutOfMemoryError
from bench.evaluation.background import BackgroundWorker
from bench.evaluation.config import EvalConfig
from bench.evaluation.hashes import combined_hash, record_hashes
from bench.evaluation.model import model_record
from bench.evaluation.prefetch import prefetch
from bench.evaluation.prompt_record import first_prompts
from bench.evaluation.requests import RequestPass, keys
from bench.evaluation.response_log import ResponseLog, move_aside
from bench.evaluation.running_scores import RunningScores
from bench.evaluation.selection import Selection, read_selections
from bench.evaluation.watchdog import Watchdog
from bench.records import Response
from bench.summary import FirstPrompt, ModelRecord
from vold.execution import Execution
from vold.files import write_whole
from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import EngineError
from vold.training.progress import Progress, silent


def evaluate(
    config: EvalConfig,
    *,
    model: Path,
    data: Mapping[str, Path],
    run: Path,
    seed: int,
    execution: Execution,
    progress: Progress = silent,
    engines: EnginePool | None = None,
    fresh: bool = False,
) -> None:
    """Send every problem to a model, score the responses strictly, and write the tables to ``run/out``.

    The responses are logged in ``run/responses.jsonl``. Called again on the same ``run``, the function requests only
    those that are missing, and the tables are the same.

    model: a checkpoint or the description of a server.
    data: the path of each benchmark's records.
    engines: a pool that keeps an engine warm from one evaluation to the next.
    fresh: start over; the old log is renamed.

    Raises DatasetError, ModelError (no checkpoint), ConfigurationError (no problem can be scored, or ``run`` belongs to
    another evaluation), InfrastructureError (responses are missing), OutOfMemoryError and DiskFullError.
    """
    from bench.evaluation.parquet_tables import Provenance, write_tables  # pandas imports slowly

    selections = read_selections(config, data)
    for selection in selections:
        for line in passed_over_lines(selection.dataset.passed_over):
            print(f"{selection.dataset.name}: {line}", file=sys.stderr)
    run.mkdir(parents=True, exist_ok=True)
    if fresh:
        _start_over(run)
    checkpoint = model_record(model)
    records = {s.dataset.benchmark: record_hashes(s.problems) for s in selections}
    _claim(run, config, seed, checkpoint, execution.dtype, records)
    problems = [problem for selection in selections for problem in selection.problems]
    expected = {key for problem in problems for key in keys(problem, config.samples)}
    with (
        ResponseLog(run / "responses.jsonl", expected) as log,
        nullcontext(engines) if engines is not None else EnginePool() as pool,
    ):
        board = RunningScores(problems)
        for response in log.values():
            board.add(response)
        total = len(expected)
        _Run(config, model, checkpoint, run, seed, execution, selections, log, board, total, progress).fill(pool)
        prompts = json.loads((run / "prompts.json").read_text(encoding="utf-8"))
        provenance = Provenance(
            config=config,
            seed=seed,
            model=checkpoint,
            engine=EngineHistory(run / "engine.json").summary,
            prompts={benchmark: FirstPrompt(**prompt) for benchmark, prompt in prompts.items()},
        )
        write_tables(run / "out", selections, log, board.verdicts, provenance, records)


@dataclass
class _Run:
    """A running evaluation; its log is complete when it holds ``total`` responses."""

    config: EvalConfig
    model: Path
    checkpoint: ModelRecord
    folder: Path
    seed: int
    execution: Execution
    selections: Sequence[Selection]
    log: ResponseLog
    board: RunningScores
    total: int
    progress: Progress

    def fill(self, pool: EnginePool) -> None:
        """Make passes until the log is complete, or a pass brings no response.

        Raises OutOfMemoryError and InfrastructureError if engines keep failing, and InfrastructureError for missing
        responses.
        """
        settings = self.execution.evaluation
        self.progress(len(self.log), self.total, self.board.metrics())
        failures = 0
        while (before := len(self.log)) < self.total:
            try:
                self._pass(pool)
            except EngineError as error:
                pool.drop_broken(error)
                failures = 1 if len(self.log) > before else failures + 1
                if failures > settings.restarts:
                    kind = OutOfMemoryError if is_out_of_memory(error) else InfrastructureError
                    raise kind(f"{error}\n{failures} engines in a row broke; {self._saved}") from error
                continue
            if len(self.log) == before:
                break
        missing = self.total - len(self.log)
        if missing and not settings.accept_missing:
            raise InfrastructureError(
                f"the engine gave no answer to {missing} of {self.total} requests; {self._saved}, or set "
                "execution.evaluation.accept_missing for a result without them"
            )

    @property
    def _saved(self) -> str:
        return f"{len(self.log)} responses are saved in {self.log.path}: run again to request only the others"

    def _pass(self, pool: EnginePool) -> None:
        engine = pool.engine(self.config, self.model, self.execution, self.checkpoint.sha256)
        if not (self.folder / "prompts.json").exists():
            prompts = first_prompts(engine, self.config, self.selections)
            _write_json(self.folder / "prompts.json", {name: asdict(prompt) for name, prompt in prompts.items()})
        history, lock = EngineHistory(self.folder / "engine.json"), Lock()

        def take(response: Response) -> None:
            with lock:  # errors of preparation come from another thread than replies
                history.add(engine.about())
                if self.log.add(response):
                    scoring.put(response)

        # Requests to a server have timeouts of their own.
        watch = Watchdog(self.execution.evaluation.hang_seconds) if self.config.engine in IN_PROCESS else nullcontext()
        with BackgroundWorker(self._score) as scoring, watch:
            requests = RequestPass(engine, self.config, self.selections, self.log, self.seed, take)
            requests.run(prefetch(self.config.engine, self.execution))

    def _score(self, response: Response) -> None:
        import bench.stats.samples  # noqa: F401  scipy imports slowly: do it while the engine works

        self.board.add(response)
        self.progress(len(self.board.verdicts), self.total, self.board.metrics())


class EngineHistory:
    """The versions and settings of every engine that replied, and how they changed, in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    @property
    def summary(self) -> dict[str, object]:
        """The last state, with the ``earlier`` ones if it changed."""
        *earlier, last = self.states or [{}]
        return {**last, "earlier": earlier} if earlier else last

    def add(self, state: dict[str, object]) -> None:
        if state not in self.states:
            self.states.append(state)
            _write_json(self.path, self.states)


def _write_json(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _start_over(run: Path) -> None:
    move_aside(run / "responses.jsonl")
    for name in ("evaluation.json", "prompts.json", "engine.json"):
        (run / name).unlink(missing_ok=True)


def _claim(
    run: Path,
    config: EvalConfig,
    seed: int,
    checkpoint: ModelRecord,
    dtype: str,
    records: Mapping[str, Mapping[str, str]],
) -> None:
    """Record which evaluation the directory belongs to. Raises ConfigurationError if it belongs to another one."""
    claim = {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "model": asdict(checkpoint),
        "dtype": dtype,
        "records_sha256": {benchmark: combined_hash(hashes) for benchmark, hashes in records.items()},
    }
    path = run / "evaluation.json"
    if not path.exists():
        return _write_json(path, claim)
    owner = json.loads(path.read_text(encoding="utf-8"))
    if _without_name(owner) != _without_name(claim):
        raise ConfigurationError(
            f"{run}: holds another evaluation (other settings, seed, model or records, see {path.name}); "
            "give this one a directory of its own"
        )


def _without_name(claim: Mapping[str, Any]) -> dict[str, object]:
    """The claim without the model's name, because the same weights may have several."""
    return {**claim, "model": claim["model"]["sha256"]}
