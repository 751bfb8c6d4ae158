"""What an evaluation would ask, before anything is asked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.evaluation.config import EvalConfig
from bench.evaluation.prompt_record import turn
from bench.evaluation.requests import keys
from bench.evaluation.selection import Selection
from bench.records import Problem, ResponseKey
from vold.seeding import generator

if TYPE_CHECKING:
    from bench.engines.encoding import EncodingPreparer

_COUNTED = 64


@dataclass(frozen=True, slots=True)
class Ahead:
    """Of one benchmark. ``requests``: problems of which a response is missing; ``responses``: those that are missing;
    ``answered``: those that are there. passed_over: as ``Dataset`` tells it.

    prompt_tokens: of all requests; where ``counted`` is less than ``requests``, an estimate from so many prompts drawn
    at random, and None for a model behind a server, of which none are counted. completion_tokens: the most that can be
    generated. unreadable: of the counted prompts, those that cannot be asked.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def look_ahead(
    config: EvalConfig,
    selections: Sequence[Selection],
    answered: Collection[ResponseKey],
    preparer: "EncodingPreparer | None",
) -> Mapping[str, Ahead]:
    """By benchmark; ``preparer`` is the model's, which needs its settings and not its weights: None behind a server.

    Raises ModelError and ConfigurationError for a model or settings with which the run would end.
    """
    return {s.dataset.benchmark: _of(config, s, answered, preparer) for s in selections}


def _of(
    config: EvalConfig, selection: Selection, answered: Collection[ResponseKey], preparer: "EncodingPreparer | None"
) -> Ahead:
    missing = {
        problem.id: sum(key not in answered for key in keys(problem, config.samples)) for problem in selection.problems
    }
    asked = [problem for problem in selection.problems if missing[problem.id]]
    drawn = asked
    if len(asked) > _COUNTED:
        order = generator(0, "dry run", selection.dataset.name).permutation(len(asked))
        drawn = [asked[place] for place in order[:_COUNTED]]
    lengths = [] if preparer is None else [_length(config, preparer, problem) for problem in drawn]
    readable = [length for length in lengths if length is not None]
    responses = sum(missing.values())
    return Ahead(
        dataset=selection.dataset.name,
        split=selection.dataset.split,
        synthetic=selection.dataset.synthetic,
        passed_over=dict(selection.dataset.passed_over),
        problems=len(selection.problems),
        answered=len(selection.problems) * config.samples - responses,
        requests=len(asked),
        responses=responses,
        counted=len(lengths),
        unreadable=len(lengths) - len(readable),
        prompt_tokens=None if preparer is None else round(sum(readable) * len(asked) / max(len(lengths), 1)),
        completion_tokens=responses * config.max_tokens,
    )


def _length(config: EvalConfig, preparer: "EncodingPreparer", problem: Problem) -> int | None:
    """Tokens of a prompt, images included; None where it cannot be asked."""
    reading = preparer.read_prompt(turn(config, problem))
    return None if reading is None else len(reading.prompt_ids)
