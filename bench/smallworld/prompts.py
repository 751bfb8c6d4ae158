"""The small world's prompts for traces and RL, and its problems as prompts for measuring a student in training.

Every set names its random stream and its split. Recipes are tuned on the ``*_tune`` sets and reported on the others.
"""

from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from bench.smallworld.problems import PAGE_OPTIONS, WorldProblem, WorldSplit, stream
from bench.smallworld.records import question
from bench.smallworld.render import render_problem
from vold.data.prompts import IMAGE_MARK, Prompt, write_jsonl
from vold.files import write_whole
from vold.seeding import generator


@dataclass(frozen=True, slots=True)
class PromptSet:
    """``stream`` names the random numbers: two sets with the same one hold the same problems."""

    stream: str
    split: WorldSplit = "train"
    images: bool = False


PROMPT_SETS = {
    "sft": PromptSet("sft"),
    "rl": PromptSet("rl"),
    "rl_images": PromptSet("rl_images", images=True),
    "sft_tune": PromptSet("sft_tune"),
    "rl_tune": PromptSet("rl_tune"),
    "sft_check": PromptSet("sft_check"),
    "rl_check": PromptSet("rl_check"),
    "held_out_texts": PromptSet("held_out", "tune"),
    "held_out_images": PromptSet("held_out", "tune", images=True),
}
DATA_SEED = 1


def as_prompt(problem: WorldProblem, index: int, image: Path | None = None) -> Prompt:
    """The problem as text, or with ``image``. The caption of the image is the bracketed part of the text form.

    Only the ten options of a chain are listed, because the five options of bars are pairs of values.
    """
    page = problem.form == "choice" and problem.family == "chain"
    options = tuple(PAGE_OPTIONS[1::2]) if page else ()
    key = f"{index:05d}:{problem.text()}"
    if image is None:
        return Prompt(id=key, text=problem.text(), answer=problem.answer, options=options)
    text, caption = f"{IMAGE_MARK}{question(problem)}", f"[{problem.symbols}]"
    return Prompt(key, text, problem.answer, options, (image,), caption)


def write_prompts(name: str, n: int, path: Path) -> None:
    """Write ``n`` prompts of the set ``name`` as JSONL, with images in a directory next to the file.

    Raises KeyError for an unknown set; the message lists the known ones.
    """
    if name not in PROMPT_SETS:
        raise KeyError(f"no small-world prompt set {name!r}; known: {', '.join(PROMPT_SETS)}")
    prompt_set = PROMPT_SETS[name]
    problems = islice(stream(DATA_SEED, prompt_set.stream, prompt_set.split), n)
    if not prompt_set.images:
        write_jsonl(path, (as_prompt(problem, index) for index, problem in enumerate(problems)))
        return
    directory = path.parent / f"images-{name}"
    directory.mkdir(exist_ok=True)
    prompts = []
    for index, problem in enumerate(problems):
        image, content = directory / f"{index}.png", BytesIO()
        Image.fromarray(render_problem(problem, generator(DATA_SEED, name, index))).save(content, "PNG")
        write_whole(image, content.getvalue())
        prompts.append(as_prompt(problem, index, image))
    write_jsonl(path, prompts)
