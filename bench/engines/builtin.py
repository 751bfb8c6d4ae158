"""The builtin engine: a checkpoint in this process, decoded in batches with a KV cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engines.base import Prompt, Reply, Settings
from vold.config import Execution
from vold.models import EncodedPrompt, Student, load_student
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.training.runtime import prepare


class Builtin:
    """Answers with a Qwen2.5-VL checkpoint; raises ModelError where ``path`` holds none."""

    def __init__(self, path: Path, execution: Execution, pixel_limits: tuple[int, int] | None) -> None:
        import torch

        device, dtype = prepare(execution), getattr(torch, execution.dtype)
        self.student: Student = load_student(path, dtype=dtype, device=device, pixel_limits=pixel_limits)
        self.engine = BuiltinEngine(self.student, execution.rollout_batch)

    def answer(self, prompts: Sequence[Prompt], settings: Settings) -> list[list[Reply]]:
        replies: list[list[Reply]] = [[] for _ in prompts]
        requests, places = [], []
        for place, prompt in enumerate(prompts):
            try:
                requests.append(RolloutRequest.of(self._encode(prompt), prompt.seeds))
                places.append(place)
            except ValueError as error:
                replies[place] = [Reply(str(error), 0, "error") for _ in prompt.seeds]
        sampling = Sampling(settings.max_tokens, settings.temperature, self.student.stop_ids, self.student.banned_ids)
        for place, completions in zip(
            places, self.engine.generate(requests, sampling) if requests else [], strict=True
        ):
            replies[place] = [self._reply(completion) for completion in completions]
        return replies

    def token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        try:
            return self._encode(prompt).ids
        except ValueError:
            return ()

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        content: list[dict[str, Any]] = [
            {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part.get("text", "")}
            for part in prompt.parts
        ]
        pictures = [Path(part["path"]) for part in prompt.parts if "path" in part]
        return self.student.encode([{"role": "user", "content": content}], pictures)

    def _reply(self, completion: Completion) -> Reply:
        return Reply(self.student.decode(completion.token_ids), len(completion.token_ids), completion.finish_reason)
