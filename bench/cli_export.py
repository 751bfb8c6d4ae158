"""``vold-bench export``: a finished evaluation in the forms of other tools."""

from collections.abc import Sequence
from pathlib import Path

from bench.evaluation.results import find
from bench.exports import export
from bench.json_output import print_json
from bench.matrix.store import Store


def run(store: Store, result: str, to: Path, formats: Sequence[str], model: str | None, as_json: bool) -> None:
    """Write the files and name them; raises ConfigurationError as ``find`` and ``export`` do."""
    written = export(find(result, store).path, to, formats, model)
    if as_json:
        print_json(written)
        return
    for name, files in written.items():
        print(f"{name}:" + "".join(f"\n  {file}" for file in files) if files else f"{name}: nothing (see the guide)")
