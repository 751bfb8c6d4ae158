"""The standard cold start: how soon a base student composes, measured before it is published.

A base student decides when composing begins. Students that begin at different times would drown every contrast of an
experiment, so each of them must reach the same band of accuracy after one short SFT, on traces of either notation, and
must then read images nearly as well as texts. Seeds, prompts and problems are those of tuning.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from bench.smallworld.notation import MirroredNotation
from bench.smallworld.prompts import write_prompts
from vold.config import OptimizerConfig, SFTConfig, TracesConfig
from vold.data.prompts import Prompt
from vold.data.reading import read_prompts
from vold.execution import Execution
from vold.models import load_student
from vold.rewards import rewards
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.training.rollouts import encode
from vold.training.sft import train_sft
from vold.training.traces import write_traces

SEEDS = (103, 107)
PROBLEMS = 400
TRACES = 1024
MAX_NEW_TOKENS = 64
COLD_START = SFTConfig(
    steps=50,
    batch_size=32,
    max_length=160,
    freeze=("vision", "merger", "embeddings"),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup_steps=5, schedule="linear"),
)
EXECUTION = Execution(device="cpu", threads=1, micro_batch_tokens=1536)


def write_teacher_traces(teacher: Path, work: Path) -> Path:
    """Let a teacher answer the tuning prompts, and return the file of its traces."""
    work.mkdir(parents=True)
    write_prompts("sft_tune", TRACES, work / "prompts.jsonl")
    config = TracesConfig(temperature=0, max_new_tokens=MAX_NEW_TOKENS)
    write_traces(config, writer=teacher, prompts=work / "prompts.jsonl", run=work, seed=0, execution=EXECUTION)
    return work / "out" / "traces.jsonl"


def cold_start_skills(student: Path, traces: Mapping[MirroredNotation, Path], work: Path) -> dict[str, float]:
    """The accuracy of a student after the standard cold start, on the same problems as texts and as images.

    The keys are ``cold-start/NOTATION/text`` and ``.../image`` (means over ``SEEDS``), and ``.../gap``, their
    difference. All values are shares.
    """
    work.mkdir(parents=True)
    forms = {form: _problems(form, work) for form in ("text", "image")}
    skills: dict[str, float] = {}
    for notation, path in traces.items():
        runs = []
        for seed in SEEDS:
            run = work / f"{notation}-{seed}"
            train_sft(COLD_START, student=student, traces=path, run=run, seed=seed, execution=EXECUTION)
            runs.append({form: greedy_accuracy(run / "out", prompts) for form, prompts in forms.items()})
        text, image = (fmean(run[form] for run in runs) for form in forms)
        name = f"cold-start/{notation}"
        skills |= {f"{name}/text": text, f"{name}/image": image, f"{name}/gap": text - image}
    return skills


def _problems(form: str, work: Path) -> Sequence[Prompt]:
    path = work / f"{form}.jsonl"
    write_prompts(f"held_out_{form}s", PROBLEMS, path)
    return read_prompts(path)


def greedy_accuracy(checkpoint: Path, prompts: Sequence[Prompt]) -> float:
    """The share of prompts that a checkpoint answers right with greedy decoding."""
    student = load_student(checkpoint)
    sampling = Sampling(MAX_NEW_TOKENS, temperature=0, stop_ids=student.stop_ids, banned_ids=student.banned_ids)
    requests = [RolloutRequest.of(encode(student, prompt), (0,)) for prompt in prompts]
    groups = BuiltinEngine(student).generate(requests, sampling)
    return fmean(rewards([student.decode(completion.completion_ids) for (completion,) in groups], prompts))
