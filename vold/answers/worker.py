"""The process that runs math-verify. It answers one JSON line with another.

The line [answer, reference] asks whether the two are equal (a boolean). The line [expression] asks for its value (a
number, or null if it has none).

Memory is limited, and so is the CPU time of each question: SIGPROF, left at its default, ends the process even inside
a C function. The limit is CPU time, so that a verdict does not depend on the load of the machine. math-verify's own
limit (SIGALRM, wall time) is switched off.

The libraries take seconds to import. They are imported once, and a forked child answers the questions. When a question
ends the child, the parent answers null in its place and forks the next child within milliseconds.

Changes of what is equal here need a new ``vold.answers.VERSION``.
"""

import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

MEMORY = 2 << 30
CPU_SECONDS = 0.8

Answer = Callable[[list[str]], bool | float | None]


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answer = _libraries()
    answer([r"\frac{1}{2}", "0.5"])  # the first use imports more modules
    _say(True)
    while True:
        child = os.fork()
        if child == 0:
            _serve(answer)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return  # the questions have ended
        _say(None)


def _serve(answer: Answer) -> None:
    while question := _line():
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        texts = json.loads(question)
        try:
            result = answer(texts)
        except (Exception, MemoryError):
            result = None if len(texts) == 1 else False
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(result)


def _line() -> bytes:
    """One line of standard input. Nothing after it is read, because another child may have to read it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            return b""
        line += byte
    return bytes(line)


def _say(result: bool | float | None) -> None:
    os.write(1, json.dumps(result).encode() + b"\n")


def _libraries() -> Answer:
    import logging

    from latex2sympy2_extended import latex2sympy
    from math_verify import LatexExtractionConfig
    from math_verify import parse as parse_latex
    from math_verify import verify as same

    logging.disable(logging.CRITICAL)
    config = [LatexExtractionConfig()]

    def parsed(text: str) -> Any:
        return parse_latex(f"${text}$", extraction_config=config, parsing_timeout=0)

    def answer(texts: list[str]) -> bool | float | None:
        if len(texts) == 1:
            expression: Any = latex2sympy(texts[0])
            value = float(expression.evalf())
            return value if math.isfinite(value) else None
        response, reference = map(parsed, texts)
        return bool(response and reference and same(reference, response, timeout_seconds=0))

    return answer


if __name__ == "__main__":
    sys.exit(main())
