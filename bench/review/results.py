"""Finished evaluations, found by directory, id or model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench import summary
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.records import Frame
from bench.store import Store
from bench.summary import Summary
from vold.locations import hub_name, on_hub


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation. path: the directory with its tables. id: the stage's id, or the directory's name."""

    path: Path
    id: str

    @cached_property
    def summary(self) -> Summary:
        """Raises ConfigurationError if the file is damaged or of another schema."""
        return summary.read(self.path)

    @cached_property
    def verdicts(self) -> Frame:
        """One row per response with its verdict. Raises ConfigurationError if the table is damaged."""
        return self._table("verdicts.parquet")

    @cached_property
    def responses(self) -> Frame:
        """One row per response with its text. Raises ConfigurationError if the table is damaged."""
        return self._table("responses.parquet")

    def _table(self, name: str) -> Frame:
        import pandas as pd

        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:  # includes the errors of pyarrow
            fix = summary.evaluate_again(self.path)
            raise ConfigurationError(f"{self.path / name}: cannot be read ({error}); {fix}") from error

    @property
    def model(self) -> str:
        return self.summary.model.name

    @property
    def label(self) -> str:
        """Model and id, and ``blind`` if the images were left out."""
        return f"{self.model} ({self.id}{', blind' if self.summary.config['blind'] else ''})"

    def locations(self) -> dict[str, Path]:
        """Paths of the model and the data by the names of the stage's inputs; empty for a copy outside the store."""
        file = self.path.parent / "spec.json"
        try:
            spec = json.loads(file.read_text(encoding="utf-8"))
            locations = spec["locations"].items()
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        store = self.path.parent.parent
        return {name: store / location for name, location in locations if not on_hub(location)}


def find_result(name: str, store: Store) -> EvaluationResult:
    """The result that ``name`` refers to: a directory, a stage's id or its beginning, or the name of a model.

    Raises ConfigurationError if there is none, or several of one model.
    """
    path = Path(name).expanduser()
    for folder in (path, path / "out"):
        if (folder / summary.FILE).is_file():
            return EvaluationResult(folder, path.resolve().name)
    finished = list(results(store))
    exact = [result for result in finished if result.id == name]
    matches = exact or [result for result in finished if name.startswith("eval-") and result.id.startswith(name)]
    current = [result for result in finished if "." not in result.id]  # results that --fresh renamed have an id only
    matches = matches or [result for result in current if _is_called(result.model, name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        lines = "\n".join(f"  {_settings(result)}" for result in matches)
        raise ConfigurationError(f"{name}: {len(matches)} results have this name; give the id of one:\n{lines}")
    names = [result.id for result in finished] + [result.model for result in finished]
    raise ConfigurationError(
        f"{name}: no such result in {store.root}, and no directory with one; {nearest(name, names)}. Another store is "
        "named with --store or VOLD_BENCH_STORE"
    )


def _is_called(model: str, name: str) -> bool:
    """Whether ``name`` is the model's name, or the value of ``--model`` for it.

    That is ``smallworld/NAME``, ``hub:OWNER/NAME`` or ``URL#NAME``; the owner may be left out.
    """
    base, _ = hub_name(name.rpartition("#")[2])
    return model in (name, base, base.rpartition("/")[2]) or model.rpartition("/")[2] == base


def results(store: Store) -> Iterator[EvaluationResult]:
    """The finished evaluations of a store, in the order of their ids."""
    for file in sorted(store.root.glob(f"eval-*/out/{summary.FILE}")):
        if store.done(file.parent.parent.name):
            yield EvaluationResult(file.parent, file.parent.parent.name)


def _settings(result: EvaluationResult) -> str:
    """Id and settings, which differ between the results of one model."""
    config, parts = result.summary.config, result.summary.benchmarks.values()
    words = [f"{name} {config[name]}" for name in ("template", "samples", "temperature", "max_tokens", "limit")]
    words += [name for name in ("blind",) if config[name]]
    words.append(f"{sum(part.problems for part in parts)} problems")
    return f"{result.id}  {', '.join(part.dataset for part in parts)}; {', '.join(words)}"
