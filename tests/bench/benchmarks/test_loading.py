import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.benchmarks.base import DatasetError, passed_over_lines
from bench.benchmarks.registry import load_problems, read_benchmark
from bench.errors import ConfigurationError
from bench.records import Problem, Response
from bench.scoring.scorer import is_correct, score

VISION = {"id": "x1", "image": "images/1.png", "options": "['ten', 'twelve']", "answer": "B", "subject": "Maths"}
VISTA = {
    "pid": "7", "question": "How heavy?", "image": "images/1.png", "choices": None, "unit": "g", "precision": 1.0,
    "answer": "1.2", "question_type": "free_form", "answer_type": "float", "metadata": {"task": "measuring"},
}  # fmt: skip
LOGIC = {"imagename": "1.png", "question": "Which?", "answer": "A, C", "skill": ["inductive"], "sourceli,nk": "x"}
MATH = {"id": "5", "question": "How many?\n<image1>", "options": [], "image": "images/1.png", "answer": "4"}


def _write(root: Path, name: str, records: Any) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / "images/1.png")
    text = "".join(json.dumps(r) + "\n" for r in records) if isinstance(records, list) else json.dumps(records)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root


def test_a_vision_page_has_no_question_and_ten_options_in_a_text(tmp_path: Path) -> None:
    (problem,) = load_problems("mmmu_pro", _write(tmp_path, "records.jsonl", [VISION]))
    assert (problem.question, problem.options, problem.answer, problem.category) == (
        "",
        ("ten", "twelve"),
        "B",
        "Maths",
    )
    assert problem.images == (tmp_path / "images/1.png",)


def test_options_may_be_a_list(tmp_path: Path) -> None:
    (problem,) = load_problems(
        "mmmu_pro", _write(tmp_path, "records.jsonl", [{**VISION, "options": ["ten", "twelve"]}])
    )
    assert problem.options == ("ten", "twelve")


def test_mathvista_keeps_unit_precision_and_category(tmp_path: Path) -> None:
    (problem,) = load_problems("mathvista", _write(tmp_path, "testmini.json", {"7": VISTA}))
    assert problem.question == "How heavy? (Unit: g)"
    assert (problem.precision, problem.kind, problem.category) == (1, "float", "measuring")


def test_logicvista_reads_several_letters_and_misspelt_columns(tmp_path: Path) -> None:
    (problem,) = load_problems("logicvista", _write(tmp_path, "dataset.json", {"v1_0": LOGIC}))
    assert (problem.kind, problem.cluster, problem.category) == ("choices", "Which?", "inductive")


def test_a_descriptor_names_a_synthetic_data_set(tmp_path: Path) -> None:
    root = _write(tmp_path, "test.jsonl", [MATH])
    descriptor = {"schema": "vold-bench/dataset@1", "name": "smallworld-chain-free", "benchmark": "mathvision",
                  "split": "report", "synthetic": True, "generator": "g"}  # fmt: skip
    (root / "smallworld.json").write_text(json.dumps(descriptor))
    dataset = read_benchmark("mathvision", root)
    assert (dataset.name, dataset.split, dataset.synthetic) == ("smallworld-chain-free", "report", True)
    (root / "smallworld.json").write_text(json.dumps({**descriptor, "benchmark": "mathvista"}))
    with pytest.raises(DatasetError, match=r"smallworld\.json"):
        read_benchmark("mathvision", root)


@pytest.mark.parametrize("field", ["name", "split"])
@pytest.mark.parametrize("told", ["/tmp/x", "../x", "..", "", "a[/b]", "a\x1b[31m", "a\n", "x" * 101, 7, None, ["a"]])
def test_a_name_that_cannot_be_the_name_of_a_file_is_refused(tmp_path: Path, field: str, told: object) -> None:
    root = _write(tmp_path, "test.jsonl", [MATH])
    descriptor = {"schema": "vold-bench/dataset@1", "name": "smallworld-a_b.c", "benchmark": "mathvision"}
    (root / "smallworld.json").write_text(json.dumps({**descriptor, field: told}))
    with pytest.raises(DatasetError, match=rf"smallworld\.json: invalid {field} "):
        read_benchmark("mathvision", root)


def test_what_is_said_of_a_passed_over_split_is_safe_for_a_terminal() -> None:
    assert passed_over_lines({"test": "no image a\x1b[2J.png"}) == [r"test passed over: no image a\x1b[2J.png"]


def test_without_a_split_the_first_with_all_its_images_is_taken(tmp_path: Path) -> None:
    root = _write(tmp_path, "test.jsonl", [MATH, {**MATH, "id": "6", "image": "images/6.png"}])
    _write(root, "testmini.jsonl", [MATH])
    for require_images in (True, False):
        found = read_benchmark("mathvision", root, require_images=require_images)
        assert (found.split, len(found.problems)) == ("testmini", 1), "a blind run asks what one with images asks"
        assert found.passed_over == {"test": "record '6': no image images/6.png (1 of 2 images are missing)"}
    named = read_benchmark("mathvision", root, "test", require_images=False)
    assert (named.split, named.passed_over) == ("test", {})
    assert read_benchmark("mathvision", root / "testmini.jsonl").passed_over == {}
    (root / "images/1.png").unlink()
    with pytest.raises(DatasetError, match=r"test\.jsonl: record '5': no image .* \(2 of 2 .*--blind"):
        read_benchmark("mathvision", root)
    blind = read_benchmark("mathvision", root, require_images=False)
    assert (blind.split, blind.passed_over) == ("test", {}), "without images anywhere it is the first"


@pytest.mark.parametrize(
    ("benchmark", "name", "records", "complaint"),
    [
        ("mathvision", "test.jsonl", [MATH, MATH], r"test\.jsonl: the id '5' occurs twice"),
        ("mathvision", "test.jsonl", [{**MATH, "image": "images/9.png"}], r"record '5': no image .*9\.png \(1 of 1"),
        ("mathvision", "test.jsonl", [{**MATH, "image": "../../1.png"}], "record '5': the image .* is outside"),
        ("mathvision", "test.jsonl", [{**MATH, "answer": None}], "record '5': 'answer' must be a text, found nothing"),
        ("mathvision", "test.jsonl", [{"question": "no id"}], r"test\.jsonl:1: a record must be .* with an 'id'"),
        ("mathvision", "test.jsonl", [], "has no records"),
        ("mmmu_pro", "records.jsonl", [{**VISION, "options": "[1, "}], "record 'x1': 'options' is not a Python list"),
        ("mmmu_pro", "records.jsonl", [{**VISION, "options": "open('x')"}], "'options' is not a Python list"),
        ("mathvista", "testmini.json", {"7": {**VISTA, "precision": 1.5}}, "record '7': 'precision'"),
        ("mathvista", "testmini.json", {"7": {**VISTA, "answer_type": "poem"}}, "record '7': 'answer_type' 'poem'"),
        ("mathvista", "testmini.json", {"7": []}, "record '7' must be an object"),
        ("logicvista", "dataset.json", [], "not JSON|must hold a dictionary"),
    ],
)  # fmt: skip
def test_a_fault_in_the_records_names_file_id_and_fix(
    tmp_path: Path, benchmark: str, name: str, records: Any, complaint: str
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        load_problems(benchmark, _write(tmp_path, name, records))


def test_a_file_cut_short_and_a_repeated_key_are_refused(tmp_path: Path) -> None:
    root = _write(tmp_path / "a", "test.jsonl", [MATH])
    (root / "test.jsonl").write_text(json.dumps(MATH)[:-9])
    with pytest.raises(DatasetError, match=r"test\.jsonl:1: not JSON"):
        load_problems("mathvision", root)
    root = _write(tmp_path / "b", "dataset.json", {"v1_0": LOGIC})
    (root / "dataset.json").write_text(f'{{"v1_0": {json.dumps(LOGIC)}, "v1_0": {json.dumps(LOGIC)}}}')
    with pytest.raises(DatasetError, match="'v1_0' occurs twice"):
        load_problems("logicvista", root)


def test_unknown_names_offer_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="mmmu_pro, mathvision, mathvista, logicvista"):
        load_problems("mmmu", tmp_path)
    with pytest.raises(DatasetError, match="test, testmini"):
        load_problems("mathvision", tmp_path, "val")
    with pytest.raises(DatasetError, match=r"must contain records_standard10_1730\.jsonl or records\.jsonl"):
        load_problems("mmmu_pro", tmp_path)


REAL = {"mmmu_pro": ("standard10", 1730), "mathvision": ("test", 3040), "mathvista": ("testmini", 1000),
        "logicvista": ("test", 448)}  # fmt: skip
UNSCORABLE = {"mmmu_pro": {"validation_Accounting_29"}, "logicvista": {"v1_382"}}


def _real(data: Path, benchmark: str) -> tuple[Problem, ...]:
    return read_benchmark(benchmark, data / benchmark, REAL[benchmark][0], require_images=False).problems


@pytest.mark.real
@pytest.mark.parametrize("benchmark", REAL)
def test_every_real_record_loads_or_is_unscorable_by_id(benchmark_data: Path, benchmark: str) -> None:
    problems = _real(benchmark_data, benchmark)
    assert len(problems) == REAL[benchmark][1]
    assert {problem.id for problem in problems if problem.unscorable} == UNSCORABLE.get(benchmark, set())


@pytest.mark.real
@pytest.mark.parametrize("benchmark", REAL)
@pytest.mark.parametrize("form", [r"\boxed{%s}", "Answer: %s", "Counting 3 of them.\nThe answer is %s."])
def test_every_gold_fed_back_is_right(benchmark_data: Path, benchmark: str, form: str) -> None:
    wrong = [
        (problem.id, verdict)
        for problem in _real(benchmark_data, benchmark)
        if not problem.unscorable
        and not (
            verdict := score(problem, Response(benchmark, problem.id, 0, form % problem.answer, 5, "stop"))
        ).correct
    ]
    assert not wrong


@pytest.mark.real
@pytest.mark.parametrize("benchmark", REAL)
def test_an_empty_response_is_unparsed_for_every_record(benchmark_data: Path, benchmark: str) -> None:
    states = {
        score(problem, Response(benchmark, problem.id, 0, "", 1, "stop")).state
        for problem in _real(benchmark_data, benchmark)
    }
    assert states == {"unparsed"}


@pytest.mark.real
def test_a_choice_of_mathvision_is_right_by_its_label_alone(benchmark_data: Path) -> None:
    """Independent of the reader: the gold letter is right, every other letter is not."""
    for problem in _real(benchmark_data, "mathvision"):
        if problem.options:
            right = [x for x in "ABCDE" if is_correct("mathvision", rf"\boxed{{{x}}}", problem.answer, problem.options)]
            assert right == [problem.answer.strip()], problem.id


@pytest.mark.real
def test_known_traps_of_the_official_scorers(benchmark_data: Path) -> None:
    vision = {problem.id: problem for problem in _real(benchmark_data, "mathvision")}
    vista = {problem.id: problem for problem in _real(benchmark_data, "mathvista")}
    logic = {problem.id: problem for problem in _real(benchmark_data, "logicvista")}

    def state(problem: Problem, text: str) -> str:
        return score(problem, Response(problem.benchmark, problem.id, 0, text, 5, "stop")).state

    assert state(vision["2827"], r"\boxed{\frac{1}{55}}") == "wrong"
    assert state(logic["v1_1"], r"\boxed{A}") == "wrong"
    assert state(vista["2"], "Answer: 1000.5") == "wrong"
    assert state(vista["1"], "Answer: 1.2") == "right"
    assert state(vista["506"], "Answer: [2014, 2016]") == "right"
    assert state(vista["781"], "Answer: D") == "right"


@pytest.mark.real
def test_marks_of_standard_records_name_images_by_their_number(benchmark_data: Path) -> None:
    problems = {problem.id: problem for problem in _real(benchmark_data, "mmmu_pro")}
    assert [path.name for path in problems["test_Music_251"].images[:2]] == [
        "test_Music_251_1.png",
        "test_Music_251_2.png",
    ]
    assert len(problems["test_Geography_252"].images) == 7
    assert len({problem.cluster for problem in _real(benchmark_data, "logicvista")}) == 316


@pytest.mark.real
def test_the_vision_pages_at_hand_borrow_their_options(benchmark_data: Path) -> None:
    problems = load_problems("mmmu_pro", benchmark_data / "mmmu_pro", "vision")
    assert len(problems) == 11
    assert all(problem.options and not problem.unscorable for problem in problems)


@pytest.mark.parametrize(
    "changes", [{"question": "How \ud800?"}, {"answer": "\udfff"}, {"options": ["a", "\ud83d"]}, {"id": "\ud800"},
                {"options": "['a', '\\ud800']"}]
)  # fmt: skip
def test_half_a_character_is_refused_where_records_are_read(changes: dict[str, Any], tmp_path: Path) -> None:
    root = _write(tmp_path, "test.jsonl", [{**MATH, **changes}])
    name = next(iter(changes))
    with pytest.raises(DatasetError, match=rf"record .*{name!r} contains .*half a character"):
        load_problems("mathvision", root)


def test_missing_images_name_every_way_out(tmp_path: Path) -> None:
    root = _write(tmp_path, "test.jsonl", [{**MATH, "image": "images/absent.png"}])
    with pytest.raises(DatasetError) as error:
        read_benchmark("mathvision", root)
    for way_out in ("vold-bench data import", "--partial", "--split", "--blind"):
        assert way_out in str(error.value)


def test_a_feature_that_a_new_benchmark_lacks_names_its_registry(tmp_path: Path) -> None:
    from bench.bridges.vlmeval import compare
    from bench.prompts import find_template
    from bench.scoring.scorer import score_predictions
    from bench.smallworld.sources import dataset_path

    with pytest.raises(ConfigurationError, match=r"not for new\. .* bench/prompts/official\.py"):
        find_template("official").check("new")
    with pytest.raises(ConfigurationError, match="PROCEDURES in bench/scoring/official"):
        score_predictions("new", [], [], "official")
    with pytest.raises(ConfigurationError, match=r"DATASETS in bench/smallworld/records\.py"):
        dataset_path("new", "smallworld/check?n=1", tmp_path)
    with pytest.raises(ConfigurationError, match=r"SCORERS in bench/bridges/vlmeval_scorer\.py"):
        compare("new", [], [], [], "strict")
