"""vLLM's sampling parameters, for rollouts and for evaluations in this process.

Servers get theirs as fields of a request (``bench.engines.openai``).
"""

from typing import TYPE_CHECKING

from vold.rollout.base import Sampling

if TYPE_CHECKING:
    from vllm import SamplingParams


def sampling_parameters(sampling: Sampling, seed: int) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        seed=seed,
        stop_token_ids=list(sampling.stop_ids),
        ignore_eos=True,  # only the stop ids end a completion
        logprobs=0,  # only of the sampled token
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
