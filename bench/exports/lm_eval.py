"""The format of lm-eval (lm_eval.result_schema, 0.4.13): a file of results, and a file of samples per task."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.exports.evaluation import BenchmarkExport, ExportedEvaluation, Sample
from vold.files import write_whole

_Z = 1.959964
_FILTER = "none"


def write(evaluation: ExportedEvaluation, to: Path) -> list[Path]:
    """``MODEL/results_DATE.json`` and ``MODEL/samples_TASK_DATE.jsonl``."""
    folder, stamp = to / evaluation.file_name, evaluation.finished.strftime("%Y-%m-%dT%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(evaluation.parts())
    written = [folder / f"results_{stamp}.json"]
    hashes = {}
    for part in parts:
        rows = [_sample(index, sample, part) for index, sample in enumerate(part.samples)]
        hashes[part.task] = _hash("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))
        written.append(folder / f"samples_{part.file_name}_{stamp}.jsonl")
        write_whole(written[-1], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    text = json.dumps({**_results(evaluation, parts), "task_hashes": hashes}, indent=2, ensure_ascii=False)
    write_whole(written[0], text + "\n")
    return written


def _results(evaluation: ExportedEvaluation, parts: list[BenchmarkExport]) -> dict[str, object]:
    config = evaluation.config
    return {
        "results": {part.task: _metrics(part) for part in parts},
        "group_subtasks": {part.task: [] for part in parts},
        "configs": {part.task: _configuration(part) for part in parts},
        "versions": {part.task: config["template"] for part in parts},
        "n-shot": {part.task: 0 for part in parts},
        "higher_is_better": {part.task: {_metric(name): True for name in part.measures} for part in parts},
        "n-samples": {
            part.task: {"original": part.summary.records, "effective": part.summary.problems} for part in parts
        },
        "config": {
            "model": evaluation.engine["name"],
            "model_args": {"pretrained": evaluation.model},
            "model_sha": evaluation.summary.model.sha256,
            "limit": config["limit"],
            "gen_kwargs": _generation(evaluation),
            "random_seed": evaluation.summary.seed,
        },
        "date": evaluation.finished.timestamp(),
        "model_source": "vold-bench",
        "model_name": evaluation.model,
        "model_name_sanitized": evaluation.file_name,
        "vold_bench": {part.task: part.about for part in parts},
    }


def _metrics(part: BenchmarkExport) -> dict[str, object]:
    """``_stderr`` is half the width of the 95 % interval divided by 1.96, because the interval is not symmetric."""
    metrics: dict[str, object] = {"name": part.task, "alias": part.task, "sample_len": part.summary.n}
    for name, measure in part.measures.items():
        metrics[f"{_metric(name)},{_FILTER}"] = measure.value
        metrics[f"{_metric(name)}_stderr,{_FILTER}"] = (measure.high - measure.low) / (2 * _Z)
    return metrics


def _metric(name: str) -> str:
    return "acc" if name.startswith("avg@") else name


def _configuration(part: BenchmarkExport) -> dict[str, object]:
    return {
        "task": part.task,
        "dataset_path": part.summary.dataset,
        "test_split": part.summary.split,
        "output_type": "generate_until",
        "doc_to_text": part.evaluation.config["template"],
        "description": "synthetic problems, not the benchmark's" if part.synthetic else "",
        "repeats": part.evaluation.k,
        "generation_kwargs": _generation(part.evaluation),
        "metadata": {"version": part.evaluation.config["template"]},
    }


def _generation(evaluation: ExportedEvaluation) -> dict[str, object]:
    config = evaluation.config
    return {"temperature": config["temperature"], "max_gen_toks": config["max_tokens"], "n": evaluation.k}


def _sample(index: int, sample: Sample, part: BenchmarkExport) -> dict[str, Any]:
    """A row for a response. Its prompt hash is that of the question, because only first prompts are recorded."""
    problem = sample.problem
    doc = {
        "id": problem.id,
        "sample": sample.sample,
        "question": problem.question,
        "options": list(problem.options),
        "images": [image.name for image in problem.images],
        "synthetic": part.synthetic,
    }
    return {
        "doc_id": index,
        "doc": doc,
        "target": problem.answer,
        "arguments": {"gen_args_0": {"arg_0": problem.question, "arg_1": _generation(part.evaluation)}},
        "resps": [[sample.response]],
        "filtered_resps": [sample.extracted],
        "filter": _FILTER,
        "metrics": ["acc"],
        "doc_hash": _hash(json.dumps(doc, ensure_ascii=False, sort_keys=True)),
        "prompt_hash": _hash(problem.question),
        "target_hash": _hash(problem.answer),
        "acc": float(sample.correct),
        "state": sample.state,
        "method": sample.method,
        "finish_reason": sample.finish_reason,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
