"""Schedule, parameter groups, and the guard against non-finite steps."""

import copy
import math

import pytest
import torch

from vold.config import OptimizerConfig
from vold.training.optim import NonFiniteError, Optimizer, learning_rate


def rates(total: int, **fields: object) -> list[float]:
    config = OptimizerConfig.model_validate({"learning_rate": 1.0, **fields})
    return [learning_rate(config, step, total) for step in range(total)]


def test_warm_up_rises_to_the_rate_and_constant_stays() -> None:
    assert rates(6, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_linear_falls_towards_zero_after_the_warm_up() -> None:
    assert rates(6, warmup_steps=2, schedule="linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


def test_cosine_is_half_in_the_middle() -> None:
    curve = rates(8, schedule="cosine")
    assert curve[0] == 1 and curve[4] == pytest.approx(0.5)
    assert curve[2] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))


def test_weight_decay_spares_norms_and_biases() -> None:
    network = model()
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = Optimizer(network, OptimizerConfig(learning_rate=0.1, weight_decay=0.5), 3)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0, 0.1)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value, before[name] * (0.95 if value.ndim > 1 else 1.0))


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    optimizer = Optimizer(network, OptimizerConfig(learning_rate=0.1, max_gradient_norm=0.5), 3)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    used: list[torch.Tensor] = []
    update = optimizer.adamw.step

    def step() -> None:
        used.extend(p.grad.clone() for p in network.parameters() if p.grad is not None)
        update()

    monkeypatch.setattr(optimizer.adamw, "step", step)
    norm, skipped = optimizer.step(0.0, 0.1)
    assert norm == pytest.approx(math.sqrt(18)) and not skipped
    assert torch.cat([gradient.flatten() for gradient in used]).norm().item() == pytest.approx(0.5, rel=1e-3)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_non_finite_step_is_skipped_and_several_in_a_row_end_the_run(loss: float, gradient: float) -> None:
    network = model()
    before = [value.clone() for value in network.parameters()]
    optimizer = Optimizer(network, OptimizerConfig(learning_rate=0.1), 2)

    def attempt(loss: float, gradient: float) -> bool:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        return optimizer.step(loss, 0.1)[1]

    assert attempt(loss, gradient)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert not attempt(1.0, 1.0), "a finite step resets the count"
    assert attempt(loss, gradient)
    with pytest.raises(NonFiniteError, match="2 steps in a row"):
        attempt(loss, gradient)


def test_after_a_restart_the_next_update_is_that_of_a_new_optimizer() -> None:
    def updated(network: torch.nn.Module, optimizer: Optimizer, scale: float) -> list[torch.Tensor]:
        for parameter in network.parameters():
            parameter.grad = scale * torch.arange(parameter.numel()).view_as(parameter)
        optimizer.step(0.0, 0.1)
        return [value.detach().clone() for value in network.parameters()]

    network, config = model(), OptimizerConfig(learning_rate=0.1)
    optimizer = Optimizer(network, config, 3)
    for scale in (1.0, -5.0):
        updated(network, optimizer, scale)
    other, second = copy.deepcopy(network), copy.deepcopy(network)
    fresh, continued = updated(other, Optimizer(other, config, 3), 2.0), updated(network, optimizer, 2.0)
    network.load_state_dict(second.state_dict())
    optimizer.restart()
    restarted = updated(network, optimizer, 2.0)
    assert all(map(torch.equal, restarted, fresh)) and not all(map(torch.equal, continued, fresh))


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="every part of the model is frozen"):
        Optimizer(model().requires_grad_(False), OptimizerConfig(learning_rate=0.1), 3)
