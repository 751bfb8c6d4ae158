"""Settings of every training stage, with their defaults and descriptions.

``TracesConfig``, ``SFTConfig`` and ``RLConfig`` decide what is computed and are part of a stage's identity: a new
name or default there gives every stage that has it a new identity. How a stage runs is in ``vold.execution``.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_NONFINITE_STEPS = 3
"""Consecutive skipped steps that end a training run: the default of ``RLConfig``, and fixed for SFT."""


class Strict(BaseModel):
    """An immutable config that refuses unknown keys, NaN and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimizerConfig(Strict):
    """AdamW with a linear warm-up."""

    learning_rate: float = Field(gt=0, description="Highest learning rate, reached at the end of the warm-up.")
    warmup_steps: int = Field(
        default=0, ge=0, description="Optimizer steps over which the learning rate rises linearly from 0."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Learning rate after the warm-up: constant, or a linear or cosine decay to 0."
    )
    weight_decay: float = Field(
        default=0.01, ge=0, description="AdamW's weight decay. It spares vectors (norms and biases)."
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999), description="AdamW's decay rates of the first and the second moment."
    )
    max_gradient_norm: float = Field(
        default=1.0, gt=0, description="Norm to which the gradient of all trained weights is clipped."
    )


FreezablePart = Literal["vision", "merger", "embeddings"]
RolloutEngineName = Literal["builtin", "vllm"]

_FREEZE = (
    "Parts of the student that are not trained: vision (the tower without its merger), merger, embeddings. Without "
    "images in the data, vision and merger are always frozen."
)
_LORA = "Train low-rank adapters in place of the weights themselves. None: train the weights."

ImagePolicy = Literal["refuse", "skip", "caption"]
"""What a text-only teacher does with a prompt that has images: stop the run, skip the prompt, or read the captions."""


class LoraConfig(Strict):
    """Low-rank adapters on linear layers of the language model. Everything else is frozen."""

    rank: int = Field(default=16, ge=1, description="Rank of each adapter.")
    alpha: float = Field(default=32.0, gt=0, description="Scale of the adapters: their output times alpha / rank.")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Names of the linear layers that get an adapter.",
    )


class TracesConfig(Strict):
    """Reasoning traces that a teacher writes."""

    writer: str = Field(default="teacher", description="Model role that writes the traces.")
    n: int | None = Field(default=None, ge=1, description="Number of prompts to answer, from the first. None: all.")
    temperature: float = Field(default=1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    max_new_tokens: int = Field(
        default=8192, ge=1, description="Longest trace in tokens. Longer ones are dropped and counted."
    )
    keep: Literal["all", "correct"] = Field(
        default="all",
        description="Traces to keep: all of them, or only those whose answer matches the prompt's reference answer.",
    )
    rollout: RolloutEngineName = Field(
        default="builtin", description="Engine that samples. Each engine draws its own random numbers."
    )
    images: ImagePolicy = Field(
        default="refuse",
        description="Prompts with images, which the writer cannot see: refuse stops, skip leaves them out, caption "
        "shows the captions to the writer.",
    )


class SFTConfig(Strict):
    """Stage 1, the cold start: next-token NLL on traces. The defaults are the paper's."""

    traces: str = Field(default="teacher", description="Model role whose traces the student imitates.")
    steps: int = Field(default=4000, ge=1, description="Optimizer steps.")
    batch_size: int = Field(default=256, ge=1, description="Traces per optimizer step, over all processes.")
    optimizer: OptimizerConfig = Field(
        default=OptimizerConfig(learning_rate=5e-5, warmup_steps=150, schedule="cosine"),
        description="AdamW and its learning-rate schedule.",
    )
    max_length: int = Field(
        default=8192, ge=1, description="Longest prompt plus trace in tokens. Longer ones are left out with a warning."
    )
    freeze: tuple[FreezablePart, ...] = Field(default=("vision",), description=_FREEZE)
    lora: LoraConfig | None = Field(default=None, description=_LORA)


Estimator = Literal["k2", "k1_advantage", "k1_control", "k3_forward", "reverse_kl", "forward_kl", "jsd", "topk"]
DistillTarget = Literal["teacher", "placebo"]
Mask = Literal["wrong", "all", "correct"]
Reduction = Literal["token_mean", "sequence_mean", "constant"]
Advantage = Literal["group_std", "group_mean"]
Ratio = Literal["token", "sequence"]
Surrogate = Literal["clip", "cispo"]
Schedule = Literal["joint", "distill_then_reward"]


class DistillConfig(Strict):
    """The teacher term on student rollouts, or its placebo. ``objectives.distill`` explains both.

    The paper's is ``k2``: 0.5 (log p_s - log p_t)^2 back-propagated, whose gradient is that of the reverse KL.
    """

    weight: float = Field(
        default=0.0, ge=0, description="Weight of the teacher term (the paper's beta). 0 switches the term off."
    )
    weight_end: float | None = Field(
        default=None, ge=0, description="Weight at the last step. Give it together with a linear or cosine schedule."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="How the weight moves from weight to weight_end; constant keeps it at weight."
    )
    delay: int = Field(default=0, ge=0, description="Steps at the start without the teacher term.")
    target: DistillTarget = Field(
        default="teacher",
        description="teacher: the divergence from the teacher, by estimator. placebo: a fixed advantage of -1 on the "
        "sampled tokens that the student itself gave little probability (placebo_probability), without a teacher; "
        "estimator, top_k and images then have no effect.",
    )
    placebo_probability: float = Field(
        default=0.1, gt=0, le=1, description="Probability below which the target placebo makes a sampled token rarer."
    )
    estimator: Estimator = Field(
        default="k2",
        description="What the term optimises. k2, k1_advantage, k1_control and reverse_kl have the gradient of the "
        "reverse KL; k3_forward and forward_kl that of the forward KL; jsd and topk their own. reverse_kl, forward_kl, "
        "jsd and topk use the whole distribution at each position, the others only the sampled token.",
    )
    top_k: int = Field(
        default=64,
        ge=1,
        description="Most likely tokens of the teacher that the estimator topk compares one by one. All other tokens "
        "are compared as one.",
    )
    mask: Mask = Field(
        default="wrong",
        description="Rollouts that get the term: wrong weighs each by 1 - reward, correct by reward, all by 1.",
    )
    reduce: Reduction | None = Field(
        default=None, description="Denominator of the term, as for the policy term. None: the policy term's."
    )
    monitor_every: int = Field(
        default=10,
        ge=0,
        description="Steps between measurements of the KL to the teacher on all rollouts. In the steps between, the "
        "teacher reads only the rollouts that get its term. 0: never, and a run without the term then loads no "
        "teacher.",
    )
    images: ImagePolicy = Field(
        default="refuse",
        description="Prompts with images, which the teacher cannot see: refuse stops, skip gives their rollouts no "
        "teacher term, caption shows the captions to the teacher.",
    )

    @field_validator("estimator", mode="before")
    @classmethod
    def _refuse_k1(cls, value: object) -> object:
        if value == "k1":
            raise ValueError(
                "k1 as a loss has an expected gradient of exactly zero: use k1_advantage, k2 or reverse_kl, which have "
                "the gradient of the reverse KL"
            )
        return value

    @model_validator(mode="after")
    def _schedule_has_an_end(self) -> "DistillConfig":
        if (self.schedule == "constant") != (self.weight_end is None):
            raise ValueError("weight_end and a schedule (linear, cosine) go together: give both or neither")
        return self

    @property
    def active(self) -> bool:
        """Whether the term has a weight above 0 at any step."""
        return max(self.weight, self.weight_end or 0.0) > 0

    @property
    def needs_teacher(self) -> bool:
        """Whether the term cannot be computed without a teacher."""
        return self.active and self.target == "teacher"

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher is run if there is one, for the term or to measure the KL."""
        return self.needs_teacher or self.monitor_every > 0


class PolicyConfig(Strict):
    """How rewards become a policy gradient. The defaults are GRPO's, clipped as in the paper."""

    advantage: Advantage = Field(
        default="group_std",
        description="Advantage of a rollout: its reward minus the group's mean. group_std also divides by the group's "
        "standard deviation; group_mean does not.",
    )
    advantage_epsilon: float = Field(
        default=1e-4, gt=0, description="Number added to the group's standard deviation in the denominator."
    )
    ratio: Ratio = Field(
        default="token",
        description="Probability ratio of new to old policy: of each token, or the geometric mean over a rollout.",
    )
    surrogate: Surrogate = Field(
        default="clip",
        description="clip: PPO's clipped objective. cispo: the clipped ratio is only a weight, so that every token "
        "keeps its gradient.",
    )
    clip_low: float = Field(default=0.2, ge=0, description="The ratio is clipped below 1 - clip_low.")
    clip_high: float = Field(
        default=0.3, ge=0, description="The ratio is clipped above 1 + clip_high. Raise it when the entropy collapses."
    )
    reduce: Reduction = Field(
        default="token_mean",
        description="Denominator of the loss. token_mean: all tokens of the batch. sequence_mean: first the tokens of "
        "each rollout, then the rollouts. constant: rollouts times max_new_tokens.",
    )
    max_refills: int = Field(
        default=0,
        ge=0,
        description="Most other prompts to try in place of one whose rewards are all equal, which teaches nothing.",
    )


ALGORITHMS = {
    "grpo": PolicyConfig(),
    "dr_grpo": PolicyConfig(advantage="group_mean", clip_high=0.2, reduce="constant"),
    "dapo": PolicyConfig(clip_high=0.28, max_refills=4),
    "gspo": PolicyConfig(ratio="sequence", clip_low=3e-4, clip_high=4e-4, reduce="sequence_mean"),
    # No lower bound, and a weight of at most 5: the authors name no number, and arXiv 2510.13786 found no difference
    # between 4 and 8.
    "cispo": PolicyConfig(surrogate="cispo", clip_low=1.0, clip_high=4.0),
}
"""Policy settings that each algorithm stands for. ``vold.objectives.grpo`` names the papers."""


class RLConfig(PolicyConfig):
    """Stage 2: GRPO, on-policy distillation, or both. The defaults are the paper's.

    ``algorithm`` fills the fields of ``PolicyConfig`` that are not given.
    """

    algorithm: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = Field(
        default="grpo",
        description="Preset for advantage, ratio, surrogate, clip_low, clip_high, reduce and max_refills. Values that "
        "are given take precedence.",
    )
    teacher: str = Field(default="teacher", description="Model role that scores the rollouts.")
    steps: int = Field(default=60, ge=1, description="Steps; each draws prompts, samples rollouts and updates.")
    prompts_per_step: int = Field(default=51, ge=1, description="Prompts per step, over all processes.")
    group_size: int = Field(default=5, ge=1, description="Rollouts per prompt.")
    updates_per_batch: int = Field(
        default=1, ge=1, description="Optimizer updates per step on the same rollouts. With 1 the clip never binds."
    )
    temperature: float = Field(default=1.0, gt=0, description="Sampling temperature of rollouts, also in the loss.")
    max_new_tokens: int = Field(
        default=8192, ge=1, description="Longest completion in tokens. Longer ones are cut and usually get no reward."
    )
    rollout: RolloutEngineName = Field(
        default="builtin", description="Engine that samples. Each engine draws its own random numbers."
    )
    optimizer: OptimizerConfig = Field(
        default=OptimizerConfig(learning_rate=6e-6, warmup_steps=5),
        description="AdamW and its learning-rate schedule.",
    )
    reward_weight: float = Field(
        default=1.0, ge=0, description="Weight of the policy term. 0 leaves only the teacher term."
    )
    schedule: Schedule = Field(
        default="joint",
        description="joint: both terms in every step. distill_then_reward: the teacher term alone, and after distill_"
        "share of the steps the policy term alone. Each part starts with a new AdamW and a new warm-up.",
    )
    distill_share: float = Field(
        default=0.5, gt=0, lt=1, description="Share of the steps in the first part of schedule distill_then_reward."
    )
    engine_correction: Literal["off", "token", "sequence"] = Field(
        default="off",
        description="Truncated importance sampling for the difference between trainer and rollout engine, per token "
        "or per rollout. Use it when mismatch warnings appear.",
    )
    engine_correction_cap: float = Field(
        default=2.0, gt=0, description="Largest weight that engine_correction gives to a token or rollout."
    )
    distill: DistillConfig = Field(default=DistillConfig(), description="The teacher term on student rollouts.")
    validate_every: int = Field(
        default=10, ge=0, description="Steps between validations, if the data have validation prompts. 0: never."
    )
    freeze: tuple[FreezablePart, ...] = Field(default=("vision",), description=_FREEZE)
    lora: LoraConfig | None = Field(default=None, description=_LORA)
    max_nonfinite_steps: int = Field(
        default=MAX_NONFINITE_STEPS,
        ge=1,
        description="Consecutive steps with a loss or gradient that is not finite after which the run stops. Each such "
        "step is skipped.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_algorithm(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        preset = ALGORITHMS.get(str(values.get("algorithm", "grpo")))
        return values if preset is None else {**preset.model_dump(), **values}

    @model_validator(mode="after")
    def _has_an_objective(self) -> "RLConfig":
        if self.reward_weight == 0 and not self.distill.active:
            raise ValueError("nothing to optimise: give reward_weight or distill.weight a value above 0")
        if self.reward_weight == 0 and self.max_refills > 0:
            raise ValueError(
                "max_refills replaces prompts from which the policy term learns nothing, but reward_weight 0 switches "
                "that term off: set max_refills to 0"
            )
        return self

    @model_validator(mode="after")
    def _has_an_objective_in_each_part(self) -> "RLConfig":
        if self.schedule == "joint":
            return self
        if not self.reward_weight or not self.distill.weight or self.distill.weight_end == 0:
            raise ValueError(
                "schedule distill_then_reward has steps with the teacher term alone and steps with the policy term "
                "alone: give reward_weight, distill.weight and distill.weight_end (if set) values above 0"
            )
        if self.distill.delay:
            raise ValueError(
                "distill.delay leaves the teacher term out of the first steps, which have no other term under schedule "
                "distill_then_reward: set delay to 0, or schedule to joint"
            )
        if not all(self.parts):
            raise ValueError(
                f"schedule distill_then_reward: a distill_share of {self.distill_share:g} of {self.steps} steps leaves "
                "one of the two parts without a step: give more steps, or a share nearer to 0.5"
            )
        return self

    @property
    def parts(self) -> tuple[range, ...]:
        """The steps (from 0) of each part of the run. Each part is optimised like a run of its own."""
        if self.schedule == "joint":
            return (range(self.steps),)
        border = round(self.distill_share * self.steps)
        return range(border), range(border, self.steps)
