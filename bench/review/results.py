"""Finished evaluations, found by what a person calls them."""

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
    """An evaluation's tables. ``path`` holds summary.json; ``id`` is the stage's, or the directory's name."""

    path: Path
    id: str

    @cached_property
    def summary(self) -> Summary:
        """Raises ConfigurationError if the file is damaged or of another schema."""
        return summary.read(self.path)

    @cached_property
    def verdicts(self) -> Frame:
        """One row a response, as scored. Raises ConfigurationError where the table is damaged."""
        return self._table("verdicts.parquet")

    @cached_property
    def responses(self) -> Frame:
        """One row a response, as given. Raises ConfigurationError where the table is damaged."""
        return self._table("responses.parquet")

    def _table(self, name: str) -> Frame:
        import pandas as pd

        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:  # pyarrow's errors are of these
            fix = summary.evaluate_again(self.path)
            raise ConfigurationError(f"{self.path / name}: cannot be read ({error}); {fix}") from error

    @property
    def model(self) -> str:
        return self.summary.model.name

    @property
    def label(self) -> str:
        """Model and id, and whether it was asked without the images."""
        return f"{self.model} ({self.id}{', blind' if self.summary.config['blind'] else ''})"

    def locations(self) -> dict[str, Path]:
        """Where model and data lay, by the names of the stage's inputs; empty for a copy outside of the store."""
        file = self.path.parent / "spec.json"
        try:
            spec = json.loads(file.read_text(encoding="utf-8"))
            places = spec["locations"].items()
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        store = self.path.parent.parent
        return {name: store / place for name, place in places if not on_hub(place)}


def find(name: str, store: Store) -> EvaluationResult:
    """The result that ``name`` means: a directory, a stage's id or its beginning, or the name of a model.

    Raises ConfigurationError where there is none, or several of one model.
    """
    path = Path(name).expanduser()
    for place in (path, path / "out"):
        if (place / summary.FILE).is_file():
            return EvaluationResult(place, path.resolve().name)
    finished = list(results(store))
    same = [result for result in finished if result.id == name]
    found = same or [result for result in finished if name.startswith("eval-") and result.id.startswith(name)]
    current = [result for result in finished if "." not in result.id]  # what --fresh put aside goes by its id alone
    found = found or [result for result in current if _is_called(result.model, name)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = "\n".join(f"  {_described(result)}" for result in found)
        raise ConfigurationError(f"{name}: {len(found)} results answer to it; name one by its id:\n{shown}")
    names = [result.id for result in finished] + [result.model for result in finished]
    raise ConfigurationError(
        f"{name}: no such result in {store.root}, and no directory with one; {nearest(name, names)}"
    )


def _is_called(model: str, name: str) -> bool:
    """Whether ``name`` is the model's, or what ``--model`` took for it (``smallworld/NAME``, ``hub:OWNER/NAME``,
    ``URL#NAME``); the owner may be left out."""
    given, _ = hub_name(name.rpartition("#")[2])
    return model in (name, given, given.rpartition("/")[2]) or model.rpartition("/")[2] == given


def results(store: Store) -> Iterator[EvaluationResult]:
    """The finished evaluations of a store, by id."""
    for place in sorted(store.root.glob("eval-*/out/summary.json")):
        if store.done(place.parent.parent.name):
            yield EvaluationResult(place.parent, place.parent.parent.name)


def _described(result: EvaluationResult) -> str:
    """What tells the results of one model apart."""
    config, parts = result.summary.config, result.summary.benchmarks.values()
    words = [f"{name} {config[name]}" for name in ("template", "samples", "temperature", "max_tokens", "limit")]
    words += [name for name in ("blind",) if config[name]]
    words.append(f"{sum(part.problems for part in parts)} problems")
    return f"{result.id}  {', '.join(part.dataset for part in parts)}; {', '.join(words)}"
