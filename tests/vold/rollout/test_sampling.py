"""Drawing tokens by inversion, from random numbers that are a function of seed and step."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from vold.objectives.fused import BANNED
from vold.rollout.sampling import Uniforms, draw


def test_each_token_has_its_share_of_the_unit_interval() -> None:
    probabilities = torch.tensor([0.2, 0.0, 0.5, 0.3])
    logits = probabilities.log()
    grid = (np.arange(1000) + 0.5) / 1000
    ids, logprobs, entropies = draw(logits.expand(1000, -1), grid, 1.0, None)
    assert entropies is None
    assert torch.bincount(ids, minlength=4).tolist() == [200, 0, 500, 300]
    torch.testing.assert_close(logprobs, probabilities.log()[ids])


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_never_draw_a_banned_id(uniform: float) -> None:
    bias = torch.tensor([-torch.inf, 0.0, 0.0, -torch.inf])
    ids, logprobs, _ = draw(torch.randn(64, 4), np.full(64, uniform), 1.0, bias)
    assert set(ids.tolist()) <= {1, 2}
    assert torch.isfinite(logprobs).all()


def test_temperature_sharpens_the_distribution_that_the_logprob_belongs_to() -> None:
    logits = torch.tensor([[1.0, 2.0]])
    _, logprob, _ = draw(logits, np.array([0.99]), 0.5, None)
    assert logprob.item() == pytest.approx(torch.tensor([2.0, 4.0]).log_softmax(0)[1].item())


def test_temperature_zero_takes_the_most_likely_allowed_id() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0]])
    ids, logprob, _ = draw(logits, None, 0.0, torch.tensor([-torch.inf, 0.0, 0.0]))
    assert ids.item() == 2
    assert logprob.item() == pytest.approx(torch.tensor([1.0, 3.0]).log_softmax(0)[1].item())


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_the_entropy_is_over_the_ids_that_can_be_drawn(temperature: float) -> None:
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 3
    bias = torch.zeros(40)
    bias[30:] = BANNED
    uniforms = np.linspace(0.1, 0.9, 6) if temperature else None
    drawn = draw(logits, uniforms, temperature, bias, entropies=True)
    allowed = (logits[:, :30].double() / (temperature or 1)).numpy()
    assert drawn.entropies is not None
    np.testing.assert_allclose(drawn.entropies.numpy(), entropy(softmax(allowed, axis=1), axis=1), rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = draw(logits, uniforms, temperature, bias, entropies=True).entropies
    assert half is not None and half.equal(drawn.entropies), "sums over the vocabulary must not be in half precision"
    without = draw(logits, uniforms, temperature, bias)
    assert without.ids.equal(drawn.ids) and without.logprobs.equal(drawn.logprobs)


def test_uniforms_are_a_function_of_seed_and_step() -> None:
    alone = [Uniforms([7]).at(0, np.array([0]))]
    source, company = Uniforms([7]), Uniforms([1, 7, 2])
    for step in range(150):
        mine = source.at(step, np.array([0]))
        rows = np.array([1]) if step % 2 else np.array([0, 1])
        assert company.at(step, rows)[-1] == mine
        alone.append(mine)
    assert len({value.item() for value in alone}) == 150
