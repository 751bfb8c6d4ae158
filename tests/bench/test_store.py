import json
import os
import signal
import time

import pytest

from bench.errors import ConfigurationError, InfrastructureError
from bench.store import StageSpec, Status, Store, canonical


def a_stage(name: str = "sft-0123456789ab") -> StageSpec:
    return StageSpec(name, "sft", {"kind": "sft"}, {"steps": 1}, {}, 0, "module:name")


def test_a_stage_is_finished_only_when_it_is_published(tmp_path):
    store, spec = Store(tmp_path), a_stage()
    work = store.prepare(spec)
    Status(state="done").write(work)
    assert not store.done(spec.id)
    (work / "out").mkdir()
    (work / "out" / "model").write_text("weights")
    final = store.publish(spec.id)
    assert store.done(spec.id) and not work.exists()
    assert (final / "out" / "model").read_text() == "weights"
    assert StageSpec.read(final) == spec


def test_publishing_what_another_process_published_keeps_the_first(tmp_path):
    store, spec = Store(tmp_path), a_stage()
    for text in ("first", "second"):
        work = store.prepare(spec)
        (work / "out").mkdir()
        (work / "out" / "model").write_text(text)
        Status(state="done").write(work)
        store.publish(spec.id)
    assert (store.path(spec.id) / "out" / "model").read_text() == "first"
    assert not store.work(spec.id).exists()


def test_preparing_a_stage_again_keeps_the_files_of_its_work_directory(tmp_path):
    store, spec = Store(tmp_path), a_stage()
    (store.prepare(spec) / "checkpoint").write_text("half")
    assert (store.prepare(spec) / "checkpoint").read_text() == "half"


def test_a_status_that_a_crash_cut_short_reads_as_none(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "do')
    assert Status.read(tmp_path) is None


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    store = Store(tmp_path)
    child = os.fork()
    if child == 0:
        with store.lock("run"):
            (tmp_path / "held").touch()
            signal.pause()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(InfrastructureError, match=f"process {child}"), store.lock("run"):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with store.lock("run"):
        pass


def test_canonical_json_has_one_spelling_for_each_value():
    assert canonical({"b": 1.0, "a": [True, None, "ä"]}) == '{"a":[true,null,"ä"],"b":1.0}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": float("nan")})


def test_a_content_hash_depends_on_names_and_bytes_and_is_cached(tmp_path):
    store, folder = Store(tmp_path / "store"), tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "records.json").write_text("[]")
    first = store.content_hash(folder)
    (cache,) = (tmp_path / "store" / ".hashes").iterdir()
    cache.write_text(json.dumps({**json.loads(cache.read_text()), "sha256": "cached"}))
    assert store.content_hash(folder) == "cached"
    (folder / "images" / "1.png").write_bytes(b"image")
    second = store.content_hash(folder)
    (folder / "images" / "1.png").rename(folder / "images" / "2.png")
    assert len({first, second, store.content_hash(folder)}) == 3


def test_nothing_to_hash_is_an_error_that_names_the_path(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        Store(tmp_path).content_hash(tmp_path / "nowhere")
