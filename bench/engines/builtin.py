"""The builtin engine: a checkpoint in this process, decoded in batches with a KV cache."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.engines.base import Answer, Ask, Reading, Reply, Settings
from bench.engines.encoding import EncodingPreparer
from bench.prompts import Part
from vold.config import Execution
from vold.models import Student, load_student
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.training.runtime import prepare


class Builtin:
    """Answers with a Qwen2.5-VL checkpoint, a group at a time; raises ModelError where ``path`` holds none."""

    grouped = True

    def __init__(
        self,
        path: Path,
        execution: Execution,
        pixel_limits: tuple[int, int] | None,
        thinking: bool | None = None,
    ) -> None:
        import torch

        device, dtype = prepare(execution), getattr(torch, execution.dtype)
        self.student: Student = load_student(path, dtype=dtype, device=device, pixel_limits=pixel_limits)
        self.preparer = EncodingPreparer(path, pixel_limits, thinking)
        self.engine = BuiltinEngine(self.student, execution.rollout_batch)

    def answer(self, groups: Iterable[Sequence[Ask]], settings: Settings) -> Iterator[Answer]:
        sampling = Sampling(settings.max_tokens, settings.temperature, self.student.stop_ids, self.student.banned_ids)
        for group in groups:
            requests = [RolloutRequest.of(ask.prepared, ask.seeds) for ask in group]
            for ask, completions in zip(group, self.engine.generate(requests, sampling), strict=True):
                replies = [self._reply(completion) for completion in completions]
                yield Answer(ask.place, replies, *self.preparer.sizes(ask.prepared))

    def read(self, parts: Sequence[Part]) -> Reading | None:
        return self.preparer.read(parts)

    def about(self) -> dict[str, Any]:
        import torch
        import transformers

        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        return {
            "name": "builtin",
            "versions": versions,
            "device": self.student.model.device.type,
            "dtype": str(self.student.model.dtype).removeprefix("torch."),
        }

    def close(self) -> None:
        """It has nothing to close."""

    def _reply(self, completion: Completion) -> Reply:
        return Reply(self.student.decode(completion.token_ids), len(completion.token_ids), completion.finish_reason)
