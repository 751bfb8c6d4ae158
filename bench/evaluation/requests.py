"""Asks an engine for the responses that a log lacks, and logs each as it comes."""

from collections.abc import Callable, Iterator, Sequence

from bench.engines import Decoding, Engine, Reply, Request, RequestReplies
from bench.evaluation.config import EvalConfig
from bench.evaluation.prefetch import Prefetch, Preparation
from bench.evaluation.prompt_record import turn
from bench.evaluation.response_log import ResponseLog
from bench.evaluation.selection import Selection
from bench.records import Problem, Response, ResponseKey, storable
from vold.heartbeat import beat
from vold.seeding import derive


def keys(problem: Problem, samples: int) -> list[ResponseKey]:
    return [(problem.benchmark, problem.id, sample) for sample in range(samples)]


def sample_seeds(seed: int, problem: Problem, samples: int) -> tuple[int, ...]:
    """One a sample, counting up from the problem's: what a server makes of ``n`` samples under one seed."""
    first = derive(seed, "eval", problem.benchmark, problem.id)
    return tuple(first + sample for sample in range(samples))


class Asking:
    """One pass over what is missing in ``log``; every response goes to ``take``.

    An engine whose replies depend on what is decoded together gets whole groups again, always the same ones, and
    what is known of them already stays as it is. Any other gets the missing samples alone.
    """

    def __init__(
        self,
        engine: Engine,
        config: EvalConfig,
        selections: Sequence[Selection],
        log: ResponseLog,
        seed: int,
        take: Callable[[Response], None],
    ) -> None:
        self.engine, self.config, self.log, self.seed, self.take = engine, config, log, seed, take
        self.problems = [problem for selection in selections for problem in selection.problems]
        self.groups = self._incomplete(selections)
        self._asked: dict[int, tuple[int, ...]] = {}

    def run(self, prefetch: Prefetch) -> None:
        """Raises EngineError when the engine broke, ConfigurationError, DiskFullError, InfrastructureError."""
        proven = any(response.finish_reason != "error" for response in self.log.values())
        settings = Decoding(self.config.max_tokens, self.config.temperature, proven)
        with Preparation(self.engine.preparer, prefetch) as preparation:
            for answer in self.engine.answer(self._prepared(preparation), settings):
                beat()
                self._take(answer)

    def _incomplete(self, selections: Sequence[Selection]) -> list[range]:
        """Places of the problems of each group that misses a response."""
        size = self.config.group_size if self.engine.grouped else 1
        groups: list[range] = []
        start = 0
        for selection in selections:
            end = start + len(selection.problems)
            groups += [range(first, min(first + size, end)) for first in range(start, end, size)]
            start = end
        return [group for group in groups if any(self._missing(place) for place in group)]

    def _missing(self, place: int) -> tuple[int, ...]:
        """The samples that the log lacks."""
        return tuple(key[-1] for key in keys(self.problems[place], self.config.samples) if key not in self.log)

    def _prepared(self, preparation: Preparation) -> Iterator[list[Request]]:
        places = (place for group in self.groups for place in group)
        made = preparation.prepared(turn(self.config, self.problems[place]) for place in places)
        for group in self.groups:
            asks = []
            for place in group:
                beat()
                value = next(made)
                samples = tuple(range(self.config.samples)) if self.engine.grouped else self._missing(place)
                self._asked[place] = samples
                if isinstance(value, ValueError):
                    self._take(RequestReplies(place, [Reply(str(value), 0, "error")] * len(samples)))
                else:
                    seeds = sample_seeds(self.seed, self.problems[place], self.config.samples)
                    asks.append(Request(place, value, tuple(seeds[sample] for sample in samples)))
            if asks:
                yield asks

    def _take(self, answer: RequestReplies) -> None:
        problem = self.problems[answer.index]
        samples = self._asked[answer.index][answer.first :]
        sizes = (answer.prompt_tokens, answer.visual_tokens)
        for sample, reply in zip(samples, answer.replies, strict=False):
            text, key = storable(reply.text), (problem.benchmark, problem.id, sample)
            self.take(Response(*key, text, reply.tokens, reply.finish_reason, *sizes))
