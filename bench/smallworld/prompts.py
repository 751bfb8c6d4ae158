"""Text prompts of the small world for traces and for RL, all from the training split."""

from itertools import islice
from pathlib import Path

from bench.smallworld.problems import PAGE_OPTIONS, Problem, stream
from vold.data.prompts import Prompt, write_jsonl

# Sets differ by their random stream; recipes are tuned on the *_tune sets and reported on the others.
SETS = ("sft", "rl", "sft_tune", "rl_tune", "sft_check", "rl_check")
DATA_SEED = 1


def as_prompt(problem: Problem, index: int) -> Prompt:
    """The problem in its text form. The ten options of a page are listed; five bins beside bars are only letters."""
    page = problem.form == "choice" and problem.family == "chain"
    options = tuple(PAGE_OPTIONS[1::2]) if page else ()
    return Prompt(id=f"{index:05d}:{problem.text()}", text=problem.text(), answer=problem.answer, options=options)


def materialise(name: str, n: int, path: Path) -> None:
    """Write prompt set ``name`` with ``n`` prompts as JSONL; raises KeyError naming the known sets."""
    if name not in SETS:
        raise KeyError(f"no small-world prompt set {name!r}; known: {', '.join(SETS)}")
    problems = islice(stream(DATA_SEED, name, "train"), n)
    write_jsonl(path, (as_prompt(problem, index) for index, problem in enumerate(problems)))
