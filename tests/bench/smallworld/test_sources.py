"""Sources of the small world: directories that are written on demand, and errors."""

from pathlib import Path

import pytest

from bench.benchmarks.registry import load_problems
from bench.errors import ConfigurationError
from bench.smallworld.sources import dataset_path


@pytest.mark.parametrize("benchmark", ["mmmu_pro", "mathvision", "mathvista", "logicvista"])
def test_the_small_world_is_written_and_loads_through_the_loader_of_the_real_benchmark(
    benchmark: str, tmp_path: Path
) -> None:
    from bench.smallworld.problems import HELD_OUT

    root = dataset_path(benchmark, f"smallworld/{next(iter(HELD_OUT.values()))}?n=3", tmp_path)
    problems = load_problems(benchmark, root)
    assert len(problems) == 3
    assert not any(problem.unscorable for problem in problems)


@pytest.mark.parametrize(
    "source", ["smallworld/report", "smallworld/report?n=0", "smallworld/?n=3", "smallworld/no?n=2"]
)
def test_a_malformed_small_world_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"smallworld/|no small-world"):
        dataset_path("mathvision", source, tmp_path)
