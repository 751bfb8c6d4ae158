"""The builtin engine: a checkpoint in this process, decoded in batches with a KV cache."""

import gc
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.engines.base import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.encoding import EncodingPreparer
from bench.prompts import PromptPart
from vold.execution import Execution
from vold.models import Student, load_student
from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.rollout.proof import fingerprint
from vold.training.runtime import prepare_device


class Builtin:
    """Answers with a Qwen2.5-VL checkpoint, one group after the other. Raises ModelError if ``path`` has none."""

    grouped = True

    def __init__(
        self,
        path: Path,
        execution: Execution,
        pixel_limits: tuple[int, int] | None,
        thinking: bool | None = None,
    ) -> None:
        import torch

        device, dtype = prepare_device(execution), getattr(torch, execution.dtype)
        self.student: Student = load_student(path, dtype=dtype, device=device, pixel_limits=pixel_limits)
        self.preparer = EncodingPreparer(path, pixel_limits, thinking)
        self.engine = BuiltinEngine(self.student, execution.rollout_batch)

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        sampling = Sampling(decoding.max_tokens, decoding.temperature, self.student.stop_ids, self.student.banned_ids)
        for group in groups:
            while not (yield from self._answer_group(group, sampling)):
                self._release_memory()

    def _answer_group(self, group: Sequence[Request], sampling: Sampling) -> Generator[RequestReplies, None, bool]:
        """Answer ``group``. Returns False if memory ran out; then the batch size is halved for good."""
        rollouts = [RolloutRequest.of(request.prepared, request.seeds) for request in group]
        sizes = [self.preparer.sizes(request.prepared) for request in group]
        try:
            for (number, sample), completion in self.engine.stream(rollouts, sampling):
                yield RequestReplies(group[number].index, [self._reply(completion)], *sizes[number], first=sample)
        except (MemoryError, RuntimeError) as error:
            batch = min(self.engine.max_batch, sum(len(request.seeds) for request in group))
            if not is_out_of_memory(error) or batch == 1:
                raise
            self.engine.max_batch = batch // 2
            return False
        return True

    def _release_memory(self) -> None:
        import torch

        gc.collect()
        if self.student.device.type == "cuda":
            torch.cuda.empty_cache()

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return self.preparer.read_prompt(parts)

    def about(self) -> dict[str, object]:
        import torch
        import transformers

        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        return {
            "name": "builtin",
            "versions": versions,
            "device": self.student.model.device.type,
            "dtype": str(self.student.model.dtype).removeprefix("torch."),
            "batch": self.engine.max_batch,
        }

    def swap(self, model: Path) -> bool:
        """Copy the tensors of ``model`` into the loaded student and compare checksums."""
        tensors = self.student.model.state_dict()
        new_tensors = load_student(model, dtype=self.student.model.dtype).model.state_dict()
        if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in new_tensors.items()}:
            return False
        for name, tensor in new_tensors.items():
            tensors[name].copy_(tensor)
        if any(fingerprint(tensors[name]) != fingerprint(tensor) for name, tensor in new_tensors.items()):
            return False
        self.student = self.engine.model = replace(self.student, path=model)
        self.preparer = self.preparer.for_checkpoint(model)
        return True

    def close(self) -> None:
        """There is nothing to close."""

    def _reply(self, completion: Completion) -> Reply:
        return Reply(
            self.student.decode(completion.completion_ids), len(completion.completion_ids), completion.finish_reason
        )
