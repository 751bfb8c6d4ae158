"""The files ``.eval_results/NAME.yaml`` of a model repository on the hub, one per benchmark.

The score is a percentage. Synthetic problems never have a benchmark's name: their data set is this package's generator.
"""

from pathlib import Path

from bench.benchmarks.registry import BENCHMARKS
from bench.exports.evaluation import BenchmarkExport, ExportedEvaluation
from bench.summary import Measure
from vold.files import write_whole

FOLDER = ".eval_results"
_GENERATOR = "vold-bench/smallworld"


def write(evaluation: ExportedEvaluation, to: Path) -> list[Path]:
    """A file for each benchmark with a response whose data set is on the hub or synthetic."""
    import yaml

    written = []
    for part in evaluation.parts():
        if part.measures and (part.synthetic or _hub_id(part)):
            written.append(to / FOLDER / f"{part.file_name}.yaml")
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump([_entry(part)], sort_keys=False, allow_unicode=True, width=120)
            write_whole(written[-1], text)
    return written


def _hub_id(part: BenchmarkExport) -> str:
    """The benchmark's data set on the hub, or an empty text."""
    return BENCHMARKS[part.benchmark].hub_id if part.benchmark in BENCHMARKS else ""


def _entry(part: BenchmarkExport) -> dict[str, object]:
    dataset = _GENERATOR if part.synthetic else _hub_id(part)
    first = next(iter(part.measures.values()))
    return {
        "dataset": {"id": dataset, "task_id": part.task},
        "value": round(100 * first.value, 4),
        "date": part.evaluation.finished.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notes": _notes(part, first),
    }


def _notes(part: BenchmarkExport, measure: Measure) -> str:
    about = part.about
    notes = [
        "synthetic problems, not the benchmark's" if part.synthetic else "",
        f"{about['scoring']} scoring by vold-bench, in percent",
        f"95 % interval {100 * measure.low:.1f} to {100 * measure.high:.1f}",
        f"n {about['n']} of {about['expected']} responses, {len(part.missing)} missing",
        f"k {about['k']}, temperature {about['temperature']}, seed {about['seed']}, max_tokens {about['max_tokens']}",
        f"prompt {about['template']} (token ids of the first sha256 {about['prompt_token_ids_sha256'] or 'not known'}, "
        f"parts sha256 {about['prompt_sha256']})",
        f"engine {about['engine']['name']}",
        f"weights and settings sha256 {about['model']['sha256']}" if about["model"]["sha256"] else "",
    ]
    return "; ".join(filter(None, notes))
