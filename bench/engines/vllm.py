"""vLLM in this process: requests are added while others run, and each sample comes back when it ends."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bench.engines.base import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.encoding import EncodingPreparer
from bench.engines.feeding import Feed
from bench.engines.model_facts import check_room, vocabulary
from bench.engines.refusals import Refusals
from bench.errors import ConfigurationError
from bench.prompts import PromptPart
from vold.config import Execution
from vold.models import load_student
from vold.rollout.base import Completion, EngineError, RolloutRequest, Sampling
from vold.rollout.proof import SyncError, weights_of
from vold.rollout.vllm import VLLMEngine
from vold.training.runtime import precision, prepare

_AHEAD = 64


class VLLM:
    """Answers with a checkpoint that vLLM loads itself; raises ModelError, EngineError, ValueError naming the extra.

    A sample is a request of its own: its prompt's keys and images are computed once and shared, and it is logged
    when it ends, not when the longest of its item does. A prompt that the model has no room for is an error of its
    own; where it has room for none, or ``execution.vllm.max_length`` alone leaves one none, that is a
    ConfigurationError of the run.
    """

    grouped = False

    def __init__(
        self,
        path: Path,
        execution: Execution,
        pixel_limits: tuple[int, int] | None = None,
        thinking: bool | None = None,
    ) -> None:
        self.execution = execution
        self.preparer = EncodingPreparer(path, pixel_limits, thinking)
        self.stop_ids, self.banned_ids = map(tuple, vocabulary(path))
        settings = execution.vllm.model_copy(update={"memory_share": execution.evaluation.memory_share})
        self.device = prepare(execution)
        self.engine = VLLMEngine(
            path, settings, device=self.device, dtype=execution.dtype, max_batch=execution.rollout_batch
        )

    def answer(self, groups: Iterable[Sequence[Request]], settings: Decoding) -> Iterator[RequestReplies]:
        sampling = Sampling(settings.max_tokens, settings.temperature, self.stop_ids, self.banned_ids)
        refusals, ready = Refusals(settings.proven), deque[RequestReplies]()
        running: list[tuple[int, tuple[int, int]]] = []  # place and sizes of each request

        def requests(asks: Iterable[Request | None]) -> Iterator[RolloutRequest | None]:
            for ask in asks:
                if ask is None:
                    yield None
                    continue
                request = RolloutRequest.of(ask.prepared, ask.seeds)
                try:
                    self.engine.check(request, sampling)
                except ValueError as error:
                    most, built_for = self.execution.vllm.max_length, self.engine.positions
                    check_room(len(request.prompt_ids), sampling.max_new_tokens, most, built_for)
                    ready.extend(
                        refusals.sift(RequestReplies(ask.place, [Reply(str(error), 0, "error")] * len(ask.seeds)))
                    )
                    if refusals.enough and not running:
                        raise _no_room(refusals, settings) from error
                    continue
                running.append((ask.place, self.preparer.sizes(ask.prepared)))
                yield request

        with Feed(chain.from_iterable(groups), _AHEAD) as asks:
            for number, sample, completion in self.engine.stream(requests(asks), sampling):
                place, sizes = running[number]
                ready.extend(refusals.sift(RequestReplies(place, [self._reply(completion)], *sizes, first=sample)))
                while ready:
                    yield ready.popleft()
            yield from ready
        if refusals.held:
            raise _no_room(refusals, settings)

    def read(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return self.preparer.read(parts)

    def about(self) -> dict[str, Any]:
        import torch
        import transformers
        import vllm

        versions = {"vllm": vllm.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
        return {
            "name": "vllm",
            "versions": versions,
            "device": self.device.type,
            "dtype": self.execution.dtype,
            "batch": self.execution.rollout_batch,
        }

    def swap(self, model: Path) -> bool:
        """The weights' checksums, every linear layer and the log-probabilities of a text and an image are compared."""
        try:
            with precision(self.execution, self.device):
                weights = weights_of(load_student(model))
            self.engine.sync(weights)
        except (SyncError, EngineError):
            return False
        self.preparer = self.preparer.of(model)
        return True

    def close(self) -> None:
        self.engine.close()

    def _reply(self, completion: Completion) -> Reply:
        return Reply(
            self.preparer.decode(completion.completion_ids), len(completion.completion_ids), completion.finish_reason
        )


def _no_room(refusals: Refusals, settings: Decoding) -> ConfigurationError:
    return ConfigurationError(
        f"max_tokens {settings.max_tokens}: the model takes none of the {len(refusals.held)} prompts that it was asked "
        f"(the last: {refusals.held[-1].replies[0].text}); nothing of this is kept: lower max_tokens, or shorten the "
        "prompts"
    )
