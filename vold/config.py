"""Typed, strict configuration of every training stage: the only place where a default lives.

Two kinds of fields are kept apart. A *semantic* config (``TracesConfig``, ``SFTConfig``, ``RLConfig``)
decides what is computed and enters a stage's identity; ``Execution`` says only how (threads,
micro-batches, checkpoint interval, device) and never changes a result beyond rounding.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_NONFINITE_STEPS = 3
"""Consecutive skipped steps that end a training run, where its config has no field for it (SFT) or sets none (RL)."""


class Strict(BaseModel):
    """Unknown keys are refused and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


TelemetrySink = Literal["tensorboard", "wandb"]


class HealthConfig(Strict):
    """When a run is warned about; "first" is the first value that the run measured."""

    entropy_share: float = Field(default=0.1, ge=0, description="of the first entropy: below it, it has collapsed")
    truncated_share: float = Field(default=0.5, ge=0, le=1, description="of completions at the length limit")
    kl_growth: float = Field(default=3.0, ge=1, description="times the first KL; only above kl_minimum")
    kl_minimum: float = Field(default=0.5, ge=0, description="nats a token")
    mismatch_share: float = Field(
        default=0.1, ge=0, le=1, description="of tokens with p_trainer / p_engine outside 0.9 to 1.1"
    )


class Execution(Strict):
    """How a stage runs; outside its identity."""

    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(default=None, ge=1, description="CPU threads; None leaves torch's own choice")
    micro_batch_tokens: int = Field(default=4096, ge=1, description="padded tokens in one forward pass")
    rollout_batch: int = Field(default=256, ge=1, description="sequences decoded together")
    checkpoint_every: int = Field(default=20, ge=1, description="optimiser steps between resumable checkpoints")
    health: HealthConfig = HealthConfig()
    telemetry: tuple[TelemetrySink, ...] = Field(default=(), description="where metrics go beside the run's own files")
    telemetry_project: str = "vold-bench"
    telemetry_run: str | None = Field(default=None, description="the run's name there; None: its directory's")


class OptimizerConfig(Strict):
    """AdamW with warm-up; ``schedule`` shapes what follows the warm-up."""

    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = Field(default=1.0, gt=0)


FreezablePart = Literal["vision", "merger", "embeddings"]

PicturePolicy = Literal["refuse", "skip", "caption"]
"""What a text-only teacher makes of a prompt with pictures: an error, nothing, or the caption in their place."""


class TracesConfig(Strict):
    """Reasoning traces written by a teacher for text prompts."""

    writer: str = Field(default="teacher", description="model role that writes the traces")
    n: int | None = Field(default=None, ge=1, description="prompts to answer; None: all")
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=8192, ge=1, description="longer traces are dropped and counted")
    keep: Literal["all", "correct"] = "all"
    pictures: PicturePolicy = Field(default="refuse", description="prompts with pictures; the writer sees none")


class SFTConfig(Strict):
    """Stage 1, the cold start: next-token NLL on traces (defaults: the paper's)."""

    traces: str = Field(default="teacher", description="model role whose traces are imitated")
    steps: int = Field(default=4000, ge=1)
    batch_size: int = Field(default=256, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5, warmup_steps=150, schedule="cosine")
    max_length: int = Field(default=8192, ge=1)
    freeze: tuple[FreezablePart, ...] = ("vision",)


class DistillConfig(Strict):
    """The teacher term on student rollouts; named by the gradient it estimates.

    ``k2``: 0.5 (log p_s - log p_t)^2 back-propagated; ``k1_advantage``: sampled log-ratio as advantage;
    ``reverse_kl``: exact full-vocabulary KL(student || teacher). All have the gradient of the reverse KL.
    """

    weight: float = Field(default=0.0, ge=0, description="beta; 0 switches the term off")
    estimator: Literal["k2", "k1_advantage", "reverse_kl"] = "k2"
    mask: Literal["wrong", "all", "correct"] = "wrong"
    monitor_every: int = Field(default=10, ge=0, description="steps between KL measurements when weight is 0; 0: never")
    pictures: PicturePolicy = Field(default="refuse", description="prompts with pictures; the teacher sees none")


class RLConfig(Strict):
    """Stage 2, GRPO and/or on-policy distillation on text prompts (defaults: the paper's)."""

    teacher: str = Field(default="teacher", description="model role that scores the rollouts")
    steps: int = Field(default=60, ge=1)
    prompts_per_step: int = Field(default=51, ge=1)
    group_size: int = Field(default=5, ge=1)
    updates_per_batch: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=8192, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=6e-6, warmup_steps=5)
    reward_weight: float = Field(default=1.0, ge=0, description="0: the teacher term alone")
    clip_low: float = Field(default=0.2, ge=0)
    clip_high: float = Field(default=0.3, ge=0)
    advantage_epsilon: float = Field(default=1e-4, gt=0, description="delta beside the group's standard deviation")
    reduce: Literal["token_mean", "sequence_mean"] = "token_mean"
    distill: DistillConfig = DistillConfig()
    freeze: tuple[FreezablePart, ...] = ("vision",)
    max_nonfinite_steps: int = Field(
        default=MAX_NONFINITE_STEPS, ge=1, description="consecutive skipped steps that end the run"
    )

    @model_validator(mode="after")
    def _has_an_objective(self) -> "RLConfig":
        if self.reward_weight == 0 and self.distill.weight == 0:
            raise ValueError("nothing to optimise: give reward_weight or distill.weight a value above 0")
        return self
