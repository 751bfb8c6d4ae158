"""The process that asks VLMEvalKit (ms-vlmeval): rows on standard input, a verdict a line on standard output.

Its MathVision scorer evaluates responses as code, and importing it costs half a minute and 800 MB. So it runs apart:
without network where the kernel allows it, with limits on memory, CPU time and file sizes, and with no environment of
the user's. That contains accidents, not a determined attacker. Nothing of it is imported anywhere else.

Where VLMEvalKit would ask a judge model, a stored extraction answers in its place; without one there is no verdict.
"""

import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu

MEMORY = 12 << 30
"""Of address space, libraries included."""
_FILE_BYTES = 64 << 20
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000

SheetRow = Mapping[str, Any]
ScorerReading = tuple[str, bool | None]
"""What VLMEvalKit extracted, and whether it is right; None: only a judge can tell."""


class NoJudge(Exception):
    """VLMEvalKit asked a judge model."""


class _Stored:
    """Stands in for the judge model with what a published file stores as its reply."""

    def __init__(self, extraction: str | None) -> None:
        self.extraction = extraction

    def generate(self, prompt: str, **settings: Any) -> str:
        if self.extraction is None:
            raise NoJudge
        return self.extraction


def main() -> None:
    """Read one JSON object {"benchmark", "cot", "rows", "cpu_seconds"}; write how it runs, then a line for each row."""
    network = _without_network()
    asked = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # VLMEvalKit prints
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (asked["cpu_seconds"], asked["cpu_seconds"]))
    judge = scorer_of(asked["benchmark"], asked["cot"])
    print(json.dumps({"network": network}), file=out, flush=True)
    for row in asked["rows"]:
        try:
            extracted, right = judge(row)
        except NoJudge:
            extracted, right = "", None
        print(json.dumps([extracted, right]), file=out, flush=True)


def _without_network() -> str:
    """Leave the network; says how. Before any library has started a thread, which would forbid it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) == 0 or libc.unshare(_NEW_USER | _NEW_NETWORK) == 0:
        return "none"

    def refuse(*arguments: Any, **named: Any) -> NoReturn:
        raise OSError("this process has no network")

    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    return "python sockets refused"


def scorer_of(benchmark: str, cot: bool) -> Callable[[SheetRow], ScorerReading]:
    return {"mmmu_pro": _mmmu_pro(cot), "mathvision": _mathvision, "mathvista": _mathvista, "logicvista": _logicvista}[
        benchmark
    ]


def _mmmu_pro(cot: bool) -> Callable[[SheetRow], ScorerReading]:
    """Its ``exact_matching`` policy: an option that is not found is Z, which is wrong."""

    def judge(row: SheetRow) -> ScorerReading:
        from vlmeval.dataset.image_mcq import MMMUProDataset
        from vlmeval.dataset.utils.multiple_choice import eval_vanilla, extract_answer_from_item

        prediction = row["response"]
        if cot:
            prediction = MMMUProDataset.cot_postproc(None, prediction)  # type: ignore[arg-type]
        gold = row["answer"] if row["answer"] in row["labels"] else "A"
        options = dict(zip(row["labels"], row["options"], strict=True))
        item = {"index": row["id"], "question": row["question"], "prediction": prediction, "GT": gold, **options}
        found: Any = extract_answer_from_item(None, item, dataset_name="MMMU_Pro")
        return found["opt"], bool(eval_vanilla(None, item, dataset_name="MMMU_Pro")["hit"])

    return judge


def _mathvision(row: SheetRow) -> ScorerReading:
    """Without the process that VLMEvalKit starts for each comparison: this one has limits of its own."""
    from vlmeval.dataset.utils import mathv
    from vlmeval.dataset.utils.mathv import MATH_V_auxeval, post_check

    mathv.is_equal = getattr(mathv.is_equal, "__wrapped__", mathv.is_equal)
    line = {
        "question": row["question"],
        "choices": repr(list(row["options"])),
        "answer": row["answer"],
        "prediction": row["response"],
    }
    extracted = MATH_V_auxeval(_Stored(row["extraction"]), line)["res"]
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
    extracted = MathVista_auxeval(_Stored(row["extraction"]), line)["res"]
    return str(extracted), bool(post_check({**line, "res": extracted}))


def _logicvista(row: SheetRow) -> ScorerReading:
    from vlmeval.dataset.utils.logicvista import LogicVista_auxeval

    stored = row["extraction"]
    letters = None if stored is None else "".join(filter(str.isalpha, stored)).upper()
    line = {"question": row["question"], "answer": row["answer"], "prediction": row["response"]}
    found = LogicVista_auxeval(_Stored(letters), line)
    return str(found["res"]), bool(found["hit"])


if __name__ == "__main__":
    main()
