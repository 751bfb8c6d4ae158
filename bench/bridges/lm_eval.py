"""lm-eval's API on our engines: did training hurt the text side? Results are tables like those of ``eval``.

lm-eval asks, our engine answers, and ``process_results`` scores strictly. Only generation is offered: an engine returns
text, so that tasks which compare log-likelihoods cannot run here. Importing this module imports lm-eval.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from datasets import Dataset as Table
from lm_eval import __version__ as lm_eval_version
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask

from bench.engines import Decoding, Engine, Reply, Request
from bench.engines.factory import build
from bench.errors import ConfigurationError, InfrastructureError
from bench.evaluation.config import EvalConfig
from bench.evaluation.model import model_record
from bench.evaluation.parquet_tables import Provenance, write_tables
from bench.evaluation.prompt_record import first_prompts, turn
from bench.evaluation.selection import Selection
from bench.records import Problem, Response
from bench.scoring.scorer import score
from vold.execution import Execution
from vold.seeding import derive

TaskProblem = tuple[str, str]
"""Task and the problem's id."""


class EngineLM(LM):
    """An engine as a model of lm-eval's. ``replies`` keeps what it said, with lengths and reasons to end."""

    def __init__(self, engine: Engine, group_size: int, seed: int = 0) -> None:
        super().__init__()
        self.engine, self.group_size, self.seed = engine, group_size, seed
        self.replies: dict[TaskProblem, Reply] = {}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """One completion a request; raises InfrastructureError where the engine left one out."""
        settings = {_settings(_arguments(request)[1]) for request in requests}
        texts: dict[int, str] = {}
        for setting in sorted(settings, key=repr):
            places = [place for place, request in enumerate(requests) if _settings(_arguments(request)[1]) == setting]
            self._answer(requests, places, setting, texts)
        if missing := len(requests) - len(texts):
            raise InfrastructureError(f"the engine left {missing} of {len(requests)} requests unanswered; run again")
        return [texts[place] for place in range(len(requests))]

    def _answer(self, requests: list[Instance], places: list[int], settings: Decoding, texts: dict[int, str]) -> None:
        asks = []
        for place in places:
            instance = requests[place]
            try:
                prepared = self.engine.preparer([{"type": "text", "text": _arguments(instance)[0]}])
            except ValueError as error:
                self._take(instance, place, Reply(str(error), 0, "error"), texts)
                continue
            seed = derive(self.seed, "eval", str(instance.task_name), instance.doc["id"])
            asks.append(Request(place, prepared, (seed,)))
        groups = [asks[start : start + self.group_size] for start in range(0, len(asks), self.group_size)]
        for answer in self.engine.answer(groups, settings):
            self._take(requests[answer.index], answer.index, answer.replies[0], texts)

    def _take(self, request: Instance, place: int, reply: Reply, texts: dict[int, str]) -> None:
        text = "" if reply.finish_reason == "error" else reply.text
        for stop in _stops(_arguments(request)[1]):
            text = text.partition(stop)[0]
        kept = reply if reply.finish_reason == "error" else Reply(text, reply.tokens, reply.finish_reason)
        self.replies[str(request.task_name), request.doc["id"]] = kept
        texts[place] = text

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        raise ConfigurationError(
            "this bridge only generates: engines return text and no log-likelihoods; choose tasks with generate_until"
        )

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        self.loglikelihood(requests)


def _arguments(request: Instance) -> tuple[str, dict[str, Any]]:
    """Context and generation settings of a ``generate_until``."""
    return request.args  # type: ignore[return-value]


def _stops(generation: dict[str, Any]) -> list[str]:
    until = generation.get("until") or []
    return [until] if isinstance(until, str) else [stop for stop in until if stop]


def _settings(generation: dict[str, Any]) -> Decoding:
    sampled = generation.get("do_sample", False)
    return Decoding(
        int(generation.get("max_gen_toks", 2048)), float(generation.get("temperature", 0)) if sampled else 0.0
    )


def task(selection: Selection, config: EvalConfig) -> ConfigurableTask:
    """The chosen problems as a task of lm-eval's, scored as this suite scores."""
    name = selection.dataset.benchmark
    known = {problem.id: problem for problem in selection.problems}
    rows = [{"id": problem.id, "text": _text(config, problem), "answer": problem.answer} for problem in known.values()]

    def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
        verdict = score(known[doc["id"]], Response(name, doc["id"], 0, results[0], 0, "stop"))
        return {"accuracy": float(verdict.correct)}

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: {"test": Table.from_list(rows)},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": lambda doc: doc["text"],
            "doc_to_target": lambda doc: doc["answer"],
            "process_results": process_results,
            "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
            "generation_kwargs": {
                "until": [],
                "do_sample": config.temperature > 0,
                "temperature": config.temperature,
                "max_gen_toks": config.max_tokens,
            },
            "num_fewshot": 0,
            "metadata": {"version": 1},
        }
    )


def _text(config: EvalConfig, problem: Problem) -> str:
    return "".join(part.get("text", "") for part in turn(config, problem))


def evaluate_text(
    config: EvalConfig, *, model: Path, selections: Sequence[Selection], out: Path, seed: int, execution: Execution
) -> dict[str, object]:
    """Run the tasks through lm-eval and publish ``out``: responses, verdicts, items and summary, as ``evaluate`` does.

    Returns lm-eval's own results by task. Raises ModelError (no checkpoint), ConfigurationError and EngineError.
    """
    checkpoint = model_record(model)
    engine = build(config, model, execution)
    try:
        lm = EngineLM(engine, config.group_size, seed)
        tasks = [task(selection, config) for selection in selections]
        found: Any = simple_evaluate(lm, tasks=tasks, bootstrap_iters=0, log_samples=False)  # type: ignore[arg-type]
        prompts = first_prompts(engine, config, selections)
        about = engine.about()
    finally:
        engine.close()
    figures = {name: values["accuracy,none"] for name, values in found["results"].items()}
    responses, verdicts = {}, {}
    for selection in selections:
        for problem in selection.problems:
            reply = lm.replies[problem.benchmark, problem.id]
            response = Response(problem.benchmark, problem.id, 0, reply.text, reply.tokens, reply.finish_reason)
            responses[response.key], verdicts[response.key] = response, score(problem, response)
    lm_eval = {"version": lm_eval_version, "accuracy": figures}
    provenance = Provenance(config, seed, checkpoint, about, prompts, lm_eval)
    write_tables(out, selections, responses, verdicts, provenance)
    return figures
