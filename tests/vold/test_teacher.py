"""The teacher reads completions after the prompt in its own chat template."""

import dataclasses

import torch

from vold.models import LanguageModel
from vold.teacher import Teacher

TEXTS = ["a", "longer prompt", "b"]
COMPLETIONS = [(40, 41, 42), (43,), (44, 45, 46, 47, 48)]


def test_hidden_states_give_the_teachers_logprobs_of_each_completion_token(teacher: LanguageModel) -> None:
    for budget in (1, 10_000):
        states = Teacher(teacher, budget).score(TEXTS, COMPLETIONS)
        ours = (states @ teacher.head.T).log_softmax(-1).split([len(ids) for ids in COMPLETIONS])
        for text, completion, logprobs in zip(TEXTS, COMPLETIONS, ours, strict=True):
            prompt = teacher.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
            )
            with torch.no_grad():
                logits = teacher.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
            expected = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            torch.testing.assert_close(logprobs, expected, atol=1e-4, rtol=1e-4)


def test_the_teachers_own_chat_template_is_used(teacher: LanguageModel) -> None:
    template = "<T>{{ messages[0].content }}"
    tokenizer = type(teacher.tokenizer)(tokenizer_object=teacher.tokenizer._tokenizer, chat_template=template)
    other = dataclasses.replace(teacher, tokenizer=tokenizer)
    assert other.decode(Teacher(other, 100).prompt_ids("hello")) == "<T>hello"


def test_states_carry_no_gradient_and_may_enter_a_graph(teacher: LanguageModel) -> None:
    states = Teacher(teacher, 100).score(TEXTS, COMPLETIONS)
    assert not states.requires_grad and not states.is_inference()
