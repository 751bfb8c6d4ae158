"""The process that asks math-verify: one JSON line in, one out.

[answer, gold] asks for equality (a boolean), [expression] for its value (a number, null where it has none).

Memory is capped, and so is the CPU time of each question: SIGPROF, left at its default, ends the process even
inside a C function. CPU time, not wall time, so that a verdict does not depend on what else the machine does;
math-verify's own limit (SIGALRM, wall time) is switched off.
"""

import json
import math
import resource
import signal
import sys
from typing import Any

MEMORY = 2 << 30
CPU_SECONDS = 0.8


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import logging

    from latex2sympy2_extended import latex2sympy
    from math_verify import LatexExtractionConfig
    from math_verify import parse as parse_latex
    from math_verify import verify as same

    logging.disable(logging.CRITICAL)
    config = [LatexExtractionConfig()]

    def parsed(text: str) -> Any:
        return parse_latex(f"${text}$", extraction_config=config, parsing_timeout=0)

    def number(text: str) -> float | None:
        value = float(latex2sympy(text).evalf())
        return value if math.isfinite(value) else None

    same(parsed(r"\frac{1}{2}"), parsed("0.5"), timeout_seconds=0)  # imports what is imported on first use
    print("true", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            texts = json.loads(line)
            if len(texts) == 1:
                result = number(texts[0])
            else:
                answer, gold = map(parsed, texts)
                result = bool(answer and gold and same(gold, answer, timeout_seconds=0))
        except (Exception, MemoryError):
            result = None if len(texts) == 1 else False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
