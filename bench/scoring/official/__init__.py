"""The benchmarks' published scoring procedures, their faults kept, so that a number can be held against published ones.

Strict scoring (``vold.answers``) is what this suite reports by default; these serve comparison alone.
"""

from bench.scoring.official import logicvista, mathvision, mathvista, mmmu_pro
from bench.scoring.official.base import Procedure, Ruling

PROCEDURES: dict[str, Procedure] = {
    "mmmu_pro": mmmu_pro.score_mmmu_pro,
    "mathvision": mathvision.score_mathvision,
    "mathvista": mathvista.score_mathvista,
    "logicvista": logicvista.score_logicvista,
}

__all__ = ["PROCEDURES", "Procedure", "Ruling"]
