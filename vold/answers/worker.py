"""The process that asks math-verify: one JSON line [answer, gold] in, one JSON boolean out.

It runs math-verify in its main thread, since math-verify's own time limit uses SIGALRM, and under a cap on
memory. Whoever started it kills it when an answer takes too long.
"""

import json
import resource
import sys

MEMORY = 2 << 30


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import logging

    from math_verify import LatexExtractionConfig
    from math_verify import parse as parse_latex
    from math_verify import verify as same

    logging.disable(logging.CRITICAL)
    config = [LatexExtractionConfig()]
    print("true", flush=True)
    for line in sys.stdin:
        try:
            answer, gold = (parse_latex(f"${text}$", extraction_config=config) for text in json.loads(line))
            result = bool(answer and gold and same(gold, answer))
        except (Exception, RecursionError, MemoryError):
            result = False
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
