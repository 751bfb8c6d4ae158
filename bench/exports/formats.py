"""The export formats by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import ConfigurationError
from bench.exports import every_eval_ever, hub, lm_eval, vlmeval
from bench.exports.evaluation import ExportedEvaluation
from bench.hints import nearest

FORMATS: dict[str, Callable[[ExportedEvaluation, Path], list[Path]]] = {
    "lm-eval": lm_eval.write,
    "vlmeval": vlmeval.write,
    "every-eval-ever": every_eval_ever.write,
    "hub": hub.write,
}


def export(path: Path, to: Path, formats: Sequence[str] = (), model: str | None = None) -> dict[str, list[Path]]:
    """Write the evaluation in ``path`` to ``to/FORMAT`` for each of ``formats``, and return the files by format.

    formats: empty means all. model: name of the model in the exports, such as ``organization/model``; the default is
    its own name. Raises ConfigurationError for an unknown format, and if ``path`` holds no finished evaluation.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigurationError(f"--format {name}: unknown; {nearest(name, FORMATS)}")
    evaluation = ExportedEvaluation(path, model)
    return {name: FORMATS[name](evaluation, to / name) for name in dict.fromkeys(formats or FORMATS)}
