"""Micro-batches, and which positions predict the completion."""

import pytest
import torch

from vold.data.sequences import TokenSequence, completion_hidden, completion_targets, micro_batches, token_index
from vold.models import Student

LENGTHS = ((3, 4), (5, 1), (2, 9), (4, 0), (6, 2))
SEQUENCES = [TokenSequence(tuple(range(p)), tuple(range(50, 50 + c))) for p, c in LENGTHS]


@pytest.mark.parametrize("budget", [1, 12, 20, 1000])
def test_micro_batches_hold_every_sequence_with_a_completion_once_within_the_budget(budget: int) -> None:
    batches = list(micro_batches(SEQUENCES, budget))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 4]
    for batch in batches:
        padded = len(batch) * max(len(SEQUENCES[index]) for index in batch)
        assert padded <= budget or len(batch) == 1
    if budget == 1000:
        assert len(batches) == 1


def test_hidden_states_are_those_before_each_completion_token_and_blind_to_padding(student: Student) -> None:
    rows = [SEQUENCES[0], SEQUENCES[2], SEQUENCES[1]]
    with torch.no_grad():
        together = completion_hidden(student, rows)
        expected = []
        for row in rows:
            ids = torch.tensor([row.prompt_ids + row.completion_ids])
            hidden = student.model.model(input_ids=ids).last_hidden_state[0]
            expected.append(hidden[len(row.prompt_ids) - 1 : -1])
    torch.testing.assert_close(together, torch.cat(expected), atol=1e-5, rtol=1e-5)
    assert completion_targets(rows, student.device).tolist() == [t for row in rows for t in row.completion_ids]


def test_token_index_points_into_all_completions_laid_end_to_end() -> None:
    assert token_index([2, 3, 1], [2, 0]).tolist() == [5, 0, 1]
