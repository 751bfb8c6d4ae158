"""The benchmarks' published scoring procedures, faults included, for comparison with published results.

This project reports strict scoring (``vold.answers``) by default. ``PROCEDURES`` is the registry of official scoring.
"""

from bench.errors import ConfigurationError
from bench.scoring.official import logicvista, mathvision, mathvista, mmmu_pro, transcription
from bench.scoring.official.base import Procedure, Ruling

PROCEDURES: dict[str, Procedure] = {
    "mmmu_pro": mmmu_pro.score_mmmu_pro,
    "mathvision": mathvision.score_mathvision,
    "mathvista": mathvista.score_mathvista,
    "logicvista": logicvista.score_logicvista,
    "transcription": transcription.score_transcription,
}

__all__ = ["PROCEDURES", "Procedure", "Ruling", "find_procedure"]


def find_procedure(benchmark: str) -> Procedure:
    """The benchmark's official procedure. Raises ConfigurationError if it has none."""
    if benchmark not in PROCEDURES:
        raise ConfigurationError(
            f"{benchmark} has no official scoring, only {', '.join(PROCEDURES)} have. Use --mode strict, or add its "
            "published procedure to PROCEDURES in bench/scoring/official/__init__.py"
        )
    return PROCEDURES[benchmark]
