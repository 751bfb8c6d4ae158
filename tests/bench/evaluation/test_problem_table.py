from dataclasses import replace
from pathlib import Path

import pytest

from bench.benchmarks.base import Dataset
from bench.benchmarks.registry import BENCHMARKS, read_benchmark
from bench.evaluation.problem_table import read_problems, write_problems
from bench.evaluation.selection import Selection


@pytest.mark.real
@pytest.mark.parametrize("benchmark", [name for name, benchmark in BENCHMARKS.items() if benchmark.url])
def test_every_real_record_is_read_back_unchanged_except_for_the_paths_of_its_images(
    benchmark: str, benchmark_data: Path, tmp_path: Path
) -> None:
    split = next(iter(BENCHMARKS[benchmark].splits))  # whether its images are there or not
    problems = read_benchmark(benchmark, benchmark_data / benchmark, split, require_images=False).problems
    selected = tuple(problem for problem in problems if not problem.unscorable)
    dataset = Dataset(benchmark, benchmark, "test", False, problems)
    write_problems(tmp_path, [Selection(dataset, selected)])
    table = list(read_problems(tmp_path))
    assert table == [
        replace(problem, images=tuple(Path(image.name) for image in problem.images)) for problem in selected
    ]
    assert len(table) > 400
