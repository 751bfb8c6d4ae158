"""The GRPO family against TRL's own loss code on the same tensors. Where the two differ, a test shows how."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import need
from vold.config import RLConfig
from vold.objectives.batch import TokenBatch
from vold.objectives.grpo import group_advantages, per_sequence, policy_loss, truncated_importance
from vold.objectives.reduce import token_weights

pytestmark = pytest.mark.slow
LIMIT = 9
LENGTHS = torch.tensor([9, 2, 5, 1, 7, 3])


@pytest.fixture(scope="module")
def trl_loss() -> Any:
    """TRL's GRPOTrainer._compute_loss, with a minimal stand-in for the trainer."""
    need("trl", "peers")
    from trl.trainer.grpo_trainer import GRPOTrainer

    def loss(logps: torch.Tensor, inputs: dict[str, torch.Tensor], kind: str, **settings: Any) -> torch.Tensor:
        trainer = SimpleNamespace(
            _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logps, torch.zeros_like(logps), None),
            loss_type=kind, importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.3, beta=0.0,
            use_vllm="importance_sampling_ratio" in inputs, vllm_importance_sampling_correction=True,
            top_entropy_quantile=1.0, off_policy_mask_threshold=None, aux_loss_enabled=False,
            _entropy_bonus_enabled=False, max_completion_length=LIMIT, current_gradient_accumulation_steps=1,
            model=SimpleNamespace(training=True), args=SimpleNamespace(delta=None, steps_per_generation=1),
            accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
            _metrics={"train": defaultdict(list)},
        )  # fmt: skip
        vars(trainer).update(settings)
        rows = {"prompt_ids": torch.zeros(len(logps), 1), "prompt_mask": torch.ones(len(logps), 1)}
        return GRPOTrainer._compute_loss(trainer, None, rows | inputs)  # type: ignore[arg-type]

    return loss


class Case:
    """Log-probabilities of six completions: padded [6, 9] with a mask for TRL, end to end for us."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(2)
        double: dict[str, Any] = {"dtype": torch.float64, "generator": random}
        self.mask = torch.arange(LIMIT)[None] < LENGTHS[:, None]
        self.old = -2 + torch.randn(6, LIMIT, **double)
        self.logps = (self.old + 0.5 * torch.randn(6, LIMIT, **double)).requires_grad_()
        self.engine = self.old + 0.5 * torch.randn(6, LIMIT, **double)
        self.advantages = torch.randn(6, **double)

    def inputs(self, rows: slice = slice(None), **more: torch.Tensor) -> dict[str, torch.Tensor]:
        mask = self.mask[rows]
        return {
            "completion_ids": torch.zeros_like(mask, dtype=torch.long), "completion_mask": mask.long(),
            "advantages": self.advantages[rows], "old_per_token_logps": self.old[rows],
            "num_items_in_batch": LENGTHS.sum(), **more,
        }  # fmt: skip

    def ours(self, config: RLConfig, log_correction: torch.Tensor | None = None) -> torch.Tensor:
        """Our loss. log_correction: log(p_trainer / p_engine) [T] of each token or of its rollout."""
        logprobs, old = self.logps[self.mask], self.old[self.mask]
        batch = TokenBatch(
            logprobs, old, self.advantages.repeat_interleave(LENGTHS), torch.zeros(len(old)),
            sequence_log_ratio=per_sequence((logprobs - old).detach(), LENGTHS, "mean"),
            correction=None if log_correction is None else truncated_importance(log_correction, 2.0),
        )  # fmt: skip
        values, _ = policy_loss(
            batch, ratio=config.ratio, surrogate=config.surrogate,
            clip_low=config.clip_low, clip_high=config.clip_high,
        )  # fmt: skip
        return values.double() @ token_weights(LENGTHS, config.reduce, limit=LIMIT)

    def assert_same(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        """Value and gradient agree to 1e-6."""
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
        gradients = [torch.autograd.grad(loss, self.logps, retain_graph=True)[0] for loss in (ours, theirs)]
        assert gradients[0].any()
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "kind", "settings"),
    [
        ({"reduce": "sequence_mean"}, "grpo", {}),
        ({"algorithm": "dapo"}, "dapo", {"epsilon_high": 0.28}),
        ({"algorithm": "dr_grpo"}, "dr_grpo", {"epsilon_high": 0.2}),
        ({"algorithm": "gspo"}, "grpo",
         {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
        ({"algorithm": "gspo", "clip_low": 0.9, "clip_high": 9}, "grpo",
         {"importance_sampling_level": "sequence", "epsilon_low": 0.9, "epsilon_high": 9}),
    ],
    ids=["grpo", "dapo", "dr_grpo", "gspo", "gspo_wide"],
)  # fmt: skip
def test_losses_and_gradients_agree(
    trl_loss: Any, fields: dict[str, Any], kind: str, settings: dict[str, float]
) -> None:
    case = Case()
    theirs = trl_loss(case.logps, case.inputs(), kind, **settings)
    case.assert_same(case.ours(RLConfig.model_validate(fields)), theirs)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_importance_sampling_agrees(trl_loss: Any, level: str) -> None:
    case = Case()
    difference = (case.old - case.engine) * case.mask
    flat = difference[case.mask]
    if level == "sequence":
        difference, flat = difference.sum(1, keepdim=True), per_sequence(flat, LENGTHS, "sum")
    ratio = difference.exp().clamp(max=2.0)
    theirs = trl_loss(case.logps, case.inputs(importance_sampling_ratio=ratio), "dapo", epsilon_high=0.28)
    case.assert_same(case.ours(RLConfig(algorithm="dapo"), flat), theirs)


def test_cispo_agrees_if_the_bound_has_the_same_meaning(trl_loss: Any) -> None:
    """TRL's epsilon_high is the bound itself; in the paper and in our clip_high it is the distance from 1."""
    case = Case()
    bound, config = 1.4, RLConfig(algorithm="cispo", clip_high=0.4)
    case.assert_same(case.ours(config), trl_loss(case.logps, case.inputs(), "cispo", epsilon_high=bound))
    other = trl_loss(case.logps, case.inputs(), "cispo", epsilon_high=config.clip_high)
    assert other.item() != pytest.approx(case.ours(config).item(), rel=1e-2)


@pytest.mark.parametrize(("kind", "reduce"), [("bnpo", "token_mean"), ("grpo", "sequence_mean")])
def test_trl_depends_on_the_split_into_micro_batches_where_ours_does_not(trl_loss: Any, kind: str, reduce: str) -> None:
    """TRL's bnpo divides by the tokens of the micro-batch, and its grpo by the rows of the micro-batch."""
    case = Case()
    config = RLConfig.model_validate({"reduce": reduce})
    whole = trl_loss(case.logps, case.inputs(), kind)
    case.assert_same(case.ours(config), whole)
    halves = [slice(0, 1), slice(1, 6)]
    parts = [
        trl_loss(case.logps[rows], case.inputs(rows), kind, current_gradient_accumulation_steps=2) for rows in halves
    ]
    split = torch.stack(parts).sum()
    assert split.item() != pytest.approx(whole.item(), rel=1e-2)


def test_trl_takes_the_sample_deviation_of_a_group_and_we_the_population_deviation(trl_loss: Any) -> None:
    """Ours divides by K, TRL's by K - 1, which shrinks its advantages."""
    from trl.trainer.utils import nanstd

    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (nanstd(rewards, dim=1, keepdim=True) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, 1e-4) * (4 / 5) ** 0.5, theirs, rtol=1e-3, atol=0)
