"""All forms by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import ConfigurationError
from bench.exports import every_eval_ever, hub, lm_eval, vlmeval
from bench.exports.evaluation import Evaluation
from bench.hints import nearest

FORMATS: dict[str, Callable[[Evaluation, Path], list[Path]]] = {
    "lm-eval": lm_eval.write,
    "vlmeval": vlmeval.write,
    "every-eval-ever": every_eval_ever.write,
    "hub": hub.write,
}


def export(path: Path, to: Path, formats: Sequence[str] = (), model: str | None = None) -> dict[str, list[Path]]:
    """Write the evaluation at ``path`` under ``to/FORMAT`` in each of ``formats`` (none named: all).

    model: the name it is given there, such as ``organization/model``. Returns the files by format. Raises
    ConfigurationError for an unknown format and where ``path`` holds no finished evaluation.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigurationError(f"--format {name}: unknown; {nearest(name, FORMATS)}")
    evaluation = Evaluation(path, model)
    return {name: FORMATS[name](evaluation, to / name) for name in dict.fromkeys(formats or FORMATS)}
