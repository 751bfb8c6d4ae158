import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ConfigurationError
from bench.matrix import stages
from bench.matrix.plan import Plan, make_plan, parse_setting
from bench.matrix.run import report_name
from bench.store import digest


def stage_of(plan: Plan, arm: str, kind: str, seed: int = 1, student: str = "student_a") -> str:
    key = (arm, student, seed)
    return next(cell.stages[kind] for cell in plan.cells if (cell.arm, cell.student, cell.seed) == key)


def test_what_arms_share_is_planned_once(world):
    plan = make_plan(*world)
    kinds = Counter(stage.kind for stage in plan.stages.values())
    # Traces: one per writer. SFT: writer x seed. RL: 3 starts x 2 objectives x 2 seeds. Evaluation: one per model.
    assert kinds == {"traces": 2, "sft": 4, "rl": 12, "eval": 4 + 12 + 1}
    starts = {stage_of(plan, f"teacher+{objective}", "sft") for objective in ("sft_only", "grpo", "grpo_opd")}
    assert len(starts) == 1
    assert stage_of(plan, "teacher+grpo", "traces", 1) == stage_of(plan, "teacher+grpo", "traces", 2)
    assert stage_of(plan, "teacher+grpo", "sft", 1) != stage_of(plan, "teacher+grpo", "sft", 2)


def test_stages_follow_what_they_need(world):
    plan = make_plan(*world)
    seen: set[str] = set()
    for name, stage in plan.stages.items():
        assert set(stage.needs) <= seen, name
        seen.add(name)


@pytest.fixture
def two_students(world):
    rewrite(world[0].parent / "profiles" / "small.yaml", "student: ./student_a", "student: [./student_a, ./student_b]")
    return world


def test_every_seed_trains_every_student(two_students):
    plan = make_plan(*two_students)
    runs = [(cell.student, cell.seed) for cell in plan.cells if cell.arm == "teacher+grpo"]
    assert runs == [("student_a", 1), ("student_a", 2), ("student_b", 1), ("student_b", 2)]
    for student, seed in runs:
        sft = plan.stages[stage_of(plan, "teacher+grpo", "sft", seed, student)].spec
        assert Path(sft.locations["student"]).name == student
    base = {cell.student: cell.stages["eval"] for cell in plan.cells if cell.arm == "base"}
    assert len(set(base.values())) == 2, "the untrained base is evaluated once per student"


def test_runs_of_different_students_are_independent_and_those_of_the_first_keep_the_seed(two_students):
    plan = make_plan(*two_students)

    def seed_of(student, seed, kind="sft"):
        return plan.stages[stage_of(plan, "teacher+grpo", kind, seed, student)].spec.seed

    assert [seed_of("student_a", seed) for seed in (1, 2)] == [1, 2]
    derived = [seed_of("student_b", seed) for seed in (1, 2)]
    assert len({*derived, 1, 2}) == 4 and min(derived) > 2**32
    assert derived == [seed_of("student_b", seed, "rl") for seed in (1, 2)]


def test_a_single_student_is_planned_as_the_first_of_several(world, request):
    alone = make_plan(*world)
    assert alone.students == ("student_a",)
    both = make_plan(*request.getfixturevalue("two_students"))
    assert both.students == ("student_a", "student_b")
    assert [c.stages for c in alone.cells] == [c.stages for c in both.cells if c.student == "student_a"]


def test_a_student_can_write_its_own_traces(two_students):
    plan = make_plan(*two_students, only=["teacher+grpo"], seeds=[1], overrides=[parse_setting("sft.traces=student")])
    writers = [plan.stages[cell.stages["traces"]].spec.locations["writer"] for cell in plan.cells]
    assert [Path(writer).name for writer in writers] == ["student_a", "student_b"]


def test_a_plan_is_the_same_every_time_and_does_not_depend_on_the_store(world, tmp_path):
    matrix, store = world
    other = type(store)(tmp_path / "elsewhere")
    assert list(make_plan(matrix, store).stages) == list(make_plan(matrix, other).stages)


def test_the_id_is_the_hash_of_the_identity(world):
    for name, stage in make_plan(*world).stages.items():
        assert name == f"{stage.kind}-{digest(stage.spec.identity)[:12]}"


def changed(world, change) -> set[str]:
    """The kinds of stage of one arm whose identity a change alters."""
    before = make_plan(*world, only=["teacher+grpo_opd"], seeds=[1]).cells[0].stages
    after = change()
    after = after if after is not None else make_plan(*world, only=["teacher+grpo_opd"], seeds=[1]).cells[0].stages
    return {kind for kind in before if before[kind] != after[kind]}


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_setting_changes_its_stage_and_those_after_it(world):
    def with_setting(text):
        options = {"only": ["teacher+grpo_opd"], "seeds": [1], "overrides": [parse_setting(text)]}
        return lambda: make_plan(*world, **options).cells[0].stages

    assert changed(world, with_setting("rl.group_size=7")) == {"rl", "eval"}
    assert changed(world, with_setting("sft.steps=21")) == {"sft", "rl", "eval"}
    assert changed(world, with_setting("traces.n=1")) == {"traces", "sft", "rl", "eval"}
    assert changed(world, with_setting("eval.blind=true")) == {"eval"}
    assert changed(world, with_setting("rl.distill.weight=0.30")) == set(), "the same value in another spelling"


def test_inputs_count_by_content_and_not_by_name(world):
    profiles = world[0].parent / "profiles"
    (profiles / "teacher").rename(profiles / "renamed")
    rewrite(profiles / "small.yaml", "teacher: ./teacher", "teacher: ./renamed")
    (profiles / "teacher").mkdir()
    (profiles / "teacher" / "config.json").write_text(json.dumps({"name": "teacher"}))
    plan = make_plan(*world, only=["teacher+grpo_opd"], seeds=[1])
    rewrite(profiles / "small.yaml", "teacher: ./renamed", "teacher: ./teacher")
    assert list(make_plan(*world, only=["teacher+grpo_opd"], seeds=[1]).stages) == list(plan.stages)
    assert changed(world, lambda: (profiles / "teacher" / "config.json").write_text("{}") and None) == {
        "traces", "sft", "rl", "eval",
    }  # fmt: skip
    assert changed(world, lambda: (profiles / "problems" / "test.jsonl").write_text("[]\n") and None) == {"eval"}
    assert changed(world, lambda: (profiles / "student_a" / "README.md").write_text("a card") and None) == set()


def test_how_a_stage_runs_is_not_part_of_its_identity(world):
    profile = world[0].parent / "profiles" / "small.yaml"
    faster = "execution: {threads: 4, micro_batch_tokens: 99, device: cuda}\nstages:"
    assert changed(world, lambda: rewrite(profile, "stages:", faster)) == set()


def test_a_new_version_of_a_stages_code_changes_its_identity(world, monkeypatch):
    from dataclasses import replace

    newer = replace(stages.KINDS["rl"], version=stages.KINDS["rl"].version + 1)
    assert changed(world, lambda: monkeypatch.setitem(stages.KINDS, "rl", newer)) == {"rl", "eval"}


def test_greedy_evaluation_has_no_seed_and_sampling_has_one(world):
    greedy = make_plan(*world, only=["base"]).stages
    assert {stage.spec.seed for stage in greedy.values()} == {0}
    sampled = make_plan(*world, only=["base"], overrides=[parse_setting("eval.temperature=1.0")]).stages
    assert {stage.spec.seed for stage in sampled.values()} == {1, 2}


def test_a_second_evaluation_samples_the_primary_benchmarks_with_the_seed_of_its_run(world):
    before = make_plan(*world)
    assert not any("sampled" in cell.stages for cell in before.cells), "off unless the matrix file asks for it"
    rewrite(
        world[0].parent / "profiles" / "small.yaml", "eval: {mathvision", "eval: {transcription: ./problems, mathvision"
    )
    greedy = make_plan(*world)
    rewrite(world[0], "analysis:\n", "analysis:\n  sampled: {samples: 4, temperature: 0.7}\n")
    plan = make_plan(*world)
    for cell, alone in zip(plan.cells, greedy.cells, strict=True):
        assert {kind: name for kind, name in cell.stages.items() if kind != "sampled"} == alone.stages
        first, second = (plan.stages[cell.stages[name]].spec for name in ("eval", "sampled"))
        assert (second.config["samples"], second.config["temperature"], second.seed) == (4, 0.7, cell.seed)
        assert (first.config["samples"], first.config["temperature"], first.seed) == (1, 0.0, 0)
        assert second.identity["inputs"]["model"] == first.identity["inputs"]["model"]
        assert set(first.locations) == {"model", "data.mathvision", "data.transcription"}
        assert set(second.locations) == {"model", "data.mathvision"}
    rewrite(world[0], "analysis:\n", "analysis:\n  primary: {over: [mmmu_pro]}\n")
    with pytest.raises(ConfigurationError, match=r"fake\.yaml: analysis\.sampled: .* is asked none of mmmu_pro"):
        make_plan(*world)


def test_grpo_needs_its_teacher_only_to_measure_the_kl(world):
    plan = make_plan(*world, only=["teacher+grpo"], seeds=[1])
    assert "teacher" in plan.stages[stage_of(plan, "teacher+grpo", "rl")].spec.locations
    silent = [parse_setting("rl.distill.monitor_every=0")]
    plan = make_plan(*world, only=["teacher+grpo"], seeds=[1], overrides=silent)
    assert "teacher" not in plan.stages[stage_of(plan, "teacher+grpo", "rl")].spec.locations


def test_only_the_placebo_of_the_teacher_term_needs_no_teacher(world):
    for target, needed in (("teacher", True), ("placebo", False)):
        settings = [parse_setting("rl.distill.monitor_every=0"), parse_setting(f"rl.distill.target={target}")]
        plan = make_plan(*world, only=["teacher+grpo_opd"], seeds=[1], overrides=settings)
        assert ("teacher" in plan.stages[stage_of(plan, "teacher+grpo_opd", "rl")].spec.locations) == needed


def test_a_percentage_scales_the_number_of_the_profile(world):
    rewrite(world[0], "teacher: {}", "teacher: {sft.steps: 25%}")
    plan = make_plan(*world, only=["teacher+grpo", "mismatch+grpo"], seeds=[1])
    assert plan.stages[stage_of(plan, "teacher+grpo", "sft")].spec.config["steps"] == 5
    assert plan.stages[stage_of(plan, "mismatch+grpo", "sft")].spec.config["steps"] == 20


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{sft.traces: other_model}", "{sft.traces: other_modle}", ["fake.yaml:9:16", "did you mean 'other_model'?"]),
        ("{rl.distill.weight: 0}", "{rl.distill.weight: -1}", ["fake.yaml:12:12", "greater than or equal to 0"]),
        ("{rl.distill.weight: 0}", "{rl.reward_weight: 0, rl.distill.weight: 0}", ["nothing to optimise"]),
        ("{rl.distill.weight: 0}", "{rl.distill.mask: 50%}", ["fake.yaml:12:12", "is not a number"]),
    ],
)
def test_a_value_that_a_stage_refuses_is_reported_at_its_position(world, old, new, words):
    rewrite(world[0], old, new)
    with pytest.raises(ConfigurationError) as caught:
        make_plan(*world)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["rl.stesp=3", "rl.steps", "traces.writer=other_model", "execution.threads=2"])
def test_a_wrong_setting_of_the_command_line_is_refused(text):
    with pytest.raises(ConfigurationError, match="--set"):
        parse_setting(text)


def test_a_setting_of_the_command_line_may_not_undo_an_axis(world):
    with pytest.raises(ConfigurationError, match=r"sets 'rl\.distill\.weight' itself"):
        make_plan(*world, overrides=[parse_setting("rl.distill.weight=1")])


def test_a_part_of_the_experiment_is_called_partial_and_lists_what_differs(world):
    matrix, store = world
    assert make_plan(matrix, store).changes == make_plan(matrix, store, seeds=[2, 1]).changes == {}
    assert report_name(make_plan(matrix, store)) == "fake"
    part = make_plan(matrix, store, only=["base"], seeds=[2], overrides=[parse_setting("eval.limit=5")])
    assert report_name(part) == "fake-partial"
    assert part.changes["settings"] == ["eval.limit=5"]
    assert part.changes["seeds_of_the_file"] == [1, 2]
    assert len(part.changes["arms_left_out"]) == 8 and "base" not in part.changes["arms_left_out"]
    parts: list[dict[str, Any]] = [{"only": ["base"]}, {"seeds": [2]}, {"overrides": [parse_setting("eval.limit=5")]}]
    for alone in parts:
        assert report_name(make_plan(matrix, store, **alone)) == "fake-partial"


def test_existing_traces_are_imitated_and_not_written_again(world):
    profiles = world[0].parent / "profiles"
    (profiles / "r1.jsonl").write_text('{"id": "1", "text": "1+1", "completion": "2"}\n')
    rewrite(profiles / "small.yaml", "data: {", "data: {written: {other_model: 'file:r1.jsonl'}, ")
    plan = make_plan(*world)
    assert Counter(stage.kind for stage in plan.stages.values())["traces"] == 1
    starts = {name: plan.stages[stage_of(plan, f"{name}+grpo", "sft")] for name in ("teacher", "mismatch")}
    assert starts["mismatch"].spec.locations["traces"] == str(profiles / "r1.jsonl") and not starts["mismatch"].needs
    assert starts["teacher"].spec.locations["traces"].startswith("traces-")
    before = starts["mismatch"].id
    (profiles / "r1.jsonl").write_text('{"id": "1", "text": "1+1", "completion": "3"}\n')
    assert stage_of(make_plan(*world), "mismatch+grpo", "sft") != before


def test_validation_prompts_are_an_input_of_rl_only_if_rl_validates(world):
    rewrite(world[0].parent / "profiles" / "small.yaml", "data: {", "data: {validation: 'file:prompts.jsonl', ")
    plan = make_plan(*world, only=["teacher+grpo"], seeds=[1])
    assert "validation" in plan.stages[stage_of(plan, "teacher+grpo", "rl")].spec.locations
    plan = make_plan(*world, only=["teacher+grpo"], seeds=[1], overrides=[parse_setting("rl.validate_every=0")])
    assert "validation" not in plan.stages[stage_of(plan, "teacher+grpo", "rl")].spec.locations


def test_a_plan_lists_its_missing_inputs(world):
    profile = world[0].parent / "profiles" / "small.yaml"
    rewrite(profile, "teacher: ./teacher", "teacher: ./nowhere")
    plan = make_plan(*world)
    assert len(plan.absent) == 1 and "nowhere" in plan.absent[0] and "small.yaml:3:" in plan.absent[0]


def test_the_papers_profile_plans_the_real_models_and_reads_nothing(tmp_path):
    from bench.store import Store

    root = Path(__file__).resolve().parents[3]
    plan = make_plan(root / "ablations" / "teacher_mismatch.yaml", Store(tmp_path), profile="paper")
    locations = {place for stage in plan.stages.values() for place in stage.spec.locations.values()}
    for model in ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-R1"):
        assert f"hub:{model}@main" in locations
    assert "hub:open-r1/Mixture-of-Thoughts@main?config=all" in locations
    sft = next(stage.spec.config for stage in plan.stages.values() if stage.kind == "sft")
    assert (sft["steps"], sft["batch_size"], sft["optimizer"]["learning_rate"]) == (4000, 256, 5e-5)
    assert plan.profile.settings.hardware.gpus == 8


def test_the_number_format_of_an_evaluation_is_part_of_its_identity(world):
    before = make_plan(*world, only=["teacher+grpo_opd"], seeds=[1])
    profile = before.profile.path
    assert all("dtype" not in stage.spec.identity for stage in before.stages.values())

    def in_bfloat16():
        with profile.open("a") as file:
            file.write("\nexecution: {dtype: bfloat16}\n")

    assert "\nexecution:" not in profile.read_text()
    assert changed(world, in_bfloat16) == {"eval"}


def test_the_rules_of_reading_answers_are_part_of_the_identity_of_stages_that_read_them(world, monkeypatch):
    def read_otherwise():
        monkeypatch.setattr("bench.matrix.plan.VERSION", -1)

    assert changed(world, read_otherwise) == {"traces", "sft", "rl", "eval"}
