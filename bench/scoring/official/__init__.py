"""The benchmarks' published scoring procedures, their faults kept, so that a number can be held against published ones.

Strict scoring (``vold.answers``) is what this suite reports by default; these serve comparison alone.
"""

from bench.scoring.official import logicvista, mathvision, mathvista, mmmu_pro
from bench.scoring.official.base import Procedure, Ruling

PROCEDURES: dict[str, Procedure] = {
    "mmmu_pro": mmmu_pro.judge,
    "mathvision": mathvision.judge,
    "mathvista": mathvista.judge,
    "logicvista": logicvista.judge,
}

__all__ = ["PROCEDURES", "Procedure", "Ruling"]
