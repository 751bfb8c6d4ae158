"""The proof of a synchronisation: what it compares, and how it names a difference."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.conftest import need
from vold.config import LoraConfig
from vold.models import LanguageModel, Student, load_student
from vold.models.lora import add_adapters
from vold.rollout.proof import Readback, SyncError, Weights, fingerprint, prove, weights_of

FLOAT = torch.float32


def faithful(weights: Weights) -> Readback:
    """The report of an engine that holds and computes with exactly the given weights."""
    return Readback(dict(weights.fingerprints(FLOAT)), (), tuple(probe.logprobs for probe in weights.probes))


@pytest.fixture(scope="module")
def weights(student: Student) -> Weights:
    return weights_of(student)


def test_a_faithful_engine_is_proven(weights: Weights) -> None:
    proof = prove(weights, faithful(weights), FLOAT)
    assert proof.tensors == len(weights.tensors) > 50 and proof.probe_error == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_fingerprint_changes_with_one_bit_and_with_one_swap(dtype: torch.dtype) -> None:
    values = torch.randn(64, 3, dtype=torch.float64).to(dtype)
    original = fingerprint(values)
    assert fingerprint(values.clone()) == original == fingerprint(values.t().contiguous().t())
    for place in range(values.numel()):
        changed = values.clone()
        flat = changed.view(-1)
        flat[place] = torch.nextafter(flat[place], torch.tensor(torch.inf, dtype=dtype))
        assert fingerprint(changed) != original
    swapped = values.clone()
    swapped[[5, 6]] = swapped[[6, 5]]
    assert fingerprint(swapped) != original
    assert fingerprint(torch.zeros(3)) != fingerprint(torch.tensor([0.0, -0.0, 0.0]))


def test_a_fingerprint_is_the_sum_in_its_docstring() -> None:
    values = torch.tensor([1.5, -2.0, 0.25])
    bits = values.view(torch.int32).tolist()
    expected = sum(b * ((i * 0x5851F42D4C957F2D) | 1) for i, b in enumerate(bits)) % 2**64
    assert fingerprint(values) == expected


def test_probes_are_scored_by_the_policy_that_is_sampled(student: Student, weights: Weights) -> None:
    text, image = weights.probes
    assert text.pixels is None and image.pixels is not None
    with torch.no_grad():
        logits = student.model(input_ids=torch.tensor([text.prompt_ids])).logits[0, :-1].double()
    allowed = [index for index in range(logits.shape[1]) if index not in student.banned_ids]
    norm = logits[:, allowed].exp().sum(1).log()
    expected = [float(logits[i, token] - norm[i]) for i, token in enumerate(text.prompt_ids[1:])]
    assert text.logprobs == pytest.approx(expected, abs=1e-5)
    assert len(image.logprobs) == len(image.prompt_ids) - 1 - image.prompt_ids.count(student.image_token_id)


def test_a_text_only_model_has_only_a_text_probe(teacher: LanguageModel) -> None:
    assert [probe.pixels for probe in weights_of(teacher).probes] == [None]


def test_a_tied_head_is_compared_under_both_names(weights: Weights) -> None:
    assert weights.tensors["lm_head.weight"].data_ptr() == (
        weights.tensors["model.language_model.embed_tokens.weight"].data_ptr()
    )


def test_adapters_are_handed_over_merged(student_path: Path, weights: Weights) -> None:
    need("peft", "lora")
    model = load_student(student_path)
    add_adapters(model, LoraConfig(rank=2, targets=("q_proj",)), seed=1)
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    adapted = weights_of(model)
    assert adapted.tensors.keys() == weights.tensors.keys()
    differ = {name for name in adapted.tensors if not torch.equal(adapted.tensors[name], weights.tensors[name])}
    assert differ == {f"model.language_model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    assert adapted.probes[0].logprobs != pytest.approx(weights.probes[0].logprobs, abs=1e-3)


def test_an_update_too_small_for_the_probes_is_detected(student_path: Path) -> None:
    model = load_student(student_path)
    stale = faithful(weights_of(model))
    with torch.no_grad():
        weight = model.model.get_parameter("model.language_model.layers.1.mlp.up_proj.weight")
        weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(torch.inf))
    present = weights_of(model)
    assert stale.probes[0] == pytest.approx(present.probes[0].logprobs, abs=1e-4)
    with pytest.raises(SyncError, match=r"layers\.1\.mlp\.up_proj\.weight is not the trainer's \(1 of"):
        prove(present, stale, FLOAT)


def test_each_other_fault_is_named(weights: Weights) -> None:
    good = faithful(weights)
    values = list(good.probes[1])
    values[7] -= 2e-4
    missing = {**good.fingerprints, "lm_head.weight": None}
    faults = {
        "has no tensor lm_head.weight": dataclasses.replace(good, fingerprints=missing),
        "lm_head of the rollout engine does not compute": dataclasses.replace(good, deaf=("lm_head",)),
        "cached keys": dataclasses.replace(good, cached=True),
        "token 8 of the image probe": dataclasses.replace(good, probes=(good.probes[0], values)),
    }
    for message, reading in faults.items():
        with pytest.raises(SyncError, match=message):
            prove(weights, reading, FLOAT)
    assert prove(weights, faults["token 8 of the image probe"], FLOAT, tolerance=1e-3).probe_error < 2.1e-4
    values[7] = float("nan")
    with pytest.raises(SyncError, match="token 8"):
        prove(weights, dataclasses.replace(good, probes=(good.probes[0], values)), FLOAT)


def test_bfloat16_engines_are_compared_in_bfloat16(weights: Weights) -> None:
    rounded = {name: fingerprint(tensor.to(torch.bfloat16)) for name, tensor in weights.tensors.items()}
    reading = dataclasses.replace(faithful(weights), fingerprints=rounded)
    assert prove(weights, reading, torch.bfloat16).tensors == len(rounded)
    off = tuple(value * 1.2 - 0.01 for value in reading.probes[0])
    assert (
        prove(weights, dataclasses.replace(reading, probes=(off, reading.probes[1])), torch.bfloat16).probe_error > 0.5
    )
    far = tuple(value * 1.3 for value in reading.probes[0])
    with pytest.raises(SyncError, match="of the text probe"):
        prove(weights, dataclasses.replace(reading, probes=(far, reading.probes[1])), torch.bfloat16)
    with pytest.raises(SyncError):
        prove(weights, reading, FLOAT)
