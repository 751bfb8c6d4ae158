"""Problems x samples -> responses -> verdicts; a killed run goes on with what is missing."""

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
from bench.evaluation.background import Beside
from bench.evaluation.config import EvalConfig
from bench.evaluation.hashes import combined_hash, record_hashes
from bench.evaluation.model import model_record
from bench.evaluation.prefetch import prefetch
from bench.evaluation.prompt_record import first_prompts
from bench.evaluation.requests import Asking, keys
from bench.evaluation.response_log import ResponseLog, keep_aside
from bench.evaluation.scoreboard import Scoreboard
from bench.evaluation.selection import Selection, choose
from bench.evaluation.watchdog import Watchdog
from bench.records import Response
from bench.summary import FirstPrompt
from vold.config import Execution
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
    """Ask a checkpoint every problem, score strictly, and write ``run/out``: responses, verdicts and summary.

    data: the place of each benchmark's records. While it works it appends ``run/responses.jsonl``; called again
    on the same ``run`` it asks for what is missing there and ends with the same tables. engines: where several
    checkpoints are evaluated one after the other, the pool that keeps their engine warm. fresh: begin anew and keep
    the old log aside. Raises DatasetError, ModelError (no checkpoint), ConfigurationError (nothing to score, or ``run``
    belongs to another evaluation), InfrastructureError (the engine left responses out), OutOfMemoryError and
    DiskFullError.
    """
    from bench.evaluation.tables import Provenance, write_tables  # pandas imports slowly

    selections = choose(config, data)
    for selection in selections:
        for line in passed_over_lines(selection.dataset.passed_over):
            print(f"{selection.dataset.benchmark}: {line}", file=sys.stderr)
    run.mkdir(parents=True, exist_ok=True)
    if fresh:
        _begin_anew(run)
    checkpoint = model_record(model)
    records = {s.dataset.benchmark: record_hashes(s.problems) for s in selections}
    claim = {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "model": asdict(checkpoint),
        "dtype": execution.dtype,
        "records_sha256": {benchmark: combined_hash(hashes) for benchmark, hashes in records.items()},
    }
    _claim(run, claim)
    problems = [problem for selection in selections for problem in selection.problems]
    wanted = {key for problem in problems for key in keys(problem, config.samples)}
    with (
        ResponseLog(run / "responses.jsonl", wanted) as log,
        nullcontext(engines) if engines is not None else EnginePool() as pool,
    ):
        board = Scoreboard(problems)
        for response in log.values():
            board.add(response)
        sha256 = checkpoint.sha256
        work = _Work(config, model, sha256, run, seed, execution, selections, log, board, len(wanted), progress)
        work.fill(pool)
        prompts = json.loads((run / "prompts.json").read_text(encoding="utf-8"))
        provenance = Provenance(
            config=config,
            seed=seed,
            model=checkpoint,
            engine=Used(run / "engine.json").summary,
            prompts={benchmark: FirstPrompt(**prompt) for benchmark, prompt in prompts.items()},
        )
        write_tables(run / "out", selections, log, board.verdicts, provenance, records)


@dataclass
class _Work:
    """An evaluation with everything it needs to fill its log, of which ``total`` responses are wanted."""

    config: EvalConfig
    model: Path
    sha256: str
    run: Path
    seed: int
    execution: Execution
    selections: Sequence[Selection]
    log: ResponseLog
    board: Scoreboard
    total: int
    progress: Progress

    def fill(self, pool: EnginePool) -> None:
        """Ask until nothing is missing, or nothing new comes. Raises InfrastructureError and OutOfMemoryError."""
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
                    raise kind(f"{error}\n{failures} engines in a row broke; {self._kept}") from error
                continue
            if len(self.log) == before:
                break
        missing = self.total - len(self.log)
        if missing and not settings.accept_missing:
            raise InfrastructureError(
                f"the engine gave no answer to {missing} of {self.total} requests; {self._kept}, or set "
                "execution.evaluation.accept_missing for a result without them"
            )

    @property
    def _kept(self) -> str:
        return f"{len(self.log)} responses are kept in {self.log.path}: run again to ask for the others alone"

    def _pass(self, pool: EnginePool) -> None:
        engine = pool.engine(self.config, self.model, self.execution, self.sha256)
        if not (self.run / "prompts.json").exists():
            prompts = first_prompts(engine, self.config, self.selections)
            _write_json(self.run / "prompts.json", {name: asdict(prompt) for name, prompt in prompts.items()})
        used, lock = Used(self.run / "engine.json"), Lock()

        def take(response: Response) -> None:
            with lock:  # what cannot be asked may come from the thread that prepares
                used.note(engine.about())
                if self.log.add(response):
                    scoring.put(response)

        # Servers are bounded by timeouts of their own.
        watch = Watchdog(self.execution.evaluation.hang_seconds) if self.config.engine in IN_PROCESS else nullcontext()
        with Beside(self._score) as scoring, watch:
            asking = Asking(engine, self.config, self.selections, self.log, self.seed, take)
            asking.run(prefetch(self.config.engine, self.execution))

    def _score(self, response: Response) -> None:
        import bench.stats.samples  # noqa: F401  scipy imports slowly: do it while the engine works

        self.board.add(response)
        self.progress(len(self.board.verdicts), self.total, self.board.metrics())


class Used:
    """Every engine that answered, each state of it once: versions, settings, what was made smaller on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    @property
    def summary(self) -> dict[str, Any]:
        """The last state, with the ``earlier`` ones if it changed."""
        *earlier, last = self.states or [{}]
        return {**last, "earlier": earlier} if earlier else last

    def note(self, about: dict[str, Any]) -> None:
        if about not in self.states:
            self.states.append(about)
            _write_json(self.path, self.states)


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _begin_anew(run: Path) -> None:
    keep_aside(run / "responses.jsonl")
    for name in ("evaluation.json", "prompts.json", "engine.json"):
        (run / name).unlink(missing_ok=True)


def _claim(run: Path, claim: Mapping[str, Any]) -> None:
    """Mark a new run directory as this evaluation's; refuse one that is another's."""
    path = run / "evaluation.json"
    if not path.exists():
        return _write_json(path, claim)
    owner = json.loads(path.read_text(encoding="utf-8"))
    if _without_name(owner) != _without_name(claim):
        raise ConfigurationError(
            f"{run}: holds another evaluation (other settings, seed, model or records, see {path.name}); "
            "give this one a directory of its own"
        )


def _without_name(claim: Mapping[str, Any]) -> dict[str, Any]:
    """The same weights may be called differently."""
    return {**claim, "model": claim["model"]["sha256"]}
