"""Pretraining of the small world's models: teachers on traces, base students on single skills."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration, Qwen3ForCausalLM

from bench.smallworld.curriculum import WorldLesson, student_lessons, teacher_lessons
from bench.smallworld.models import new_image_processor
from bench.smallworld.notation import Notation
from bench.smallworld.problems import Rule, apply
from bench.smallworld.render import render_problem
from vold.seeding import generator

IGNORE = -100
StepReport = Callable[[int, dict[str, float]], None]
"""Receives a step and its loss and skills."""


@dataclass(frozen=True)
class Recipe:
    """Steps and batch sizes of a pretraining. The learning rate is warmed up, constant, and lowered at the end."""

    steps: int
    text_batch: int
    image_batch: int = 0
    align_steps: int = 0
    text_steps: int = 0
    learning_rate: float = 3e-3
    warmup: int = 40
    cooldown: float = 0.3
    weight_decay: float = 0.05
    align_weight: float = 0.3


class Batcher:
    """Converts lessons to padded tensors, with the tokenizer's chat template and the real image processor."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer: Any = tokenizer
        self.image_processor = new_image_processor()
        self.image_id, self.end_id = self.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|im_end|>"])
        self.pad_id = tokenizer.pad_token_id
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "\x00"}], tokenize=False, add_generation_prompt=True
        )
        self.head, self.tail = (self._ids(part) for part in str(rendered).split("\x00"))
        self.image_start, self.image_end = self._ids("["), self._ids("]")

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def tokens(self, lesson: WorldLesson) -> tuple[list[int], list[int]]:
        """Token ids and labels of a lesson. Labels are IGNORE outside of the completion."""
        image = []
        if lesson.image is not None:
            pads = [self.image_id] * len(lesson.image.symbols)
            image = [*self.image_start, *pads, *self.image_end]
        prompt = [*self.head, *image, *self._ids(lesson.prompt), *self.tail]
        completion = [*self._ids(lesson.completion), self.end_id]
        return prompt + completion, [IGNORE] * len(prompt) + completion

    def pad(self, batch: Sequence[WorldLesson]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and labels of a batch, both of shape [lessons, longest]."""
        rows = [self.tokens(lesson) for lesson in batch]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [self.pad_id] * (width - len(ids)) for ids, _ in rows])
        labels = torch.tensor([row + [IGNORE] * (width - len(row)) for _, row in rows])
        return ids, labels

    def pixels(
        self, batch: Sequence[WorldLesson], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixel values [patches, features], grid [images, 3], and the token id that each cell shows [cells]."""
        problems = [lesson.image for lesson in batch if lesson.image is not None]
        # Every image is one row of cells, so the patches of the joined strip are those of the images in turn.
        strip = Image.fromarray(np.concatenate([render_problem(problem, rng) for problem in problems], axis=1))
        values = self.image_processor(images=[strip], return_tensors="pt", do_resize=False)["pixel_values"]
        grid = torch.tensor([[1, 2, 2 * len(problem.symbols)] for problem in problems])
        symbols = torch.tensor([token for problem in problems for token in self._ids(problem.symbols)])
        return values, grid, symbols


def _token_loss(hidden: torch.Tensor, labels: torch.Tensor, head: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean NLL over completion tokens, and whether every token of a lesson is right, shape [lessons]."""
    targets = labels[:, 1:]
    keep = targets != IGNORE
    logits = hidden[:, :-1][keep] @ head.T
    loss = F.cross_entropy(logits, targets[keep])
    right = torch.ones_like(keep)
    right[keep] = logits.argmax(-1) == targets[keep]
    return loss, right.all(-1)


class TeacherPretraining:
    """Pretraining of a teacher: complete traces in one notation, computed by ``rule``, also of one operation."""

    def __init__(
        self, model: Qwen3ForCausalLM, batcher: Batcher, notation: Notation, recipe: Recipe, rule: Rule = apply
    ) -> None:
        # Any, because transformers types the wrapped forward of its models as if it were unbound.
        self.model: Any = model
        self.batcher, self.recipe, self.notation, self.rule = batcher, recipe, notation, rule

    def loss(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        batch = teacher_lessons(rng, self.recipe.text_batch, self.notation, self.rule)
        return sum_losses(self._forward(part) for part in by_length(batch))

    def _forward(self, batch: Sequence[WorldLesson]) -> tuple[torch.Tensor, torch.Tensor, int]:
        ids, labels = self.batcher.pad(batch)
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        loss, right = _token_loss(hidden, labels, self.model.lm_head.weight)
        return loss, right, int((labels != IGNORE).sum())

    def skills(self, rng: np.random.Generator, count: int) -> dict[str, float]:
        """The share of unseen lessons that greedy decoding gets right, by skill."""
        return skill_shares(teacher_lessons(rng, count, self.notation, self.rule), self._forward)


class StudentPretraining:
    """Pretraining of a student in three phases.

    First it learns text, then the vision tower alone learns to map each visual token to the embedding of its symbol,
    then the student learns text and images together.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, batcher: Batcher, recipe: Recipe) -> None:
        self.model: Any = model
        self.batcher, self.recipe = batcher, recipe

    @property
    def _embeddings(self) -> torch.Tensor:
        return self.model.lm_head.weight

    def loss(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        recipe = self.recipe
        if step < recipe.text_steps:
            return self._text_loss(rng)
        images = student_lessons(rng, recipe.image_batch, image=True)
        if step < recipe.text_steps + recipe.align_steps:
            return self._align(*self.batcher.pixels(images, rng))[1]
        text = self._text_loss(rng)
        loss, _, _, align = self._image(images, rng)
        return text + loss + recipe.align_weight * align

    def _text_loss(self, rng: np.random.Generator) -> torch.Tensor:
        batch = student_lessons(rng, self.recipe.text_batch, image=False)
        return sum_losses(self._text(part) for part in by_length(batch))

    def _text(self, batch: Sequence[WorldLesson]) -> tuple[torch.Tensor, torch.Tensor, int]:
        ids, labels = self.batcher.pad(batch)
        hidden = self.model.model.language_model(input_ids=ids, use_cache=False).last_hidden_state
        loss, right = _token_loss(hidden, labels, self._embeddings)
        return loss, right, int((labels != IGNORE).sum())

    def _align(
        self, values: torch.Tensor, grid: torch.Tensor, symbols: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Visual tokens [cells, hidden], and their distance from the embeddings of the symbols that they show."""
        features = torch.cat(tuple(self.model.model.get_image_features(values, grid).pooler_output))
        table = self._embeddings.detach()
        distance = F.mse_loss(features, table[symbols]) / table.var()
        return features, F.cross_entropy(features @ table.T, symbols) + distance

    def _image(
        self, batch: Sequence[WorldLesson], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
        ids, labels = self.batcher.pad(batch)
        values, grid, symbols = self.batcher.pixels(batch, rng)
        features, align = self._align(values, grid, symbols)
        pads = ids == self.batcher.image_id
        inputs = self.model.model.get_input_embeddings()(ids).masked_scatter(pads[..., None], features)
        positions, _ = self.model.model.get_rope_index(ids, mm_token_type_ids=pads.int(), image_grid_thw=grid)
        hidden = self.model.model.language_model(
            inputs_embeds=inputs, position_ids=positions, use_cache=False
        ).last_hidden_state
        loss, right = _token_loss(hidden, labels, self._embeddings)
        return loss, right, int((labels != IGNORE).sum()), align

    def skills(self, rng: np.random.Generator, count: int) -> dict[str, float]:
        """The share of unseen lessons that greedy decoding gets right, by skill, in text and in images."""
        text = skill_shares(student_lessons(rng, count, image=False), self._text)
        image = skill_shares(student_lessons(rng, count, image=True), lambda batch: self._image(batch, rng)[:3])
        return {f"text/{name}": value for name, value in text.items()} | {
            f"image/{name}": value for name, value in image.items()
        }


def by_length(batch: list[WorldLesson], parts: int = 2) -> Iterator[list[WorldLesson]]:
    """Parts of a batch with lessons of similar length, so that little is padding."""
    ordered = sorted(batch, key=lambda lesson: len(lesson.prompt) + len(lesson.completion))
    size = -(-len(ordered) // parts)
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


def sum_losses(parts: Iterator[tuple[torch.Tensor, torch.Tensor, int]]) -> torch.Tensor:
    """The token-weighted mean loss over parts of a batch."""
    losses = [(loss * tokens, tokens) for loss, _, tokens in parts]
    return torch.stack([loss for loss, _ in losses]).sum() / sum(tokens for _, tokens in losses)


@torch.no_grad()
def skill_shares(
    batch: list[WorldLesson], forward: Callable[[Sequence[WorldLesson]], tuple[torch.Tensor, torch.Tensor, int]]
) -> dict[str, float]:
    """The share of lessons that greedy decoding gets right, by skill.

    Greedy decoding gives the completion exactly when teacher forcing is right at every token.
    """
    rights: dict[str, list[float]] = defaultdict(list)
    for part in by_length(batch, 4):
        for lesson, right in zip(part, forward(part)[1].tolist(), strict=True):
            rights[lesson.skill].append(float(right))
    return {skill: sum(values) / len(values) for skill, values in sorted(rights.items())}


def pretrain(
    task: TeacherPretraining | StudentPretraining, seed: int, report: StepReport, every: int = 100, probe: int = 400
) -> dict[str, float]:
    """Train the model of ``task`` in place by its recipe and return its final skills on unseen lessons."""
    recipe, model = task.recipe, task.model
    decay = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))

    def factor(step: int) -> float:
        falling = (recipe.steps - step) / (recipe.steps * recipe.cooldown)
        return min(1.0, (step + 1) / recipe.warmup, max(falling, 0.02))

    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor(step)
        loss = task.loss(step, generator(seed, "pretrain", step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % every == 0:
            report(step + 1, {"loss": loss.item()} | task.skills(generator(seed, "probe", step), probe))
    return task.skills(generator(seed, "probe", "final"), 4 * probe)
