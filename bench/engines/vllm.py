"""The engine for vLLM in this process. Requests join while others run, and each sample returns when it ends."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from bench.engines.base import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.encoding import EncodingPreparer
from bench.engines.feeding import Feed
from bench.engines.model_facts import check_room, vocabulary
from bench.engines.refusals import Refusals
from bench.errors import ConfigurationError
from bench.prompts import PromptPart
from vold.execution import Execution
from vold.models import load_student
from vold.rollout.base import Completion, EngineError, RolloutRequest, Sampling
from vold.rollout.proof import SyncError, weights_of
from vold.rollout.vllm import VLLMEngine
from vold.training.runtime import precision, prepare_device

_AHEAD = 64
"""Requests that are prepared in advance."""


class VLLM:
    """Answers with a checkpoint that vLLM loads. Raises ModelError, EngineError, or ValueError if vLLM is missing.

    Each sample is a request to vLLM, so it is logged when it ends and does not wait for the longest sample of its
    problem. The samples of a prompt share its keys and images. A prompt that is too long for the model gets an error
    reply. If all prompts are too long, or one is too long only for ``execution.vllm.max_length``, the run ends with
    ConfigurationError.
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
        self.device = prepare_device(execution)
        self.engine = VLLMEngine(
            path, settings, device=self.device, dtype=execution.dtype, max_batch=execution.rollout_batch
        )

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        sampling = Sampling(decoding.max_tokens, decoding.temperature, self.stop_ids, self.banned_ids)
        refusals, ready = Refusals(decoding.proven), deque[RequestReplies]()
        started: list[tuple[int, tuple[int, int]]] = []  # index and sizes of each request

        def rollouts(requests: Iterable[Request | None]) -> Iterator[RolloutRequest | None]:
            for request in requests:
                if request is None:
                    yield None
                    continue
                rollout = RolloutRequest.of(request.prepared, request.seeds)
                try:
                    self.engine.check(rollout, sampling)
                except ValueError as error:
                    max_length, built_for = self.execution.vllm.max_length, self.engine.positions
                    check_room(len(rollout.prompt_ids), sampling.max_new_tokens, max_length, built_for)
                    errors = [Reply(str(error), 0, "error")] * len(request.seeds)
                    ready.extend(refusals.release(RequestReplies(request.index, errors)))
                    if refusals.enough and not started:
                        raise _no_room(refusals, decoding) from error
                    continue
                started.append((request.index, self.preparer.sizes(request.prepared)))
                yield rollout

        with Feed(chain.from_iterable(groups), _AHEAD) as requests:
            for number, sample, completion in self.engine.stream(rollouts(requests), sampling):
                index, sizes = started[number]
                ready.extend(refusals.release(RequestReplies(index, [self._reply(completion)], *sizes, first=sample)))
                while ready:
                    yield ready.popleft()
            yield from ready
        if refusals.pending:
            raise _no_room(refusals, decoding)

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return self.preparer.read_prompt(parts)

    def about(self) -> dict[str, object]:
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
        """Compares checksums of the weights, every linear layer, and the log-probabilities of a text and an image."""
        try:
            with precision(self.execution, self.device):
                weights = weights_of(load_student(model))
            self.engine.sync(weights)
        except (SyncError, EngineError):
            return False
        self.preparer = self.preparer.for_checkpoint(model)
        return True

    def close(self) -> None:
        self.engine.close()

    def _reply(self, completion: Completion) -> Reply:
        return Reply(
            self.preparer.decode(completion.completion_ids), len(completion.completion_ids), completion.finish_reason
        )


def _no_room(refusals: Refusals, decoding: Decoding) -> ConfigurationError:
    return ConfigurationError(
        f"max_tokens {decoding.max_tokens}: none of the {len(refusals.pending)} prompts leaves room for these "
        f"(the last: {refusals.pending[-1].replies[0].text}). No response is recorded. "
        "Lower max_tokens, or shorten the prompts"
    )
