"""Public formats become prompts and traces. Rows that do not fit are named and counted, never silently dropped."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vold.data.prompts import Prompt, Trace, write_jsonl
from vold.data.reading import claim_data, content_hash, read_prompts, read_traces
from vold.data.sources import DataSource

THOUGHTS = {
    "messages": [
        {"role": "user", "content": "What is 2+3?"},
        {"role": "assistant", "content": "<think>\nFirst \\boxed{4}? No.\n</think>\n\nIt is \\boxed{5}."},
    ],
    "num_tokens": 17,
    "source": "open-r1/OpenR1-Math-220k",
}
CODE = {
    "messages": [{"role": "user", "content": "Sort."}, {"role": "assistant", "content": "```cpp\n```"}],
    "num_tokens": 3,
    "source": "open-r1/codeforces-cots",
}
ORZ = [
    {"from": "human", "value": "Find $x$ with $2x=3$."},
    {"from": "assistant", "ground_truth": {"value": "\\frac{3}{2}", "pass_at_n": None}},
]


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def source(path: Path, options: str = "") -> DataSource:
    return DataSource.parse(f"file:{path}{options}", Path())


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_of_this_project_survive_writing_and_reading(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / "a.png"
    image.write_bytes(png(1))
    prompts = [
        Prompt("a", "7+5", "2"),
        Prompt("b", "<image>solve", "B", ("3", "4"), (image,), "[7+5]"),
        Prompt("ü", "line\nbreak", ""),
    ]
    traces = [Trace("a", "7+5", "\\boxed{2}", True), Trace("b", "<image>solve", "?", None, (image,))]
    assert write_jsonl(tmp_path / "p.jsonl", prompts) == 3
    write_jsonl(tmp_path / "t.jsonl", traces)
    assert read_prompts(tmp_path / "p.jsonl") == prompts
    assert read_traces(tmp_path / "t.jsonl") == traces
    assert '"images/a.png"' in (tmp_path / "p.jsonl").read_text()
    assert "images" not in (tmp_path / "p.jsonl").read_text().splitlines()[0]


def test_mixture_of_thoughts_gives_traces_and_prompts_with_boxed_reference_answers(tmp_path: Path) -> None:
    (tmp_path / "math").mkdir()
    pq.write_table(pa.Table.from_pylist([THOUGHTS, CODE]), tmp_path / "math" / "train-00000-of-00001.parquet")
    data = source(tmp_path, "?config=math&format=mixture_of_thoughts")
    assert read_prompts(data) == [
        Prompt("train-00000-of-00001:1", "What is 2+3?", "5"),
        Prompt("train-00000-of-00001:2", "Sort.", ""),
    ]
    first, second = read_traces(data)
    assert (first.text, first.completion, first.correct) == ("What is 2+3?", THOUGHTS["messages"][1]["content"], None)
    assert second.completion == "```cpp\n```"


def test_orz_rows_are_read_as_lists_and_as_tables(tmp_path: Path) -> None:
    (tmp_path / "orz.json").write_text(json.dumps([ORZ, ORZ]))
    pq.write_table(pa.Table.from_pylist([{"0": ORZ[0], "1": ORZ[1]}]), tmp_path / "orz.parquet")
    assert [(p.text, p.answer) for p in read_prompts(tmp_path / "orz.json")] == [
        ("Find $x$ with $2x=3$.", "\\frac{3}{2}")
    ] * 2
    assert read_prompts(tmp_path / "orz.json")[1].id == "orz:2"
    assert read_prompts(tmp_path / "orz.parquet")[0].answer == "\\frac{3}{2}"


def test_images_inside_a_table_are_put_into_the_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    rows = [
        {"images": [{"bytes": png(shade), "path": None}], "problem": "<image>Find x.", "answer": "3"}
        for shade in (1, 2, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    prompts = read_prompts(tmp_path / "train.parquet")
    assert [p.images[0].read_bytes() for p in prompts] == [png(1), png(2), png(1)]
    assert prompts[0].images == prompts[2].images
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert len(times) == 2
    read_prompts(tmp_path / "train.parquet")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_an_instruction_follows_every_prompt(tmp_path: Path) -> None:
    (tmp_path / "orz.json").write_text(json.dumps([ORZ]))
    text = read_prompts(source(tmp_path / "orz.json", "?instruction=boxed"))[0].text
    assert text.startswith("Find $x$") and text.endswith("\\boxed{}.")
    with pytest.raises(ValueError, match="unknown instruction 'boxd'; known: boxed"):
        read_prompts(source(tmp_path / "orz.json", "?instruction=boxd"))


MALFORMED: list[tuple[Any, str]] = [
    ("{", "not JSON"),
    ({"id": "a", "text": "b"}, "'answer' must be a text, found nothing"),
    ({"id": "a", "text": ["b"], "answer": "1"}, "'text' must be a text, found list"),
    ({"id": "a", "text": "b", "answer": True}, "'answer' must be a text, found bool"),
    ({"id": "a", "text": "<|image_pad|>", "answer": "1"}, "stands for images"),
    ({"id": "a", "text": "b", "answer": "1", "images": "x.png"}, "'images' must be a list"),
    ({"id": "a", "text": "b", "answer": "1", "images": ["../x.png"]}, "is outside of"),
    ({"id": "a", "text": "b", "answer": "1", "images": ["x.png"]}, "x.png does not exist"),
    ({"id": "a", "text": "<image><image>", "answer": "1", "images": ["y.png"]}, "the text has 2 marks <image> for 1"),
    ({"question": "b"}, "not a row of format vold"),
    ("3", "not a row of format vold"),
]


@pytest.mark.parametrize(("row", "words"), MALFORMED)
def test_a_malformed_row_is_named_and_left_out_only_with_malformed_skip(row: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "y.png").write_bytes(png(1))
    good = {"id": "good", "text": "1+1", "answer": 2}
    path = jsonl(tmp_path / "p.jsonl", good, "", row, good)
    with pytest.raises(ValueError) as caught:
        read_prompts(path)
    assert f"{path}:3: " in str(caught.value) and words in str(caught.value)
    assert "1 of 3 rows are malformed" in str(caught.value) and "malformed=skip" in str(caught.value)
    loaded = read_prompts(source(path, "?malformed=skip"))
    assert [prompt.answer for prompt in loaded] == ["2", "2"]
    assert loaded.record()["left_out"] == 1 and words in loaded.malformed[0]


@pytest.mark.parametrize(
    ("row", "name", "words"),
    [
        ({"messages": THOUGHTS["messages"][:1]}, "mixture_of_thoughts", "found \\['user'\\]"),
        ({"messages": None}, "mixture_of_thoughts", "one turn of the user"),
        (ORZ[:1], "orz", "found \\['human'\\]"),
        ([ORZ[0], {"from": "assistant", "value": "3"}], "orz", "'value' must be a text, found nothing"),
        ({"problem": "b", "answer": None}, "problem_answer", "'answer' must be a text"),
        (THOUGHTS, "orz", "not a row of format orz"),
        (ORZ, "vold", "not a row of format vold"),
        (THOUGHTS, "orzz", "unknown data format 'orzz'; known formats: vold, mixture_of_thoughts"),
        ({"question": "b"}, "", "fits no known format"),
    ],
)
def test_rows_of_the_public_schemas_are_checked_too(row: Any, name: str, words: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", row)
    with pytest.raises(ValueError, match=words):
        read_prompts(source(path, f"?format={name}" if name else ""))


def test_a_trace_with_an_image_placeholder_in_its_completion_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"id": "a", "text": "b", "completion": "see <|image_pad|>"})
    with pytest.raises(ValueError, match=r"t\.jsonl:1: the completion contains <\|image_pad\|>"):
        read_traces(path)


def test_a_prompt_is_not_a_trace_and_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"p\.jsonl:1: not a trace"):
        read_traces(jsonl(tmp_path / "p.jsonl", {"id": "a", "text": "b", "answer": "1"}))
    with pytest.raises(ValueError, match=r"e\.jsonl: contains no prompts"):
        read_prompts(jsonl(tmp_path / "e.jsonl"))


def test_the_hash_depends_only_on_the_content_and_not_on_path_or_format(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(1))
    row = {"id": "a", "text": "b", "answer": "1", "images": ["a.png"]}
    one = jsonl(tmp_path / "here" / "p.jsonl", row)
    (tmp_path / "there" / "p.json").write_text(json.dumps([row], indent=2))
    two = tmp_path / "there" / "p.json"
    assert content_hash(read_prompts(one)) == content_hash(read_prompts(two))
    (tmp_path / "there" / "a.png").write_bytes(png(2))
    assert content_hash(read_prompts(one)) != content_hash(read_prompts(two))
    jsonl(one, row | {"answer": "2"})
    (tmp_path / "there" / "a.png").write_bytes(png(1))
    assert content_hash(read_prompts(one)) != content_hash(read_prompts(two))


def test_a_run_refuses_data_that_it_did_not_begin_with(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"id": "a", "text": "b", "answer": "1"})
    claim_data(tmp_path / "run", read_prompts(path))
    claim_data(tmp_path / "run", read_prompts(path))
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert record == {"source": f"file:{path}", "rows": 1, "left_out": 0, "sha256": content_hash(read_prompts(path))}
    jsonl(path, {"id": "a", "text": "b", "answer": "2"})
    with pytest.raises(ValueError, match="began with other data"):
        claim_data(tmp_path / "run", read_prompts(path))


def test_a_caption_takes_the_position_of_its_image() -> None:
    images = (Path("a.png"),)
    assert Prompt("a", "<image>solve", "1", (), images, "[7+5]").in_words() == "[7+5]solve"
    assert Prompt("a", "solve", "1", (), images, "[7+5]").in_words() == "[7+5]\nsolve"
    assert Prompt("a", "an <image> mark", "1").in_words() == "an <image> mark"


def test_images_take_the_positions_of_their_marks_or_come_first() -> None:
    def kinds(text: str, count: int) -> list[str]:
        (message,) = Prompt("a", text, "1", (), (Path("a.png"),) * count).messages()
        assert isinstance(message, dict) and isinstance(message["content"], list)
        return [part.get("text", "image") for part in message["content"]]

    assert kinds("compare <image> with <image>", 2) == ["compare ", "image", " with ", "image"]
    assert kinds("solve", 2) == ["image", "image", "solve"]
    assert Prompt("a", "no <image> here", "1").messages() == "no <image> here"
