"""Files that come with the suite: matrix files, profiles, and the baseline of the regression check.

In a checkout they are in the top-level folders ``ablations`` and ``results``. A wheel has them inside this package
(``setup.py``), because folders with such general names do not belong in ``site-packages``.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_WHEEL = _PACKAGE / "_bundled"
_ROOT = _WHEEL if _WHEEL.is_dir() else _PACKAGE.parent

ABLATIONS = _ROOT / "ablations"
PROFILES = ABLATIONS / "profiles"
CHECK_BASELINE = _ROOT / "results" / "baselines" / "check.json"
