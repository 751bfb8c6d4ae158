r"""The benchmarks' own prompts, word for word from their repositories.

Wording, form and order of the parts come from the repositories. Images are at their marks. Without marks they come
before the text, although some of the published scripts put all images after the text.

``OFFICIAL_PROMPTS`` is the registry: a benchmark with an entry there has the templates ``official`` and
``official_direct``.
"""

from collections.abc import Callable
from typing import NamedTuple

from bench.errors import ConfigurationError
from bench.prompts.base import TRANSCRIBE, Template, option_lines
from bench.records import Problem

_LETTER = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) where "
    "LETTER is one of options."
)
_MMMU_PRO_DIRECT = "Answer with the option letter from the given choices directly."
_MATHVISION_BOXED = (
    r'Please solve the problem step by step and put your answer in one "\boxed{}". If it is a multiple choice '
    r'question, only one letter is allowed in the "\boxed{}".'
)
_MATHVISTA_HINTS = {
    "choice": "and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    "list": "requiring a Python list as an answer and provide the final list, "
    "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}
_MATHVISTA_DECIMALS = {
    1: "requiring a floating-point number with one decimal place and provide the final value, "
    "e.g., 1.2, 1.3, 1.4, at the end.",
    2: "requiring a floating-point number with two decimal places and provide the final value, "
    "e.g., 1.23, 1.34, 1.45, at the end.",
}


def _mmmu_pro_direct(problem: Problem) -> str:
    """MMMU-Benchmark/MMMU, mmmu-pro/infer: prompts.yaml (direct) and infer_gpt.py.

    A page of the vision setting gets only the instruction.
    """
    if not problem.question:
        return f"{_MMMU_PRO_DIRECT} {_LETTER}"
    return "\n".join([problem.question, *option_lines(problem), _MMMU_PRO_DIRECT])


def _mmmu_pro_cot(problem: Problem) -> str:
    """The same sources, cot."""
    steps = f"{_LETTER} Think step by step before answering."
    if not problem.question:
        return f"Write out the multiple-choice question in the image and then solve it. {steps}"
    instruction = f"Answer the preceding multiple choice question. {steps}"
    return "\n".join([problem.question, *option_lines(problem), instruction])


def _mathvision_cot(problem: Problem) -> str:
    """mathllm/MATH-V, models/Qwen-VL.py: instruction, question and options, each with a line break."""
    return "".join(f"{line}\n" for line in (_MATHVISION_BOXED, problem.question, *option_lines(problem)))


def _mathvision_direct(problem: Problem) -> str:
    """The same source, without reasoning; also in models/GPT4V.py."""
    lines = "".join(f"{line}\n" for line in (problem.question, *option_lines(problem)))
    return f"{lines}\nAnswer the question using a single word or phrase."


def _mathvista(problem: Problem) -> str:
    """lupantech/MathVista, data/query.json: a hint about the answer's kind, the question with its unit, the choices.

    Spaces at the end are removed and all others kept, as in that file. Raises ConfigurationError for decimals of a
    precision that the benchmark does not have.
    """
    hint = _MATHVISTA_HINTS.get(problem.kind) or _MATHVISTA_DECIMALS.get(problem.precision or 0)
    if hint is None:
        raise ConfigurationError(
            f"mathvista {problem.id}: no official hint for a {problem.kind} answer of precision {problem.precision} "
            "(the benchmark has 1 and 2). Use a template that fits any problem, such as boxed@2"
        )
    lines = [f"Hint: Please answer the question {hint}", f"Question: {problem.question}", *option_lines(problem)]
    return "\n".join(lines).rstrip()


def _logicvista(problem: Problem) -> str:
    """Yijia-Xiao/LogicVista publishes no prompt. This is the question of data/dataset.json, unchanged."""
    return problem.question


def _transcription(problem: Problem) -> str:
    """This project's own: the question, then the instruction that every other template gives, too."""
    return f"{problem.question}\n{TRANSCRIBE}"


class OfficialPrompt(NamedTuple):
    """A benchmark's prompts with and without reasoning, which are the same if it has only one."""

    reasoning: Callable[[Problem], str]
    direct: Callable[[Problem], str]


OFFICIAL_PROMPTS: dict[str, OfficialPrompt] = {
    "mmmu_pro": OfficialPrompt(_mmmu_pro_cot, _mmmu_pro_direct),
    "mathvision": OfficialPrompt(_mathvision_cot, _mathvision_direct),
    "mathvista": OfficialPrompt(_mathvista, _mathvista),
    "logicvista": OfficialPrompt(_logicvista, _logicvista),
    "transcription": OfficialPrompt(_transcription, _transcription),
}


def _reasoning(problem: Problem) -> str:
    return OFFICIAL_PROMPTS[problem.benchmark].reasoning(problem)


def _direct(problem: Problem) -> str:
    return OFFICIAL_PROMPTS[problem.benchmark].direct(problem)


OFFICIAL = [
    Template("mmmu_pro_direct@1", _mmmu_pro_direct, ("mmmu_pro",)),
    Template("mmmu_pro_cot@1", _mmmu_pro_cot, ("mmmu_pro",)),
    Template("mathvision_direct@1", _mathvision_direct, ("mathvision",)),
    Template("mathvision_cot@1", _mathvision_cot, ("mathvision",)),
    Template("mathvista@1", _mathvista, ("mathvista",)),
    Template("logicvista@1", _logicvista, ("logicvista",)),
    Template("official@1", _reasoning, tuple(OFFICIAL_PROMPTS)),
    Template("official_direct@1", _direct, tuple(OFFICIAL_PROMPTS)),
]
