"""Requests to an engine for the responses that a log lacks."""

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
    """The keys of all responses to a problem."""
    return [(problem.benchmark, problem.id, sample) for sample in range(samples)]


def sample_seeds(seed: int, problem: Problem, samples: int) -> tuple[int, ...]:
    """One seed per sample, counting up from the problem's seed, as a server does for ``n`` samples of one seed."""
    first = derive(seed, "eval", problem.benchmark, problem.id)
    return tuple(first + sample for sample in range(samples))


class RequestPass:
    """One pass over the responses that ``log`` lacks; each response that arrives goes to ``take``.

    An engine is ``grouped`` if its replies depend on which requests are decoded together. It gets every group with a
    missing response as a whole, and responses that the log has already do not change. Other engines get only the
    missing samples.
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
        self.groups = self._incomplete_groups(selections)
        self._samples: dict[int, tuple[int, ...]] = {}
        """The requested samples of a problem, by its index."""

    def run(self, prefetch: Prefetch) -> None:
        """Raises EngineError if the engine broke, ConfigurationError, DiskFullError and InfrastructureError."""
        proven = any(response.finish_reason != "error" for response in self.log.values())
        decoding = Decoding(self.config.max_tokens, self.config.temperature, proven)
        with Preparation(self.engine.preparer, prefetch) as preparation:
            for replies in self.engine.answer(self._requests(preparation), decoding):
                beat()
                self._take(replies)

    def _incomplete_groups(self, selections: Sequence[Selection]) -> list[range]:
        """The indices of the problems in each group that lacks a response."""
        size = self.config.group_size if self.engine.grouped else 1
        groups: list[range] = []
        start = 0
        for selection in selections:
            end = start + len(selection.problems)
            groups += [range(first, min(first + size, end)) for first in range(start, end, size)]
            start = end
        return [group for group in groups if any(self._missing_samples(index) for index in group)]

    def _missing_samples(self, index: int) -> tuple[int, ...]:
        return tuple(key[-1] for key in keys(self.problems[index], self.config.samples) if key not in self.log)

    def _requests(self, preparation: Preparation) -> Iterator[list[Request]]:
        """Groups of requests. A turn that cannot be prepared is an error of its problem and is not sent."""
        indices = (index for group in self.groups for index in group)
        turns = preparation.prepared(turn(self.config, self.problems[index]) for index in indices)
        for group in self.groups:
            requests = []
            for index in group:
                beat()
                prepared = next(turns)
                samples = tuple(range(self.config.samples)) if self.engine.grouped else self._missing_samples(index)
                self._samples[index] = samples
                if isinstance(prepared, ValueError):
                    self._take(RequestReplies(index, [Reply(str(prepared), 0, "error")] * len(samples)))
                else:
                    seeds = sample_seeds(self.seed, self.problems[index], self.config.samples)
                    requests.append(Request(index, prepared, tuple(seeds[sample] for sample in samples)))
            if requests:
                yield requests

    def _take(self, replies: RequestReplies) -> None:
        problem = self.problems[replies.index]
        samples = self._samples[replies.index][replies.first :]
        sizes = (replies.prompt_tokens, replies.visual_tokens)
        for sample, reply in zip(samples, replies.replies, strict=False):
            text, key = storable(reply.text), (problem.benchmark, problem.id, sample)
            self.take(Response(*key, text, reply.tokens, reply.finish_reason, *sizes))
