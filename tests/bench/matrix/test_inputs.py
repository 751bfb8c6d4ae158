"""Prompts as inputs of stages: identity by content, and missing data planned with a way to get them."""

import json
import shutil
from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.matrix.inputs import Input, InputResolver
from bench.matrix.yaml_file import Where
from bench.store import StageSpec, Store
from tests.vold.data.test_sources import hub_cache
from vold.data.reading import read_prompts

WHERE = Where("profile.yaml", 3, 5)
ROW = {"id": "a", "text": "<image>solve", "answer": "1", "images": ["a.png"]}


@pytest.fixture
def resolver(tmp_path: Path) -> InputResolver:
    return InputResolver(Store(tmp_path / "store"), tmp_path)


def spec(prompts: Input) -> StageSpec:
    return StageSpec("rl-1", "rl", {}, {}, {"prompts": prompts.location}, 1, "")


def test_the_identity_of_a_file_is_its_content_its_images_and_how_it_is_read(
    resolver: InputResolver, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "a.png").write_bytes(b"one")
    one = resolver.training_data("file:p.jsonl", WHERE).identity
    assert resolver.training_data("file:p.jsonl?instruction=boxed", WHERE).identity == f"{one}?instruction=boxed"
    (tmp_path / "a.png").write_bytes(b"another")
    assert resolver.training_data("file:p.jsonl", WHERE).identity not in (one, f"{one}?instruction=boxed")
    (tmp_path / "a.png").write_bytes(b"one")
    shutil.copyfile(tmp_path / "p.jsonl", tmp_path / "q.jsonl")
    assert resolver.training_data("file:q.jsonl", WHERE).identity == one


def test_a_stage_reads_what_was_planned(resolver: InputResolver, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW | {"images": []}) + "\n")
    for source, text in (("file:p.jsonl", "<image>solve"), ("file:p.jsonl?instruction=boxed", "boxed{}")):
        stage = spec(resolver.training_data(source, WHERE))
        assert read_prompts(stage.data("prompts", Store(tmp_path / "store")))[0].text.endswith((text, text + "."))


def test_the_small_world_has_image_prompts_with_captions(resolver: InputResolver, tmp_path: Path) -> None:
    prompts = read_prompts(
        spec(resolver.training_data("smallworld/rl_images?n=8", WHERE)).data("prompts", Store(tmp_path))
    )
    texts = read_prompts(spec(resolver.training_data("smallworld/rl?n=8", WHERE)).data("prompts", Store(tmp_path)))
    assert len(prompts) == 8 and all(len(prompt.images) == 1 for prompt in prompts)
    assert all(prompt.in_words() == prompt.id.partition(":")[2] for prompt in prompts + texts)


def test_a_missing_hub_data_set_is_fetched_by_its_stage_or_planned_as_absent(
    resolver: InputResolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = "hub:owner/name?config=math"
    absent = resolver.training_data(source, WHERE)
    assert "profile.yaml:3:5" in absent.absent and "hf download owner/name --repo-type dataset" in absent.absent
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    planned = resolver.training_data(source, WHERE)
    assert planned == Input("hub:owner/name@main?config=math", "hub:owner/name@main?config=math")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_cache(tmp_path / "hub", "owner/name", {"math/train.jsonl": json.dumps(ROW | {"images": []}) + "\n"})
    assert resolver.training_data(source, WHERE) == planned, "fetching changes no identity"
    assert read_prompts(spec(planned).data("prompts", Store(tmp_path)))[0].id == "a"
    with pytest.raises(ConfigurationError, match=r"profile\.yaml:3:5: .*no data file of split 'test'"):
        resolver.training_data(f"{source}&split=test", WHERE)


@pytest.mark.parametrize("source", ["prompts.jsonl", "hub:name", "file:p.jsonl?fromat=orz", "smallworld/rl"])
def test_an_invalid_source_is_refused_at_its_position(resolver: InputResolver, source: str) -> None:
    with pytest.raises(ConfigurationError, match=r"profile\.yaml:3:5: "):
        resolver.training_data(source, WHERE)
