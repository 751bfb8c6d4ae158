"""The format Every Eval Ever, schema 0.3.0: an aggregate in JSON, and JSON lines with one line per response."""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from bench.benchmarks.registry import BENCHMARKS
from bench.exports.evaluation import BenchmarkExport, ExportedEvaluation, Sample
from bench.summary import Measure
from vold.files import write_whole

SCHEMA = "0.3.0"
_LIBRARY = "vold-bench"
_UNKNOWN = "unknown"


def write(evaluation: ExportedEvaluation, to: Path) -> list[Path]:
    """``data/vold-bench/DEVELOPER/MODEL/UUID.json`` and ``UUID_samples.jsonl``; the result determines the UUID."""
    developer, _, model = evaluation.file_name.rpartition("__")
    folder = Path("data", _LIBRARY, developer or _UNKNOWN, model)
    name = _uuid(evaluation)
    (to / folder).mkdir(parents=True, exist_ok=True)
    aggregate, details = folder / f"{name}.json", folder / f"{name}_samples.jsonl"
    rows = [json.dumps(row, ensure_ascii=False) + "\n" for part in evaluation.parts() for row in _instances(part)]
    lines = "".join(rows)
    write_whole(to / details, lines)
    details_record = {
        "format": "jsonl",
        "file_path": details.as_posix(),
        "hash_algorithm": "sha256",
        "checksum": hashlib.sha256(lines.encode()).hexdigest(),
        "total_rows": len(rows),
    }
    content = {**_aggregate(evaluation), "detailed_evaluation_results": details_record}
    write_whole(to / aggregate, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return [to / aggregate, to / details]


def _uuid(evaluation: ExportedEvaluation) -> str:
    """A UUID in the form of version 4, derived from the summary so that a second export writes the same files."""
    digest = hashlib.sha256((evaluation.path / "summary.json").read_bytes() + evaluation.model.encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _evaluation_id(evaluation: ExportedEvaluation) -> str:
    return f"{_LIBRARY}/{evaluation.model}/{_seconds(evaluation)}"


def _seconds(evaluation: ExportedEvaluation) -> str:
    return str(int(evaluation.finished.timestamp()))


def _aggregate(evaluation: ExportedEvaluation) -> dict[str, object]:
    return {
        "schema_version": SCHEMA,
        "evaluation_id": _evaluation_id(evaluation),
        "evaluation_timestamp": _seconds(evaluation),
        "retrieved_timestamp": _seconds(evaluation),
        "source_metadata": {
            "source_name": _LIBRARY,
            "source_type": "evaluation_run",
            "source_organization_name": _UNKNOWN,
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": _LIBRARY,
            "version": metadata.version(_LIBRARY),
            "additional_details": _strings({"config": evaluation.config}),
        },
        "model_info": _model(evaluation),
        "evaluation_results": [
            _measure(part, name, measure) for part in evaluation.parts() for name, measure in part.measures.items()
        ],
    }


def _model(evaluation: ExportedEvaluation) -> dict[str, object]:
    engine = evaluation.engine
    version = engine.get("versions", {}).get(engine["name"], _UNKNOWN)
    served = engine["name"] == "openai"
    return {
        "name": evaluation.model,
        "id": evaluation.model,
        "inference_engine": {"name": engine["name"], "version": version},
        "additional_details": {
            "deployment_type": _UNKNOWN if served else "self_deployed",
            "model_availability": _UNKNOWN,
            **_strings({"engine": engine, **asdict(evaluation.summary.model)}),
        },
    }


def _measure(part: BenchmarkExport, name: str, measure: Measure) -> dict[str, object]:
    kind, _, k = name.partition("@")
    config = part.evaluation.config
    return {
        "evaluation_result_id": f"{part.task}/{name}",
        "evaluation_name": part.task,
        "evaluation_timestamp": _seconds(part.evaluation),
        "source_data": _source(part),
        "metric_config": {
            "evaluation_description": f"{part.evaluation.scoring} scoring, mean over items; "
            "a response that could not be read is not right",
            "metric_id": {"avg": "accuracy", "pass": "pass_at_k", "maj": "majority_vote"}.get(kind, kind),
            "metric_name": name,
            "metric_kind": {"avg": "accuracy", "pass": "pass_rate"}.get(kind, "accuracy"),
            "metric_unit": "proportion",
            "metric_parameters": {"k": int(k)} if k.isdigit() else {},
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": {
            "score": measure.value,
            "details": _strings(part.about),
            "uncertainty": {
                "confidence_interval": {
                    "lower": measure.low,
                    "upper": measure.high,
                    "confidence_level": 0.95,
                    "method": "Wilson on the effective number of items",
                },
                "num_samples": measure.n,
            },
        },
        "generation_config": {
            "generation_args": {
                "temperature": config["temperature"],
                "max_tokens": config["max_tokens"],
                "prompt_template": config["template"],
            },
            "additional_details": _strings({"seed": part.evaluation.summary.seed, "samples": part.evaluation.k}),
        },
    }


def _source(part: BenchmarkExport) -> dict[str, object]:
    """Where the problems come from. Synthetic problems are labelled as such and have no address."""
    details = _strings({"synthetic": part.synthetic, "benchmark": part.benchmark, "split": part.summary.split})
    if part.synthetic:
        return {"dataset_name": f"{part.task} (synthetic)", "source_type": "other", "additional_details": details}
    benchmark = BENCHMARKS.get(part.benchmark)
    if benchmark is None or not (benchmark.hub_id or benchmark.url):  # the user's own problems
        return {"dataset_name": part.benchmark, "source_type": "other", "additional_details": details}
    if not benchmark.hub_id:
        url = [benchmark.url]
        return {"dataset_name": part.benchmark, "source_type": "url", "url": url, "additional_details": details}
    split = benchmark.splits.get(part.summary.split)
    return {
        "dataset_name": part.benchmark,
        "source_type": "hf_dataset",
        "hf_repo": benchmark.hub_id,
        "hf_split": split.hub_split if split else part.summary.split,
        "samples_number": len(part.problems),
        "sample_ids": list(part.problems),
        "additional_details": details,
    }


def _instances(part: BenchmarkExport) -> Iterator[dict[str, object]]:
    """A line per response, for the measure that is their mean; pass@k and maj@k combine several responses."""
    mean = next(iter(part.measures), "")
    for sample in part.samples:
        yield {
            "schema_version": SCHEMA,
            "evaluation_id": _evaluation_id(part.evaluation),
            "model_id": part.evaluation.model,
            "evaluation_name": part.task,
            "evaluation_result_id": f"{part.task}/{mean}",
            **_instance(part, sample),
        }


def _instance(part: BenchmarkExport, sample: Sample) -> dict[str, object]:
    problem = sample.problem
    metadata = {
        "sample": sample.sample,
        "state": sample.state,
        "finish_reason": sample.finish_reason,
        "kind": problem.kind,
        "category": problem.category,
        "cluster": problem.cluster,
        "images": [image.name for image in problem.images],
        "synthetic": part.synthetic,
    }
    usage = None
    if sample.prompt_tokens is not None:
        total = sample.prompt_tokens + sample.tokens
        usage = {"input_tokens": sample.prompt_tokens, "output_tokens": sample.tokens, "total_tokens": total}
    return {
        "sample_id": problem.id,
        "sample_hash": hashlib.sha256((problem.question + problem.answer).encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {
            "raw": problem.question,
            "reference": [problem.answer],
            "choices": list(problem.options) or None,
        },
        "output": {"raw": [sample.response]},
        "answer_attribution": _attribution(sample),
        "evaluation": {"score": float(sample.correct), "is_correct": sample.correct},
        "token_usage": usage,
        "error": sample.error or None,
        "metadata": _strings(metadata),
    }


def _attribution(sample: Sample) -> list[dict[str, object]]:
    if not sample.extracted:
        return []
    extraction = {"extracted_value": sample.extracted, "extraction_method": sample.method}
    return [{"turn_idx": 0, "source": "output.raw", **extraction, "is_terminal": True}]


def _strings(values: Mapping[str, object]) -> dict[str, str]:
    """Values for the schema's free fields, which hold only text: others as JSON, None left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
        if value is not None
    }
