import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import openpyxl
import pandas as pd
import pytest
import yaml
from jsonschema.validators import validator_for
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import ConfigurationError
from bench.exports import FORMATS, export
from tests.bench.exports.conftest import HOSTILE
from tests.conftest import missing, need

SENT = "a/b"
PER_BENCHMARK = 7 * 2 - 1


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return export(finished, tmp_path_factory.mktemp("exports"), model=SENT)


def _schema(name: str) -> Any:
    path = Path(os.environ.get("VOLD_BENCH_DATA", "")).parent / "schemas" / name
    if not path.is_file():
        missing(f"{name} is not in the directory schemas/ next to VOLD_BENCH_DATA")
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.real
def test_every_eval_ever_meets_its_schemas_and_its_lines_join_the_aggregate(written: dict[str, list[Path]]) -> None:
    aggregate, details = written["every-eval-ever"]
    whole = json.loads(aggregate.read_text(encoding="utf-8"))
    jsonschema.validate(whole, _schema("every_eval_ever.eval.schema.json"))
    rows = _lines(details)
    schema = _schema("every_eval_ever.instance_level_eval.schema.json")
    validator = validator_for(schema)(schema)
    for row in rows:
        validator.validate(row)
    results = {result["evaluation_result_id"]: result for result in whole["evaluation_results"]}
    assert {row["evaluation_result_id"] for row in rows} <= results.keys()
    assert {row["evaluation_id"] for row in rows} == {whole["evaluation_id"]}
    assert whole["detailed_evaluation_results"]["total_rows"] == len(rows) == 4 * PER_BENCHMARK
    assert str(details).endswith(whole["detailed_evaluation_results"]["file_path"])
    scores = pd.DataFrame(
        {"result": row["evaluation_result_id"], "id": row["sample_id"], "score": row["evaluation"]["score"]}
        for row in rows
    )
    for result, score in _mean_over_problems(scores, "result").items():
        assert results[str(result)]["score_details"]["score"] == pytest.approx(score)


def _mean_over_problems(scores: Any, by: str) -> Any:
    """The mean over problems of the mean over samples."""
    return scores.groupby([by, "id"])["score"].mean().groupby(by).mean()


def test_every_eval_ever_labels_synthetic_problems_and_gives_them_no_address(
    written: dict[str, list[Path]],
) -> None:
    whole = json.loads(written["every-eval-ever"][0].read_text(encoding="utf-8"))
    sources = {result["evaluation_name"]: result["source_data"] for result in whole["evaluation_results"]}
    synthetic = sources.pop("smallworld-mathvision_test")
    assert (synthetic["source_type"], synthetic["additional_details"]["synthetic"]) == ("other", "true")
    assert "(synthetic)" in synthetic["dataset_name"]
    assert {source["additional_details"]["synthetic"] for source in sources.values()} == {"false"}
    assert sources["mmmu_pro_standard10"]["hf_repo"] == "MMMU/MMMU_Pro"
    rows = _lines(written["every-eval-ever"][1])
    failed = next(row for row in rows if row["sample_id"] == "failed")
    assert (failed["error"], failed["output"]["raw"], failed["token_usage"]) == ("failed.png: unreadable", [""], None)


@pytest.mark.parametrize("name", ["lm-eval", "vlmeval", "every-eval-ever", "hub"])
def test_every_export_has_the_facts_that_belong_to_a_number(
    written: dict[str, list[Path]], summary: dict[str, Any], name: str
) -> None:
    about = summary["benchmarks"]["mathvision"]
    texts = [_text(path) for path in written[name]]
    told = next(text for text in texts if "smallworld-mathvision_test" in text)
    for fact in ("synthetic", "strict", "boxed@2", "aa11", "bb22", "builtin", "cc33", "seed"):
        assert fact in told, (name, fact)
    first = about["measures"]["avg@2"]
    if name == "hub":
        for fact in (f"{100 * first['low']:.1f} to {100 * first['high']:.1f}", "n 13 of 14", "1 missing", "k 2"):
            assert fact in told
    else:
        for fact in (repr(first["low"]), repr(first["high"]), "absent#1"):
            assert fact in told, (name, fact)


def _text(path: Path) -> str:
    if path.suffix != ".xlsx":
        return re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))  # YAML folds lines
    book = openpyxl.load_workbook(path, read_only=True)
    return path.name + "\n".join(str(row) for sheet in book for row in sheet.iter_rows(values_only=True))


def test_lm_eval_prints_the_results_as_its_own_table(written: dict[str, list[Path]], summary: dict[str, Any]) -> None:
    need("lm_eval", "lm-eval")
    from lm_eval.utils import make_table

    results, *samples = written["lm-eval"]
    whole = json.loads(results.read_text(encoding="utf-8"))
    table = make_table(whole)
    expected = summary["benchmarks"]["mmmu_pro"]["measures"]
    assert re.search(rf"mmmu_pro_standard10 *\|.*\|acc *\|↑ *\| *{expected['avg@2']['value']:.4f}\|±", table)
    assert re.search(rf"\|pass@2 *\|↑ *\| *{expected['pass@2']['value']:.4f}\|±", table)
    for path in samples:
        rows = _lines(path)
        assert len(rows) == PER_BENCHMARK and [row["doc_id"] for row in rows] == list(range(PER_BENCHMARK))
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        scores = pd.DataFrame({"task": task, "id": row["doc"]["id"], "score": row["acc"]} for row in rows)
        assert whole["results"][task]["acc,none"] == pytest.approx(_mean_over_problems(scores, "task")[task])


def test_text_in_a_workbook_is_never_a_formula_and_changed_texts_are_counted(
    written: dict[str, list[Path]],
) -> None:
    books = {path.name.removeprefix("a__b_"): path for path in written["vlmeval"]}
    assert books.keys() == {
        "LogicVista.xlsx", "smallworld-mathvision_test.xlsx", "MathVista_MINI.xlsx", "MMMU_Pro_10c.xlsx",
    }  # fmt: skip
    for path in books.values():
        book = openpyxl.load_workbook(path)
        assert book.sheetnames == ["sample 0", "sample 1", "about"]
        assert not [cell for sheet in book for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
        told = {row[0]: row[1] for row in book["about"].iter_rows(values_only=True)}
        # Two samples of: one text with three refused characters, one of 60,009 characters.
        assert (told["characters_replaced"], told["cells_cut"]) == (2 * 3, 2)
        assert json.loads(str(told["missing"])) == ["absent#1"]
    frame = pd.read_excel(books["MMMU_Pro_10c.xlsx"], dtype=str)
    rows = frame.set_index("index")
    assert list(frame.columns[:6]) == ["index", "question", "A", "B", "answer", "category"]
    assert rows.loc["formula", "prediction"] == HOSTILE["formula"]
    assert rows.loc["formula", "A"] == "=1+1"
    assert rows.loc["control", "prediction"] == "nul \ufffd, bell \ufffd, \ufffd and </script> \\boxed{B}"
    assert rows.loc["unread", "prediction"] == "-2+3"
    assert pd.isna(rows.loc["failed", "prediction"])
    mathvista = pd.read_excel(books["MathVista_MINI.xlsx"], dtype=str).set_index("index")
    assert tuple(mathvista.loc["think", ["answer_option", "question_type", "answer_type"]]) == (
        "A", "multi_choice", "text",
    )  # fmt: skip


def test_the_hub_reads_its_entries_and_synthetic_scores_have_no_benchmarks_name(
    written: dict[str, list[Path]], summary: dict[str, Any]
) -> None:
    from huggingface_hub import EvalResultEntry, parse_eval_result_entries

    entries: dict[str, EvalResultEntry] = {}
    for path in written["hub"]:
        assert path.parent.name == ".eval_results"
        (entries[path.stem],) = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert {name: entry.dataset_id for name, entry in entries.items()} == {
        "mmmu_pro_standard10": "MMMU/MMMU_Pro",
        "smallworld-mathvision_test": "vold-bench/smallworld",
        "mathvista_testmini": "AI4Math/MathVista",
    }
    value = summary["benchmarks"]["mathvista"]["measures"]["avg@2"]["value"]
    assert entries["mathvista_testmini"].value == pytest.approx(100 * value, abs=1e-4)
    assert (entries["smallworld-mathvision_test"].notes or "").startswith("synthetic")


def test_exporting_twice_writes_the_same_files(finished: Path, tmp_path: Path) -> None:
    first = export(finished, tmp_path / "one", ["lm-eval", "every-eval-ever", "hub"])
    again = export(finished, tmp_path / "two", ["lm-eval", "every-eval-ever", "hub"])
    assert [p.relative_to(tmp_path / "one") for files in first.values() for p in files] == [
        p.relative_to(tmp_path / "two") for files in again.values() for p in files
    ]
    for files, others in zip(first.values(), again.values(), strict=True):
        assert [path.read_bytes() for path in files] == [path.read_bytes() for path in others]


def test_a_summary_with_paths_in_its_names_is_exported_below_the_directory(finished: Path, tmp_path: Path) -> None:
    result = tmp_path / "result"
    shutil.copytree(finished, result)
    told = json.loads((result / "summary.json").read_text())
    for part in told["benchmarks"].values():
        part["dataset"] = f"{tmp_path}/elsewhere/x" if part["synthetic"] else "../../../elsewhere/x"
        part["synthetic"] = True
    (result / "summary.json").write_text(json.dumps(told))
    (tmp_path / "elsewhere").mkdir()
    files = [file for paths in export(result, tmp_path / "to").values() for file in paths]
    assert files and all(file.resolve().is_relative_to(tmp_path / "to") for file in files)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_directory_without_a_result_and_an_unknown_format_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no finished evaluation, summary\.json"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"--format hubs: unknown; did you mean 'hub'"):
        export(finished, tmp_path / "out", ["hubs"])
    assert list(FORMATS) == ["lm-eval", "vlmeval", "every-eval-ever", "hub"]


@pytest.mark.parametrize("formats", [("--format", "hub", "--format", "lm-eval"), ("--format", "hub,lm-eval")])
def test_the_command_writes_the_named_formats_and_lists_the_files(
    formats: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    words = ["export", str(finished), "--out", str(tmp_path), *formats, "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    listed = json.loads(done.output)
    assert list(listed) == ["hub", "lm-eval"]
    assert {Path(file) for files in listed.values() for file in files} == {
        path for path in tmp_path.rglob("*") if path.is_file()
    }


def test_a_models_name_becomes_a_valid_file_name(finished: Path, tmp_path: Path) -> None:
    names = ("../../x\x1b[2J/..", "y" * 300, "..", "owner\\模型")
    folders = set()
    for name in names:
        written = export(finished, tmp_path / "to", ["lm-eval", "vlmeval"], model=name)
        places = [path.relative_to(tmp_path / "to").parts for paths in written.values() for path in paths]
        assert {len(parts) for parts in places} == {3}, "FORMAT/MODEL/FILE"
        (folder,) = {parts[1] for parts in places}
        assert folder.isprintable() and not folder.startswith(".")
        folders.add(folder)
    assert len(folders) == len(names)
