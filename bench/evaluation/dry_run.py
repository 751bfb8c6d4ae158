"""A dry run reports what an evaluation would send to the model, without sending it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.evaluation.config import EvalConfig
from bench.evaluation.prompt_record import turn
from bench.evaluation.requests import keys
from bench.evaluation.selection import Selection
from bench.records import Problem, ResponseKey
from vold.seeding import generator

if TYPE_CHECKING:
    from bench.engines.encoding import EncodingPreparer

_MAX_COUNTED = 64


@dataclass(frozen=True, slots=True)
class RequestForecast:
    """What an evaluation would send for one benchmark.

    passed_over: as in ``Dataset``.
    problems: selected problems.
    answered: responses that are in the log already.
    requests: problems that lack a response.
    responses: missing responses.
    counted: requests whose prompts were encoded to count their tokens.
    unreadable: counted requests whose prompt cannot be prepared.
    prompt_tokens: tokens of all requests, estimated if only some were counted; None for a model behind a server.
    completion_tokens: the most that can be generated.
    """

    dataset: str
    split: str
    synthetic: bool
    passed_over: Mapping[str, str]
    problems: int
    answered: int
    requests: int
    responses: int
    counted: int
    unreadable: int
    prompt_tokens: int | None
    completion_tokens: int

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def forecast(
    config: EvalConfig,
    selections: Sequence[Selection],
    answered: Collection[ResponseKey],
    preparer: "EncodingPreparer | None",
) -> Mapping[str, RequestForecast]:
    """The forecast for each benchmark.

    answered: keys of the responses in the log. preparer: the model's, which needs its settings but not its weights, or
    None for a model behind a server. Raises ModelError and ConfigurationError for a model or settings that the run
    would refuse.
    """
    return {s.dataset.benchmark: _of_benchmark(config, s, answered, preparer) for s in selections}


def _of_benchmark(
    config: EvalConfig, selection: Selection, answered: Collection[ResponseKey], preparer: "EncodingPreparer | None"
) -> RequestForecast:
    missing = {
        problem.id: sum(key not in answered for key in keys(problem, config.samples)) for problem in selection.problems
    }
    incomplete = [problem for problem in selection.problems if missing[problem.id]]
    drawn = incomplete
    if len(incomplete) > _MAX_COUNTED:
        order = generator(0, "dry run", selection.dataset.name).permutation(len(incomplete))
        drawn = [incomplete[index] for index in order[:_MAX_COUNTED]]
    lengths = [] if preparer is None else [_prompt_length(config, preparer, problem) for problem in drawn]
    readable = [length for length in lengths if length is not None]
    responses = sum(missing.values())
    return RequestForecast(
        dataset=selection.dataset.name,
        split=selection.dataset.split,
        synthetic=selection.dataset.synthetic,
        passed_over=dict(selection.dataset.passed_over),
        problems=len(selection.problems),
        answered=len(selection.problems) * config.samples - responses,
        requests=len(incomplete),
        responses=responses,
        counted=len(lengths),
        unreadable=len(lengths) - len(readable),
        prompt_tokens=None if preparer is None else round(sum(readable) * len(incomplete) / max(len(lengths), 1)),
        completion_tokens=responses * config.max_tokens,
    )


def _prompt_length(config: EvalConfig, preparer: "EncodingPreparer", problem: Problem) -> int | None:
    """Tokens of a prompt, images included; None if the prompt cannot be prepared."""
    reading = preparer.read_prompt(turn(config, problem))
    return None if reading is None else len(reading.prompt_ids)
