"""The files that a source names, and their rows."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vold.data.sources import DataSource, UndecodableRow, rows, select

SHARDS = [f"{config}/train-0000{part}-of-00002.parquet" for config in ("all", "math") for part in (0, 1)]


@pytest.mark.parametrize(
    ("names", "config", "split", "chosen"),
    [
        (["README.md", ".gitattributes", *SHARDS], "math", "train", SHARDS[2:]),
        (["README.md", "orz_math_57k_collection.json"], "", "train", ["orz_math_57k_collection.json"]),
        (["data/train-00000-of-00001.parquet", "data/test.parquet"], "", "test", ["data/test.parquet"]),
        (["train/0.jsonl", "validation/0.jsonl"], "", "validation", ["validation/0.jsonl"]),
        (["math.jsonl", "code.jsonl"], "code", "train", ["code.jsonl"]),
        (["rows.jsonl", "dataset_infos.json"], "", "train", ["rows.jsonl"]),
    ],
)
def test_the_files_of_a_configuration_and_split_are_chosen_by_name(names, config, split, chosen) -> None:
    assert select(names, config, split, "s") == chosen


@pytest.mark.parametrize(
    ("names", "config", "split", "words"),
    [
        (SHARDS, "", "train", r"choose one with config= \(all, math\)"),
        (["data/train.parquet"], "", "test", r"no data file of split 'test'; its files are data/train.parquet"),
        (["README.md"], "", "train", r"none with \.parquet or \.jsonl or \.json"),
        (SHARDS[:1], "all", "train", "only 1 of 2 parts"),
    ],
)
def test_an_ambiguous_or_incomplete_choice_is_refused(names, config, split, words) -> None:
    with pytest.raises(ValueError, match=words):
        select(names, config, split, "s")


def test_a_source_survives_writing_and_parsing(tmp_path: Path) -> None:
    hub = DataSource.parse("hub:open-r1/Mixture-of-Thoughts@abc?config=math&format=mixture_of_thoughts", tmp_path)
    assert (hub.location, hub.revision, hub.config, hub.split) == (
        "open-r1/Mixture-of-Thoughts",
        "abc",
        "math",
        "train",
    )
    assert DataSource.parse(str(hub), Path("/elsewhere")) == hub
    near = DataSource.parse("file:rows.jsonl?malformed=skip", tmp_path)
    assert near.location == str(tmp_path / "rows.jsonl") and near.options == "?malformed=skip"
    assert DataSource.parse(str(near), Path("/elsewhere")) == near
    assert DataSource.parse("hub:a/b", tmp_path).revision == "main"


@pytest.mark.parametrize("text", ["hub:name", "hub:a/b/c", "file:x?splits=train", "x?malformed=ignore"])
def test_a_malformed_source_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"hub:OWNER/NAME|unknown option 'splits'|refuse or skip"):
        DataSource.parse(text, tmp_path)


def test_every_file_type_yields_numbered_rows(tmp_path: Path) -> None:
    data = [{"a": 1}, {"a": 2}]
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(data))
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "lines.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert list(rows(tmp_path / "rows.parquet")) == list(rows(tmp_path / "rows.json")) == list(enumerate(data, 1))
    assert list(rows(tmp_path / "rows.jsonl")) == [(1, data[0]), (3, data[1])]
    assert list(rows(tmp_path / "lines.json")) == list(enumerate(data, 1))


def test_a_row_that_cannot_be_decoded_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n{"a": \n{"a": "\xff"}\n')
    numbered = list(rows(tmp_path / "rows.jsonl"))
    assert [number for number, _ in numbered] == [1, 2, 3]
    assert isinstance(numbered[1][1], UndecodableRow) and "not JSON" in numbered[1][1].reason
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"rows\.parquet: unreadable after row 0"):
        list(rows(tmp_path / "rows.parquet"))


def hub_cache(root: Path, name: str, files: dict[str, str]) -> str:
    """Create a data set in the cache as the hub's own client does. Returns the commit."""
    commit = "0" * 40
    directory = root / f"datasets--{name.replace('/', '--')}"
    (directory / "refs").mkdir(parents=True)
    (directory / "refs" / "main").write_text(commit)
    for path, text in files.items():
        target = directory / "snapshots" / commit / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return commit


def test_a_hub_data_set_is_read_from_the_cache_and_its_absence_names_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = hub_cache(tmp_path, "owner/name", {"math/train.jsonl": "{}\n", "code/train.jsonl": "{}\n"})
    for revision in ("", f"@{commit}"):
        (file,) = DataSource.parse(f"hub:owner/name{revision}?config=math", tmp_path).files()
        assert os.path.join("math", "train.jsonl") in str(file) and file.is_file()
    with pytest.raises(ValueError, match=r"hf download owner/other --repo-type dataset"):
        DataSource.parse("hub:owner/other", tmp_path).files()


def test_a_hub_that_cannot_be_reached_is_a_connection_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    def unreachable(*arguments: object, **fields: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    with pytest.raises(ConnectionError, match=r"owner/name@main: cannot be fetched .*no route"):
        DataSource.parse("hub:owner/name", tmp_path).files()


def test_files_of_a_local_directory_are_selected_like_those_of_a_hub_data_set(tmp_path: Path) -> None:
    for name in ("math", "code"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("{}\n")
    assert DataSource.parse(f"file:{tmp_path}?config=code", Path()).files() == [tmp_path / "code" / "train.jsonl"]
    with pytest.raises(ValueError, match="nothing at"):
        DataSource.parse("file:nowhere.jsonl", tmp_path).files()
