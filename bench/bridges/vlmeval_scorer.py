"""The program that runs VLMEvalKit (ms-vlmeval): rows on standard input, one verdict per line on standard output.

VLMEvalKit's MathVision scorer evaluates responses as code, and importing VLMEvalKit takes half a minute and 800 MB. It
therefore runs in a process of its own: without network if the kernel allows it, with limits on memory, CPU time and
file sizes, and without the user's environment. This contains accidents, but not a determined attacker. No other module
imports VLMEvalKit.

If VLMEvalKit would ask a judge model, a stored extraction replaces the reply. Without one there is no verdict.
"""

import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu

MEMORY = 12 << 30
"""Bytes of address space, including libraries."""
_FILE_BYTES = 64 << 20
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000

SheetRow = Mapping[str, Any]
ScorerReading = tuple[str, bool | None]
"""VLMEvalKit's extracted answer, and whether it is right; None if only a judge model can decide."""


class NoJudge(Exception):
    """VLMEvalKit wants to ask a judge model."""


class _StoredJudge:
    """Replaces the judge model: returns the extraction that a published file has stored."""

    def __init__(self, extraction: str | None) -> None:
        self.extraction = extraction

    def generate(self, prompt: str, **settings: object) -> str:
        if self.extraction is None:
            raise NoJudge
        return self.extraction


def main() -> None:
    """Read one JSON object {"benchmark", "cot", "rows", "cpu_seconds"}; write the isolation, then a line per row."""
    network = _without_network()
    task = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # VLMEvalKit prints
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (task["cpu_seconds"], task["cpu_seconds"]))
    score = scorer_of(task["benchmark"], task["cot"])
    print(json.dumps({"network": network}), file=out, flush=True)
    for row in task["rows"]:
        try:
            extracted, right = score(row)
        except NoJudge:
            extracted, right = "", None
        print(json.dumps([extracted, right]), file=out, flush=True)


def _without_network() -> str:
    """Disconnect this process from the network and return how. Must run before any library starts a thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) == 0 or libc.unshare(_NEW_USER | _NEW_NETWORK) == 0:
        return "none"

    def refuse(*arguments: object, **named: object) -> NoReturn:
        raise OSError("this process has no network")

    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    return "python sockets refused"


def scorer_of(benchmark: str, cot: bool) -> Callable[[SheetRow], ScorerReading]:
    """The scorer of a benchmark. cot: MMMU-Pro's variant for responses with reasoning."""
    return partial(_mmmu_pro, cot=True) if cot and benchmark == "mmmu_pro" else SCORERS[benchmark]


def _mmmu_pro(row: SheetRow, cot: bool = False) -> ScorerReading:
    """The policy ``exact_matching``: if no option is found, the answer is Z, which is wrong."""
    from vlmeval.dataset.image_mcq import MMMUProDataset
    from vlmeval.dataset.utils.multiple_choice import eval_vanilla, extract_answer_from_item

    prediction = row["response"]
    if cot:
        prediction = MMMUProDataset.cot_postproc(None, prediction)  # type: ignore[arg-type]
    gold = row["answer"] if row["answer"] in row["labels"] else "A"
    options = dict(zip(row["labels"], row["options"], strict=True))
    item = {"index": row["id"], "question": row["question"], "prediction": prediction, "GT": gold, **options}
    answer: Any = extract_answer_from_item(None, item, dataset_name="MMMU_Pro")
    return answer["opt"], bool(eval_vanilla(None, item, dataset_name="MMMU_Pro")["hit"])


def _mathvision(row: SheetRow) -> ScorerReading:
    """Skips the process that VLMEvalKit starts for each comparison, because this process has limits already."""
    from vlmeval.dataset.utils import mathv
    from vlmeval.dataset.utils.mathv import MATH_V_auxeval, post_check

    mathv.is_equal = getattr(mathv.is_equal, "__wrapped__", mathv.is_equal)
    line = {
        "question": row["question"],
        "choices": repr(list(row["options"])),
        "answer": row["answer"],
        "prediction": row["response"],
    }
    extracted = MATH_V_auxeval(_StoredJudge(row["extraction"]), line)["res"]
    return str(extracted), bool(post_check({**line, "res": extracted}))


def _mathvista(row: SheetRow) -> ScorerReading:
    from vlmeval.dataset.utils.mathvista import MathVista_auxeval, post_check

    label = row["gold_labels"][0] if row["gold_labels"] else ""
    line = {
        "question": row["question"],
        "choices": repr(list(row["options"])),
        "answer": row["answer"],
        "answer_option": label,
        "question_type": "multi_choice" if row["options"] else "free_form",
        "answer_type": "text" if row["options"] else row["kind"],
        "prediction": row["response"],
    }
    extracted = MathVista_auxeval(_StoredJudge(row["extraction"]), line)["res"]
    return str(extracted), bool(post_check({**line, "res": extracted}))


def _logicvista(row: SheetRow) -> ScorerReading:
    from vlmeval.dataset.utils.logicvista import LogicVista_auxeval

    stored = row["extraction"]
    letters = None if stored is None else "".join(filter(str.isalpha, stored)).upper()
    line = {"question": row["question"], "answer": row["answer"], "prediction": row["response"]}
    result = LogicVista_auxeval(_StoredJudge(letters), line)
    return str(result["res"]), bool(result["hit"])


SCORERS: dict[str, Callable[[SheetRow], ScorerReading]] = {
    "mmmu_pro": _mmmu_pro, "mathvision": _mathvision, "mathvista": _mathvista, "logicvista": _logicvista,
}  # fmt: skip
"""The registry of the benchmarks that VLMEvalKit can score here."""


if __name__ == "__main__":
    main()
