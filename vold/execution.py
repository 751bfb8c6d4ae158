"""How a stage runs: device, threads, micro-batches, processes, engines.

Nothing here is part of a stage's identity, and nothing here changes a result beyond rounding. ``vold.config`` has the
settings that decide what is computed.
"""

from typing import Literal

from pydantic import Field

from vold.config import Strict

TelemetrySink = Literal["tensorboard", "wandb"]


class HealthConfig(Strict):
    """Limits at which a training run logs a warning. "First" means the first value that the run measured."""

    entropy_share: float = Field(
        default=0.1, ge=0, description="Warn when the entropy falls below this share of its first value."
    )
    truncated_share: float = Field(
        default=0.5, ge=0, le=1, description="Warn when more than this share of completions reaches max_new_tokens."
    )
    kl_growth: float = Field(
        default=3.0,
        ge=1,
        description="Warn when the KL to the teacher exceeds this multiple of its first value and kl_minimum.",
    )
    kl_minimum: float = Field(default=0.5, ge=0, description="KL in nats per token below which kl_growth never warns.")
    mismatch_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Warn when trainer and rollout engine differ by more than 10 % in probability on more than this "
        "share of tokens.",
    )


class Parallel(Strict):
    """How the processes of one training stage share the model. Rollouts and the teacher always use whole weights."""

    strategy: Literal["none", "zero2", "zero3"] = Field(
        default="none",
        description="none: every process holds the whole model. zero2: DeepSpeed splits optimizer states and gradients "
        "between the processes. zero3: it splits the weights too. Use zero2 or zero3 when a model does not fit.",
    )
    offload: bool = Field(
        default=False,
        description="Keep the split parts in CPU memory (with zero2, the optimizer states). Slower. No effect with "
        "strategy none.",
    )


class VLLMExecution(Strict):
    """How vLLM runs in stages that sample with it."""

    server: bool = Field(
        default=False,
        description="Run vLLM in a process of its own, which is restarted after a crash. Required when a stage has "
        "several processes.",
    )
    memory_share: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="Share of a GPU's memory that vLLM uses during rollouts. Evaluations have a memory_share of their "
        "own.",
    )
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="Size of the KV cache in GiB. None: what memory_share leaves on a GPU, 0.25 GiB on a CPU.",
    )
    max_length: int | None = Field(
        default=None,
        ge=2,
        description="Longest prompt plus completion in tokens. None: the model's own limit. Lower it when the KV cache "
        "does not fit.",
    )
    replicas: int | None = Field(
        default=None, ge=1, description="vLLM servers of an evaluation. None: one per visible GPU."
    )
    eager: bool | None = Field(
        default=None,
        description="Run without compilation: faster start, slower sampling. None: only on CPUs, where compiling takes "
        "minutes.",
    )
    restarts: int = Field(
        default=2,
        ge=0,
        description="Times that a failed engine is restarted for one batch of rollouts before the stage fails.",
    )
    timeout_seconds: float = Field(
        default=3600, gt=0, description="Longest time in seconds for the vLLM process to start or to finish one batch."
    )
    tolerance: float | None = Field(
        default=None,
        gt=0,
        description="Largest difference in log-probability between trainer and vLLM on a probe after the weights are "
        "copied. A larger one stops the run. None: 1e-4, or 0.25 in bfloat16.",
    )

    def cache_bytes(self, on_cpu: bool) -> int | None:
        """Size of the KV cache in bytes, or None for what ``memory_share`` leaves."""
        # On a CPU vLLM would take a share of the machine's memory, and small models need little.
        size = 0.25 if on_cpu and self.kv_cache_gib is None else self.kv_cache_gib
        return None if size is None else int(size * 2**30)


class ClientExecution(Strict):
    """How requests go to an OpenAI-compatible server. The guide lists what happens after each fault."""

    concurrency: int = Field(default=32, ge=1, description="Initial number of concurrent requests per server.")
    max_concurrency: int = Field(
        default=256,
        ge=1,
        description="Upper bound for concurrent requests per server. Their number grows while the server keeps up and "
        "halves when it falls behind.",
    )
    retries: int = Field(
        default=8, ge=0, description="Times that a request is repeated after a fault of the server or the network."
    )
    backoff_seconds: float = Field(
        default=0.5,
        ge=0,
        description="Longest wait in seconds before the first retry. It doubles with every further one, and half of it "
        "is random.",
    )
    max_backoff_seconds: float = Field(
        default=60, ge=0, description="Upper bound in seconds for the doubling wait between retries."
    )
    timeout_seconds: float = Field(
        default=3600,
        gt=0,
        description="Limit in seconds for one request, and for the wait that a Retry-After asks for.",
    )
    read_timeout_seconds: float = Field(
        default=1800,
        gt=0,
        description="Longest time in seconds without receiving anything. Raise it when a model thinks for longer.",
    )
    key_variable: str | None = Field(
        default=None, description="Name of the environment variable that holds the server's API key."
    )
    gone_after: int = Field(
        default=16,
        ge=1,
        description="Unanswered requests in a row after which the server counts as gone and the evaluation stops. "
        "Raise it when that many requests are at fault themselves.",
    )


class EvaluationExecution(Strict):
    """How prompts reach the engine of an evaluation, and how the engine is watched."""

    workers: int | None = Field(
        default=None,
        ge=0,
        description="Processes that prepare prompts ahead. None: 0 for an engine in the same process on CPUs, "
        "otherwise 1 to 4, depending on the CPUs.",
    )
    ahead_problems: int = Field(
        default=256, ge=1, description="Most prompts that are prepared before the engine takes them."
    )
    ahead_mib: int = Field(default=2048, ge=1, description="Most memory in MiB for prompts prepared ahead.")
    restarts: int = Field(
        default=2,
        ge=0,
        description="Times in a row that a failed engine is restarted without a new response before the evaluation "
        "fails.",
    )
    memory_share: float = Field(
        default=0.9, gt=0, le=1, description="Share of a GPU's memory that vLLM uses in an evaluation."
    )
    hang_seconds: float = Field(
        default=1800,
        gt=0,
        description="Seconds without a step or a response after which an engine in the same process counts as hung "
        "and the evaluation stops. A rerun resumes it.",
    )
    accept_missing: bool = Field(
        default=False,
        description="Publish a result even if responses are missing. A later run without it requests the missing ones.",
    )


class Execution(Strict):
    """How a stage runs. Nothing here is part of a stage's identity."""

    device: str = Field(
        default="auto",
        description="Device to run on: auto (a GPU where there is one), cpu, cuda or cuda:N.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Type in which models compute. bfloat16 is faster on GPUs and halves the memory of frozen weights; "
        "trained weights and their optimizer states stay float32.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads per process. None: as many as torch chooses."
    )
    micro_batch_tokens: int = Field(
        default=4096,
        ge=1,
        description="Most tokens in one forward pass; a prompt that several sequences share counts once. Lower it when "
        "training runs out of memory.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Keep only the input of each layer and compute the layer again for the gradient. Saves memory and "
        "costs about one more forward pass.",
    )
    rollout_batch: int = Field(
        default=256, ge=1, description="Most sequences decoded together. Lower it when sampling runs out of memory."
    )
    processes: int = Field(
        default=1, ge=1, description="Processes of a training stage. On GPUs, each has one of its own."
    )
    parallel: Parallel = Field(default=Parallel(), description="How several processes share the training of a model.")
    checkpoint_every: int = Field(
        default=20,
        ge=1,
        description="Optimizer steps between saved training states. An interrupted run resumes from the last one.",
    )
    gradient_norms_every: int = Field(
        default=20,
        ge=0,
        description="Steps between measurements of the gradient norm of each RL term alone, if both terms have a "
        "weight. One takes up to two more passes of training, and none changes the update. 0: never.",
    )
    health: HealthConfig = Field(default=HealthConfig(), description="Limits at which a training run logs a warning.")
    telemetry: tuple[TelemetrySink, ...] = Field(
        default=(), description="Services that receive the metrics in addition to the run's own files."
    )
    telemetry_project: str = Field(default="vold-bench", description="Name of the project in Weights & Biases.")
    telemetry_run: str | None = Field(
        default=None, description="Name of the run in Weights & Biases. None: the name of its directory."
    )
    vllm: VLLMExecution = Field(default=VLLMExecution(), description="How vLLM runs.")
    client: ClientExecution = Field(
        default=ClientExecution(), description="How requests go to an OpenAI-compatible server."
    )
    evaluation: EvaluationExecution = Field(
        default=EvaluationExecution(), description="How an evaluation feeds and watches its engine."
    )
