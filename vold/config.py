"""Typed, strict configuration of every training stage: the only place where a default lives.

Two kinds of fields are kept apart. A *semantic* config (``TracesConfig``, ``SFTConfig``, ``RLConfig``)
decides what is computed and enters a stage's identity; ``Execution`` says only how (threads,
micro-batches, checkpoint interval, device) and never changes a result beyond rounding.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_NONFINITE_STEPS = 3
"""Consecutive skipped steps that end a training run, where its config has no field for it (SFT) or sets none (RL)."""


class Strict(BaseModel):
    """Unknown keys and numbers that are none or infinite are refused, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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


class Parallel(Strict):
    """How several processes share a model's training.

    ``none``: each holds all of it. ``zero2``: optimizer states and gradients are cut up over the processes;
    ``zero3``: the weights too (both by DeepSpeed). Rollouts and the teacher always use whole weights.
    """

    strategy: Literal["none", "zero2", "zero3"] = "none"
    offload: bool = Field(default=False, description="keep what is cut up in CPU memory (zero2: optimizer states)")


class VLLMExecution(Strict):
    """How vLLM runs where a stage samples with it."""

    server: bool = Field(default=False, description="in a process of its own, which may crash and be restarted")
    memory_share: float = Field(default=0.4, gt=0, le=1, description="of a GPU's memory while it is awake")
    kv_cache_gib: float | None = Field(default=None, gt=0, description="None: what memory_share leaves; on CPUs 0.25")
    max_length: int | None = Field(default=None, ge=2, description="prompt and completion; None: the model's own limit")
    replicas: int | None = Field(default=None, ge=1, description="servers of an evaluation; None: one a visible GPU")
    eager: bool | None = Field(default=None, description="no compilation; None: on CPUs, where it takes minutes")
    restarts: int = Field(default=2, ge=0, description="fresh engines for one batch before the stage fails")
    timeout_seconds: float = Field(default=3600, gt=0, description="of the server for its start or one batch")
    tolerance: float | None = Field(
        default=None, gt=0, description="of a probe's log-probabilities after a sync; None: 1e-4, in bfloat16 0.25"
    )

    def cache_bytes(self, on_cpu: bool) -> int | None:
        """Size of the KV cache; None: what ``memory_share`` leaves."""
        # Small models on a CPU need little; vLLM's own guess there is a share of the machine's memory.
        size = 0.25 if on_cpu and self.kv_cache_gib is None else self.kv_cache_gib
        return None if size is None else int(size * 2**30)


class ClientExecution(Strict):
    """How an OpenAI-compatible server is asked; docs/guide.md says what each fault leads to."""

    concurrency: int = Field(default=32, ge=1, description="requests in flight at first, of one server")
    max_concurrency: int = Field(default=256, ge=1, description="it grows while the server keeps up, and halves else")
    retries: int = Field(default=8, ge=0, description="of one request, after faults of the server or the way to it")
    backoff_seconds: float = Field(default=0.5, ge=0, description="before the first retry; doubles, with jitter")
    max_backoff_seconds: float = Field(default=60, ge=0)
    timeout_seconds: float = Field(default=3600, gt=0, description="of one request; the longest Retry-After, too")
    read_timeout_seconds: float = Field(default=1800, gt=0, description="without a byte of the reply")
    key_variable: str | None = Field(default=None, description="environment variable that holds the server's key")
    gone_after: int = Field(default=16, ge=1, description="requests in a row without an answer: the server is gone")


class EvaluationExecution(Strict):
    """How an evaluation is fed to its engine and watched."""

    workers: int | None = Field(
        default=None,
        ge=0,
        description="processes that prepare prompts ahead; None: 0 for an engine in this process on CPUs, else 1 to 4",
    )
    ahead_items: int = Field(default=256, ge=1, description="prompts prepared and not yet taken by the engine")
    ahead_mib: int = Field(default=2048, ge=1, description="memory of these")
    restarts: int = Field(default=2, ge=0, description="fresh engines in a row that answer nothing new before it fails")
    memory_share: float = Field(default=0.9, gt=0, le=1, description="of a GPU's memory, for vLLM in this process")
    hang_seconds: float = Field(default=1800, gt=0, description="without a step or an answer, then the process ends")
    accept_missing: bool = Field(default=False, description="a result although the engine left responses out")


class Execution(Strict):
    """How a stage runs; outside its identity."""

    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(default=None, ge=1, description="CPU threads; None leaves torch's own choice")
    micro_batch_tokens: int = Field(default=4096, ge=1, description="tokens in one forward pass, a shared prompt once")
    gradient_checkpointing: bool = Field(
        default=False, description="keep a layer's input alone and compute the layer again for the gradient"
    )
    rollout_batch: int = Field(default=256, ge=1, description="sequences decoded together")
    processes: int = Field(default=1, ge=1, description="processes of a training stage, one a GPU")
    parallel: Parallel = Parallel()
    checkpoint_every: int = Field(default=20, ge=1, description="optimiser steps between resumable checkpoints")
    health: HealthConfig = HealthConfig()
    telemetry: tuple[TelemetrySink, ...] = Field(default=(), description="where metrics go beside the run's own files")
    telemetry_project: str = "vold-bench"
    telemetry_run: str | None = Field(default=None, description="the run's name there; None: its directory's")
    vllm: VLLMExecution = VLLMExecution()
    client: ClientExecution = ClientExecution()
    evaluation: EvaluationExecution = EvaluationExecution()


class OptimizerConfig(Strict):
    """AdamW with warm-up; ``schedule`` shapes what follows the warm-up."""

    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = Field(default=1.0, gt=0)


FreezablePart = Literal["vision", "merger", "embeddings"]
RolloutEngineName = Literal["builtin", "vllm"]

ImagePolicy = Literal["refuse", "skip", "caption"]
"""What a text-only teacher makes of a prompt with images: an error, nothing, or the caption in their place."""


class LoraConfig(Strict):
    """Low-rank adapters on linear layers of the language model; everything else is frozen."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0, description="the adapter's output is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )


class TracesConfig(Strict):
    """Reasoning traces written by a teacher."""

    writer: str = Field(default="teacher", description="model role that writes the traces")
    n: int | None = Field(default=None, ge=1, description="prompts to answer; None: all")
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=8192, ge=1, description="longer traces are dropped and counted")
    keep: Literal["all", "correct"] = "all"
    rollout: RolloutEngineName = Field(default="builtin", description="engine that samples; each draws its own numbers")
    images: ImagePolicy = Field(default="refuse", description="prompts with images; the writer sees none")


class SFTConfig(Strict):
    """Stage 1, the cold start: next-token NLL on traces (defaults: the paper's)."""

    traces: str = Field(default="teacher", description="model role whose traces are imitated")
    steps: int = Field(default=4000, ge=1)
    batch_size: int = Field(default=256, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5, warmup_steps=150, schedule="cosine")
    max_length: int = Field(default=8192, ge=1)
    freeze: tuple[FreezablePart, ...] = ("vision",)
    lora: LoraConfig | None = None


Estimator = Literal["k2", "k1_advantage", "k1_control", "k3_forward", "reverse_kl", "forward_kl", "jsd", "topk"]
Mask = Literal["wrong", "all", "correct"]
Reduction = Literal["token_mean", "sequence_mean", "constant"]
Advantage = Literal["group_std", "group_mean"]
Ratio = Literal["token", "sequence"]
Surrogate = Literal["clip", "cispo"]


class DistillConfig(Strict):
    """The teacher term on student rollouts; each estimator is named by what it optimises (``objectives.distill``).

    The paper's is ``k2``: 0.5 (log p_s - log p_t)^2 back-propagated, whose gradient is that of the reverse KL.
    """

    weight: float = Field(default=0.0, ge=0, description="beta; 0 switches the term off")
    weight_end: float | None = Field(default=None, ge=0, description="beta of the last step; with a schedule")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    delay: int = Field(default=0, ge=0, description="steps before the term begins")
    estimator: Estimator = "k2"
    top_k: int = Field(default=64, ge=1, description="topk: the teacher's tokens that stand alone")
    mask: Mask = "wrong"
    reduce: Reduction | None = Field(default=None, description="denominator; None: the policy term's")
    monitor_every: int = Field(default=10, ge=0, description="steps between KL measurements when weight is 0; 0: never")
    images: ImagePolicy = Field(default="refuse", description="prompts with images; the teacher sees none")

    @field_validator("estimator", mode="before")
    @classmethod
    def _refuse_k1(cls, value: object) -> object:
        if value == "k1":
            raise ValueError(
                "k1 back-propagated has an expected gradient of exactly zero; k1_advantage, k2 and reverse_kl have "
                "that of the reverse KL"
            )
        return value

    @model_validator(mode="after")
    def _schedule_has_an_end(self) -> "DistillConfig":
        if (self.schedule == "constant") != (self.weight_end is None):
            raise ValueError("weight_end and a schedule (linear, cosine) go together: give both or neither")
        return self

    @property
    def active(self) -> bool:
        """Whether the term has weight at any time."""
        return max(self.weight, self.weight_end or 0.0) > 0


class PolicyConfig(Strict):
    """How rewards become a policy gradient; the defaults are GRPO's, clipped as the paper does."""

    advantage: Advantage = "group_std"
    advantage_epsilon: float = Field(default=1e-4, gt=0, description="delta beside the group's standard deviation")
    ratio: Ratio = "token"
    surrogate: Surrogate = "clip"
    clip_low: float = Field(default=0.2, ge=0)
    clip_high: float = Field(default=0.3, ge=0)
    reduce: Reduction = Field(default="token_mean", description="denominator; constant: sequences x max_new_tokens")
    max_refills: int = Field(
        default=0, ge=0, description="further prompts tried in place of one whose rewards are all equal"
    )


ALGORITHMS = {
    "grpo": PolicyConfig(),
    "dr_grpo": PolicyConfig(advantage="group_mean", clip_high=0.2, reduce="constant"),
    "dapo": PolicyConfig(clip_high=0.28, max_refills=4),
    "gspo": PolicyConfig(ratio="sequence", clip_low=3e-4, clip_high=4e-4, reduce="sequence_mean"),
    # No lower bound, and a weight of at most 5 (the authors name no number; arXiv 2510.13786 found 4 to 8 alike).
    "cispo": PolicyConfig(surrogate="cispo", clip_low=1.0, clip_high=4.0),
}
"""What each name stands for; sources in ``vold.objectives.grpo``."""


class RLConfig(PolicyConfig):
    """Stage 2, GRPO and/or on-policy distillation (defaults: the paper's).

    ``algorithm`` fills the fields of ``PolicyConfig`` that are not given.
    """

    algorithm: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = "grpo"
    teacher: str = Field(default="teacher", description="model role that scores the rollouts")
    steps: int = Field(default=60, ge=1)
    prompts_per_step: int = Field(default=51, ge=1)
    group_size: int = Field(default=5, ge=1)
    updates_per_batch: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=8192, ge=1)
    rollout: RolloutEngineName = Field(default="builtin", description="engine that samples; each draws its own numbers")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=6e-6, warmup_steps=5)
    reward_weight: float = Field(default=1.0, ge=0, description="0: the teacher term alone")
    engine_correction: Literal["off", "token", "sequence"] = Field(
        default="off", description="truncated importance sampling of trainer against rollout engine"
    )
    engine_correction_cap: float = Field(default=2.0, gt=0, description="largest weight of a token or sequence")
    distill: DistillConfig = DistillConfig()
    validate_every: int = Field(default=10, ge=0, description="steps between validations, where there are prompts")
    freeze: tuple[FreezablePart, ...] = ("vision",)
    lora: LoraConfig | None = None
    max_nonfinite_steps: int = Field(
        default=MAX_NONFINITE_STEPS, ge=1, description="consecutive skipped steps that end the run"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_algorithm(cls, given: Any) -> Any:
        preset = ALGORITHMS.get(str(given.get("algorithm", "grpo"))) if isinstance(given, dict) else None
        return given if preset is None else {**preset.model_dump(), **given}

    @model_validator(mode="after")
    def _has_an_objective(self) -> "RLConfig":
        if self.reward_weight == 0 and not self.distill.active:
            raise ValueError("nothing to optimise: give reward_weight or distill.weight a value above 0")
        if self.reward_weight == 0 and self.max_refills > 0:
            raise ValueError(
                "max_refills replaces prompts that teach the policy term nothing, but reward_weight 0 switches that "
                "term off: set max_refills to 0"
            )
        return self
