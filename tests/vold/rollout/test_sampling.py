"""Drawing tokens by inversion, from numbers addressed by seed and step."""

import numpy as np
import pytest
import torch

from vold.rollout.sampling import Uniforms, draw


def test_each_token_owns_its_share_of_the_unit_interval() -> None:
    probabilities = torch.tensor([0.2, 0.0, 0.5, 0.3])
    logits = probabilities.log()
    grid = (np.arange(1000) + 0.5) / 1000
    ids, logprobs = draw(logits.expand(1000, -1), grid, 1.0, None)
    assert torch.bincount(ids, minlength=4).tolist() == [200, 0, 500, 300]
    torch.testing.assert_close(logprobs, probabilities.log()[ids])


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_never_draw_a_banned_id(uniform: float) -> None:
    bias = torch.tensor([-torch.inf, 0.0, 0.0, -torch.inf])
    ids, logprobs = draw(torch.randn(64, 4), np.full(64, uniform), 1.0, bias)
    assert set(ids.tolist()) <= {1, 2}
    assert torch.isfinite(logprobs).all()


def test_temperature_sharpens_the_distribution_that_the_logprob_belongs_to() -> None:
    logits = torch.tensor([[1.0, 2.0]])
    _, logprob = draw(logits, np.array([0.99]), 0.5, None)
    assert logprob.item() == pytest.approx(torch.tensor([2.0, 4.0]).log_softmax(0)[1].item())


def test_temperature_zero_takes_the_most_likely_allowed_id() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0]])
    ids, logprob = draw(logits, None, 0.0, torch.tensor([-torch.inf, 0.0, 0.0]))
    assert ids.item() == 2
    assert logprob.item() == pytest.approx(torch.tensor([1.0, 3.0]).log_softmax(0)[1].item())


def test_uniforms_are_a_function_of_seed_and_step_whoever_else_is_asked() -> None:
    alone = [Uniforms([7]).at(0, np.array([0]))]
    source, company = Uniforms([7]), Uniforms([1, 7, 2])
    for step in range(150):
        mine = source.at(step, np.array([0]))
        rows = np.array([1]) if step % 2 else np.array([0, 1])
        assert company.at(step, rows)[-1] == mine
        alone.append(mine)
    assert len({value.item() for value in alone}) == 150
