import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from bench.benchmark_data import data_sources
from bench.benchmarks.registry import BENCHMARKS
from bench.cli import main
from bench.errors import EXIT_CODES, ConfigurationError
from bench.smallworld import checkpoint_path
from bench.smallworld.sources import dataset_path
from tests.helpers.fake_matrix import MATRIX, make_world

REPOSITORY = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "transformers", "pandas", "matplotlib", "scipy", "numpy", "pydantic", "ruamel.yaml")


def command(*words: str, where: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a person runs it."""
    program = [sys.executable, "-c", "from bench.cli.main import main; main()", *words]
    settings = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(program, capture_output=True, text=True, cwd=where, env=settings, timeout=120)


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom bench.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_help_takes_at_most_150_ms_of_cpu_more_than_a_bare_typer_program(tmp_path):
    # Two commands, as one alone would become the program itself and show less.
    bare = "import typer\napp = typer.Typer()\n@app.command()\ndef one(): ...\n@app.command()\ndef two(): ...\napp()\n"
    (tmp_path / "bare.py").write_text(bare)
    programs = {"bare": [str(tmp_path / "bare.py")], "ours": ["-c", "from bench.cli.main import main; main()"]}

    def seconds(name: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *programs[name], "--help"], capture_output=True, cwd=REPOSITORY, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Pairs side by side, so that a busy machine slows both; the least busy pairs decide.
    extra = sorted(-seconds("bare") + seconds("ours") for _ in range(9))
    assert median(extra[:5]) < 0.15


def test_h_is_help_and_version_names_the_commit_of_a_checkout() -> None:
    runner = CliRunner()
    for words in ((), ("eval",), ("data", "audit")):
        short, long = (runner.invoke(main.app, [*words, flag]) for flag in ("-h", "--help"))
        assert short.exit_code == 0 and short.output == long.output
    assert re.fullmatch(
        r"vold-bench \S+( \([0-9a-f]{12}(\+changed)?\))?\n", runner.invoke(main.app, ["--version"]).output
    )


def test_every_command_has_an_example_that_it_accepts() -> None:
    for words, command in commands(get_command(main.app)):
        assert command.epilog and command.epilog.startswith(f"Example: vold-bench {' '.join(words)}"), words
        arguments = shlex.split(command.epilog.removeprefix(f"Example: vold-bench {' '.join(words)}"))
        command.make_context(" ".join(words), arguments)  # raises UsageError for an unknown option


def test_an_interruption_says_what_is_kept_and_exits_130() -> None:
    import typer

    app = typer.Typer(cls=main.Commands)

    @app.command("eval")
    def interrupted() -> None:
        raise KeyboardInterrupt

    app.command("other")(interrupted)
    result = CliRunner().invoke(app, ["eval"])
    assert result.exit_code == 130
    assert "responses received so far are kept. Run the same command again to resume." in result.output
    assert CliRunner().invoke(app, ["other"]).output.strip() == "Stopped by the user."


def test_help_lists_every_exit_code():
    text = " ".join(command("--help").stdout.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code.value} {meaning}" in text


def test_a_mistake_in_the_matrix_file_exits_4_and_names_the_place(tmp_path):
    matrix = make_world(tmp_path / "a")
    matrix.write_text(matrix.read_text().replace("seeds:", "seed:"))
    done = command("run-matrix", str(matrix), "--store", str(tmp_path / "store"))
    assert done.returncode == 4
    assert f"{matrix}:4:1: unknown key 'seed'; did you mean 'seeds'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_exits_2():
    assert command("run-matrx").returncode == 2
    assert command("run-matrix", "x.yaml", "--jobs", "0").returncode == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run-matrix", "ablations/cold_strat.yaml"), "did you mean 'cold_start.yaml'?"),
        (("run-matrix", "ablations/cold_start.yaml", "--profile", "smal"), "did you mean 'small'?"),
        (("run-matrix", "ablations/cold_start.yaml", "--only", "bse"), "did you mean 'base'?"),
        (("run-matrix", "ablations/cold_start.yaml", "--seeds", "1,x"), "whole numbers"),
        (("run-matrix", "ablations/cold_start.yaml", "--set", "rl.stps=3"), "did you mean 'rl.steps'?"),
        (("eval", "--model", "no/such/checkpoint"), "no/such/checkpoint; give a checkpoint directory"),
        (("eval", "--model", "smallworld/student_z"), "student_a"),
        (("train", "sft", "no.yaml"), "no such file"),
    ],
)
def test_wrong_input_exits_4_and_says_how_to_fix_it(words, text, tmp_path):
    done = command(*words, VOLD_BENCH_STORE=str(tmp_path))
    assert done.returncode == 4, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr


TRAIN = """\
schema: vold-bench/train@1
run: run
student: {student}
{data}
execution: {{device: cpu, threads: 1}}
"""


def sft(root: Path) -> list[str]:
    (root / "traces.jsonl").write_text('{"id": "1", "text": "[1+1]solve", "completion": "\\\\boxed{2}"}\n')
    (root / "sft.yaml").write_text(TRAIN.format(student="smallworld/teacher", data="traces: traces.jsonl"))
    return ["train", "sft", str(root / "sft.yaml")]


def rl(root: Path, student: str = "smallworld/teacher", teacher: str = "smallworld/teacher") -> list[str]:
    (root / "prompts.jsonl").write_text('{"id": "1", "text": "[1+1]solve", "answer": "2"}\n')
    data = f"prompts: prompts.jsonl\nteacher: {teacher}"
    (root / "rl.yaml").write_text(TRAIN.format(student=student, data=data))
    return ["train", "rl", str(root / "rl.yaml")]


def other_vocabulary(root: Path) -> list[str]:
    shutil.copytree(checkpoint_path("teacher"), root / "teacher")
    path = root / "teacher" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    one, other = list(vocabulary)[40:42]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return rl(root, "smallworld/student_a", "./teacher")


def no_checkpoint(root: Path) -> list[str]:
    matrix = make_world(root / "a")
    shutil.rmtree(root / "a" / "profiles" / "teacher")
    return ["run-matrix", str(matrix)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "text"),
    [
        (sft, "student"),
        (rl, "student"),
        (other_vocabulary, "another vocabulary"),
        (no_checkpoint, "give a checkpoint directory"),
    ],
)
def test_a_model_that_does_not_fit_exits_4_and_says_how_to_fix_it(build, text, tmp_path):
    done = command(*build(tmp_path), VOLD_BENCH_STORE=str(tmp_path / "store"))
    assert done.returncode == 4, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_unreadable_image_is_a_counted_error_and_each_evaluation_has_its_page(tmp_path):
    def evaluate(*words: str) -> dict[str, Any]:
        options = "--data mathvista=data --max-tokens 4 --threads 1 --device cpu --report . --store store --json"
        done = command("eval", "--model", "smallworld/student_a", *options.split(), *words, where=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    shutil.copytree(dataset_path("mathvista", "smallworld/check?n=4", tmp_path / "made"), tmp_path / "data")
    image = min((tmp_path / "data").rglob("*.png"))
    image.write_bytes(b"no image")
    whole, blind = evaluate(), evaluate("--blind")
    states = whole["benchmarks"]["mathvista"]["states"]
    assert states["error"] == 1 and sum(states.values()) == 4
    assert blind["benchmarks"]["mathvista"]["states"]["error"] == 0
    pages = [tmp_path / result["report"] for result in (whole, blind)]
    assert pages[0] != pages[1] and all("evaluated as it is" in page.read_text("utf-8") for page in pages)


def test_a_defect_exits_70_and_shows_its_traceback_only_when_asked(monkeypatch, capsys):
    def broken() -> None:
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(main, "app", broken)
    monkeypatch.delenv("VOLD_BENCH_DEBUG", raising=False)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 70
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("VOLD_BENCH_DEBUG", "1")
    with pytest.raises(SystemExit):
        main.main()
    assert "Traceback" in capsys.readouterr().err


def test_a_plan_says_what_would_be_done_and_does_nothing(tmp_path):
    matrix = make_world(tmp_path / "a")
    store = tmp_path / "store"
    done = command("run-matrix", str(matrix), "--plan", "--json", "--store", str(store))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["arms"]) == 9 and len(plan["stages"]) == 35
    assert not any(stage["done"] for stage in plan["stages"].values())
    assert plan["cost"]["seconds"] == pytest.approx(2 * 1 + 4 * 20 * 0.01 + 12 * 30 * 0.01 + 17 * 1)
    assert [name.split("-")[0] for name in plan["longest_path"]] == ["traces", "sft", "rl", "eval"]
    assert not list(store.glob("*-*")) and not (store / ".work").exists()
    text = command("run-matrix", str(matrix), "--plan", "--store", str(store)).stdout
    assert "teacher+grpo_opd" in text and "35 of 35 stages" in text and "a guess" in text
    assert "contrast H1: teacher+grpo_opd over teacher+grpo, relevant from 2 points" in text
    assert "analysis.planned_sd is not in the matrix file" in text and plan["contrasts"][0]["mde"] is None


def test_a_plan_says_what_its_contrasts_find_and_how_many_seeds_they_need(tmp_path):
    matrix = make_world(tmp_path / "a", MATRIX.replace("analysis:\n", "analysis:\n  planned_sd: 4pp\n"))
    words = ("run-matrix", str(matrix), "--plan", "--store", str(tmp_path / "store"))
    (contrast,) = json.loads(command(*words, "--json").stdout)["contrasts"]
    assert (contrast["runs"], contrast["students"], contrast["df"], contrast["sd"]) == (2, 1, 1, 0.04)
    text = command(*words).stdout
    assert (
        f"  2 runs (students x seeds: 1 x 2), df 1, sd 4: finds {100 * contrast['mde']:.1f} points or more; "
        f"finding 2 points takes {contrast['seeds_needed']} seeds per student" in text
    )
    assert "each with 80 % power at the level 0.05, the strictest step of the correction holm" in text
    assert "an arm of this contrast is not part of this plan" in command(*words, "--only", "base").stdout


def test_planning_imports_neither_torch_nor_pandas(tmp_path):
    matrix = make_world(tmp_path / "a")
    program = (
        "import sys\nfrom bench.cli.main import app\n"
        f"try: app(['run-matrix', {str(matrix)!r}, '--plan', '--json', '--store', {str(tmp_path / 's')!r}])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_papers_profile_can_be_planned_anywhere(tmp_path):
    done = command(
        "run-matrix", "ablations/cold_start.yaml", "--profile", "paper", "--plan", VOLD_BENCH_STORE=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    for part in ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-R1", "8 x A100", "GPU-hours"):
        assert part in done.stdout


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        else:
            yield (*words, name), command


def test_every_command_has_a_help_page_that_explains_each_option():
    runner, names = CliRunner(), []
    for words, command in commands(get_command(main.app)):
        names.append(" ".join(words))
        assert runner.invoke(main.app, [*words, "--help"]).exit_code == 0
        assert command.help and all(getattr(option, "help", "") for option in command.params), words
    assert len(names) == 21 and {"run-matrix", "settings", "eval", "data audit", "bridge lm-eval", "train rl"} <= set(
        names
    )


def test_every_command_that_the_documentation_names_exists():
    words = [words for words, _ in commands(get_command(main.app))]
    known = {" ".join(each) for each in words} | {f"{each[0]} " for each in words}
    pages = [path for path in (REPOSITORY / "docs").rglob("*.md") if "reports" not in path.parts]
    for page in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *pages):
        text = page.read_text(encoding="utf-8")
        for first, second in re.findall(r"(?:`|\$ )vold-bench ([a-z][a-z-]*)(?: ([a-z-]+))?", text):
            assert first in known or f"{first} {second}" in known, (page, first, second)


def test_data_is_found_by_directory_by_name_and_in_the_small_world(tmp_path):
    (tmp_path / "mathvision").mkdir()
    (tmp_path / "logicvista").mkdir()
    assert set(data_sources([str(tmp_path)], [])) == {"mathvision", "logicvista"}
    assert data_sources([str(tmp_path)], ["logicvista"]) == {"logicvista": str(tmp_path / "logicvista")}
    assert data_sources(["mathvista=/x", "mathvision=smallworld/test?n=5"], []) == {
        "mathvista": "/x",
        "mathvision": "smallworld/test?n=5",
    }
    assert set(data_sources(["smallworld/test?n=5"], [])) == set(BENCHMARKS)
    assert data_sources([str(tmp_path / "mathvision")], ["mathvision"]) == {"mathvision": str(tmp_path / "mathvision")}
    for data, benchmarks in ([str(tmp_path / "mathvision")], []), ([str(tmp_path)], ["mathvista"]), ([], ["mathvison"]):
        with pytest.raises(ConfigurationError):
            data_sources(data, benchmarks)
