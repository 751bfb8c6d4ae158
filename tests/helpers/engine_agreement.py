"""Prompts with and without images, and the trainer's log-probabilities, to test that engines agree with it."""

from collections.abc import Sequence

import torch
from PIL import Image

from vold.models import EncodedPrompt, Student
from vold.rollout.base import Completion

IMAGE, READ = {"type": "image"}, {"type": "text", "text": "read this"}


def prompts_of(student: Student, image: Image.Image) -> list[EncodedPrompt]:
    """Prompts with text only (three), one image, and two images."""
    small = image.resize((32, 16))
    texts = [EncodedPrompt(student.encode_text(text)) for text in ("a", "[7+5-3*2]solve", "x" * 40)]
    return [
        *texts,
        student.encode([{"role": "user", "content": [IMAGE, READ]}], [image]),
        student.encode([{"role": "user", "content": [IMAGE, IMAGE, READ]}], [small, image]),
    ]


@torch.no_grad()
def reference_logprobs(
    student: Student, prompt: EncodedPrompt, completion: Completion, temperature: float
) -> list[float]:
    """By transformers' forward pass over the whole sequence, with banned ids excluded and the softmax in float64."""
    ids = torch.tensor([[*prompt.prompt_ids, *completion.completion_ids]])
    images = {}
    if prompt.pixels is not None:
        images = {
            "pixel_values": prompt.pixels.values,
            "image_grid_thw": prompt.pixels.grid_thw,
            "mm_token_type_ids": (ids == student.image_token_id).int(),
        }
    logits = student.model(input_ids=ids, **images).logits[0, len(prompt.prompt_ids) - 1 : -1].double() / temperature
    logits[:, list(student.banned_ids)] = -torch.inf
    return logits.log_softmax(-1).gather(1, torch.tensor(completion.completion_ids)[:, None])[:, 0].tolist()


def largest_difference(
    student: Student, prompts: Sequence[EncodedPrompt], groups: Sequence[Sequence[Completion]], temperature: float
) -> float:
    """Largest difference between the log-probabilities of engine and trainer over all sampled tokens."""
    return max(
        abs(ours - theirs)
        for prompt, group in zip(prompts, groups, strict=True)
        for completion in group
        for ours, theirs in zip(
            reference_logprobs(student, prompt, completion, temperature), completion.logprobs, strict=True
        )
    )
