from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.matrix.profile import load_profile
from bench.matrix.spec import load_spec
from tests.helpers.fake_matrix import MATRIX, PROFILE

REPOSITORY = Path(__file__).resolve().parents[3]


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_spec(path)
    return str(caught.value).replace(f"{tmp_path}/", "")


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_cold_start_has_twelve_arms_and_the_contrasts_of_the_question():
    spec = load_spec(REPOSITORY / "ablations" / "cold_start.yaml")
    assert set(spec.names) == {
        "base",
        "none+grpo",
        "none+grpo_opd",
        *(f"teacher+{objective}" for objective in ("sft_only", "grpo", "opd", "grpo_opd_paper", "grpo_opd")),
        *(f"mismatch+{objective}" for objective in ("sft_only", "grpo", "grpo_opd_paper", "grpo_opd")),
    }
    assert set(spec.excluded) == {"none+sft_only", "none+opd", "none+grpo_opd_paper", "mismatch+opd"}
    contrasts = {(c.test.arm, c.against.arm) for c in spec.analysis.contrasts}
    assert contrasts >= {
        ("teacher+grpo", "teacher+sft_only"),
        ("teacher+grpo_opd", "teacher+grpo"),
        ("teacher+grpo_opd_paper", "teacher+grpo"),
        ("teacher+grpo_opd", "teacher+opd"),
        ("teacher+grpo_opd", "none+grpo_opd"),
    }
    assert {c.min_effect for c in spec.analysis.contrasts} == {0.02}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_matrix_file_is_valid(path):
    assert load_spec(path).name == path.stem


@pytest.mark.parametrize("path", sorted((REPOSITORY / "ablations" / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_bundled_profile_is_valid(path):
    assert {"student", "teacher", "other_model"} <= set(load_profile(path).settings.models)


def test_arms_of_a_product_join_the_settings_of_their_levels(tmp_path):
    (tmp_path / "m.yaml").write_text(MATRIX)
    arms = {arm.name: arm for arm in load_spec(tmp_path / "m.yaml").arms}
    arm = arms["mismatch+grpo"]
    assert {key: override.value for key, override in arm.overrides.items()} == {
        "sft.traces": "other_model",
        "rl.distill.weight": 0,
    }
    assert arm.levels == {"cold_start": "mismatch", "objective": "grpo"}
    assert arms["base"].skip == {"sft", "rl"} and arms["teacher+sft_only"].skip == {"rl"}


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("question:", "querstion:", "querstion", ["unknown key 'querstion'", "did you mean 'question'?"]),
        ("{rl.distill.weight: 0}", "{rl.distil.weight: 0}", "rl.distil", ["did you mean 'rl.distill.weight'?"]),
        ("  product: [", "  produkt: [", "produkt", ["did you mean 'product'?"]),
        ("none: {skip: [sft]}", "no: {skip: [sft]}", "no:", ["boolean in YAML 1.1"]),
        ("none: {skip: [sft]}", "true: {skip: [sft]}", "true", ["boolean in YAML 1.1"]),
        ("none: {skip: [sft]}", "none: {skip: [stf]}", "stf", ["'stf' cannot be skipped", "did you mean 'sft'?"]),
        ("seeds: [1, 2]", "seeds: [1, 1]", "seeds", ["seeds must be different"]),
        ("seeds: [1, 2]", "seeds: [1, two]", "two", ["valid integer", "'two'"]),
        ("[{cold_start: none,", "[{cold_start: nine,", "cold_start", ["did you mean 'none'?"]),
        ("test: teacher+grpo_opd", "test: teacher+gpro_opd", "test:", ["did you mean 'teacher+grpo_opd'?"]),
        ("min_effect: 2.0pp", "min_effect: 2.0", "min_effect", ["percentage points such as 2.0pp"]),
        ("name: base,", "name: teacher+grpo,", "name", ["is not a valid name"]),
        ("matrix@1", "matrix@9", "schema", ["vold-bench/matrix@1"]),
    ],
)
def test_a_mistake_is_reported_with_line_column_and_the_nearest_name(tmp_path, old, new, at, words):
    assert MATRIX.count(old) == 1
    text = MATRIX.replace(old, new)
    line = line_of(text, new)
    column = text.splitlines()[line - 1].index(at) + 1
    message = refusal(tmp_path, text)
    assert message.startswith(f"m.yaml:{line}:{column}: "), message
    for word in words:
        assert word in message


def test_a_second_evaluation_has_strict_settings_and_one_default(tmp_path):
    path = tmp_path / "m.yaml"
    for text, sampled in (("", None), ("sampled: {}", (2, 1.0)), ("sampled: {samples: 8}", (8, 1.0))):
        path.write_text(MATRIX.replace("analysis:\n", f"analysis:\n  {text}\n"))
        found = load_spec(path).analysis.sampled
        assert (found and (found.samples, found.temperature)) == sampled
    for text, words in (("{temperature: 0}", "greater than 0"), ("{sample: 2}", "did you mean 'samples'?")):
        assert words in refusal(tmp_path, MATRIX.replace("analysis:\n", f"analysis:\n  sampled: {text}\n"))


GAINS = """\
    - id: match
      test: {arm: teacher+grpo_opd, over: teacher+grpo}
      against: {arm: mismatch+grpo_opd, over: mismatch+grpo}
      min_effect: 2.0pp
"""


def test_a_contrast_can_be_a_difference_of_gains(tmp_path):
    (tmp_path / "m.yaml").write_text(MATRIX + GAINS)
    plain, gains = load_spec(tmp_path / "m.yaml").analysis.contrasts
    assert (plain.test.arm, plain.test.over) == ("teacher+grpo_opd", None)
    assert (gains.test.arm, gains.test.over) == ("teacher+grpo_opd", "teacher+grpo")
    assert (gains.against.arm, gains.against.over) == ("mismatch+grpo_opd", "mismatch+grpo")


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("{arm: mismatch+grpo_opd, over: mismatch+grpo}", "mismatch+grpo", "against", "an arm and the other a gain"),
        ("over: teacher+grpo}", "over: teacher+gpro}", "over", "unknown arm 'teacher+gpro'; did you mean"),
        ("over: teacher+grpo}", "ovre: teacher+grpo}", "ovre", "unknown key 'ovre'; did you mean 'over'?"),
        (", over: teacher+grpo}", "}", "test", "the gain of an arm as {arm: NAME, over: NAME}"),
        ("{arm: teacher+grpo_opd, over: teacher+grpo}", "[base]", "test", "the gain of an arm as {arm: NAME, over"),
        ("over: teacher+grpo}", "over: teacher+grpo_opd}", "test", "'teacher+grpo_opd' over itself is 0"),
        ("over: mismatch+grpo}", "over: teacher+grpo}", "against",
         "'teacher+grpo' is on both sides and cancels; register test: teacher+grpo_opd, against: mismatch+grpo_opd"),
        ("{arm: mismatch+grpo_opd,", "{arm: teacher+grpo_opd,", "against",
         "'teacher+grpo_opd' is on both sides and cancels; register test: mismatch+grpo, against: teacher+grpo"),
        ("{arm: mismatch+grpo_opd, over: mismatch+grpo}", "{arm: teacher+grpo, over: teacher+grpo_opd}", "against",
         "twice a single contrast; register test: teacher+grpo_opd, against: teacher+grpo"),
        ("{arm: mismatch+grpo_opd, over: mismatch+grpo}", "{arm: teacher+grpo_opd, over: teacher+grpo}", "against",
         "both sides are the same"),
    ],
)  # fmt: skip
def test_a_difference_of_gains_that_says_nothing_is_refused_at_its_position(tmp_path, old, new, at, words):
    assert GAINS.count(old) == 1
    gains = GAINS.replace(old, new)
    message = refusal(tmp_path, MATRIX + gains)
    number = next(n for n, line in enumerate(gains.splitlines()) if at in line)
    line, column = len(MATRIX.splitlines()) + number + 1, gains.splitlines()[number].index(at) + 1
    assert message.startswith(f"m.yaml:{line}:{column}: ") and words in message, message


def test_an_arm_compared_with_itself_is_refused(tmp_path):
    message = refusal(tmp_path, MATRIX.replace("against: teacher+grpo,", "against: teacher+grpo_opd,"))
    assert "both sides are the same, so their difference is 0" in message


def test_an_arm_may_be_the_end_of_one_gain_and_the_start_of_another(tmp_path):
    """Two steps in a row: does the second step gain more than the first?"""
    text = GAINS.replace("{arm: mismatch+grpo_opd, over: mismatch+grpo}", "{arm: teacher+grpo, over: teacher+sft_only}")
    (tmp_path / "m.yaml").write_text(MATRIX + text)
    assert load_spec(tmp_path / "m.yaml").analysis.contrasts[1].against.arm == "teacher+grpo"


def test_audits_are_relative_to_the_matrix_file_and_a_missing_one_is_reported_before_anything_runs(tmp_path):
    text = MATRIX.replace("analysis:\n", "analysis:\n  clean_of: [audits/mathvision.json]\n")
    assert text != MATRIX
    message = refusal(tmp_path, text)
    assert message.startswith(f"m.yaml:{line_of(text, 'clean_of')}:") and "no such file" in message
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits" / "mathvision.json").touch()
    assert load_spec(tmp_path / "m.yaml").analysis.clean_of == (str(tmp_path / "audits" / "mathvision.json"),)


@pytest.mark.parametrize(
    ("students", "names"),
    [
        ("./deep/student_a", ("student_a",)),
        ("[smallworld/student_a, OWNER/Big-3B@main]", ("student_a", "Big-3B")),
        ("[one/model, other/model]", ("one/model", "other/model")),
        ("[one/model@v1, one/model@v2]", ("one/model@v1", "one/model@v2")),
    ],
)
def test_students_have_short_names_that_tell_them_apart(tmp_path, students, names):
    (tmp_path / "p.yaml").write_text(PROFILE.replace("student: ./student_a", f"student: {students}"))
    assert load_profile(tmp_path / "p.yaml").settings.students == names


@pytest.mark.parametrize("students", ["[]", "[./student_a, ./student_a]"])
def test_a_list_without_different_students_is_refused(tmp_path, students):
    (tmp_path / "p.yaml").write_text(PROFILE.replace("student: ./student_a", f"student: {students}"))
    with pytest.raises(ConfigurationError, match=r"p\.yaml:3:1: models: student: expected one model or a list"):
        load_profile(tmp_path / "p.yaml")


def test_two_axes_may_not_change_the_same_setting(tmp_path):
    text = MATRIX.replace("mismatch: {sft.traces: other_model}", "mismatch: {rl.distill.weight: 1}")
    assert "'rl.distill.weight' is set twice" in refusal(tmp_path, text)


def test_an_arm_may_not_set_what_it_skips(tmp_path):
    text = MATRIX.replace("skip: [sft, rl]}", "skip: [sft, rl], set: {rl.steps: 3}}")
    assert "arm 'base' sets 'rl.steps' but skips 'rl'" in refusal(tmp_path, text)


def test_an_exclusion_that_excludes_nothing_is_refused(tmp_path):
    text = MATRIX.replace("  include:", "    - {cold_start: none, objective: sft_only}\n  include:").replace(
        "exclude: [{cold_start: none, objective: sft_only, because: it is the base model}]",
        "exclude:\n    - {cold_start: none, objective: sft_only, because: it is the base model}",
    )
    assert "this excludes no cell" in refusal(tmp_path, text)


def test_broken_yaml_and_missing_files_are_named(tmp_path):
    assert "m.yaml:2:" in refusal(tmp_path, "name: [1,\nquestion: {")
    with pytest.raises(ConfigurationError, match=r"did you mean 'm\.yaml'"):
        load_spec(tmp_path / "n.yaml")


def test_a_profile_may_extend_another_and_errors_name_the_file_that_is_wrong(tmp_path):
    (tmp_path / "small.yaml").write_text(PROFILE)
    child = "schema: vold-bench/profile@1\nabout: other\nextends: small\nseeds: [7]\nstages: {sft: {steps: 3}}\n"
    (tmp_path / "child.yaml").write_text(child)
    loaded = load_profile(tmp_path / "child.yaml")
    assert loaded.settings.seeds == (7,) and loaded.settings.models["teacher"] == "./teacher"
    assert loaded.overrides["sft.steps"].value == 3 and loaded.overrides["rl.steps"].value == 30
    assert "child.yaml:5:" in str(loaded.overrides["sft.steps"].where)
    assert "small.yaml:7:" in str(loaded.overrides["rl.steps"].where)
    (tmp_path / "child.yaml").write_text(child.replace("steps: 3", "stepz: 3"))
    with pytest.raises(ConfigurationError, match=r"child\.yaml:5:16: unknown setting 'sft.stepz'; did you mean"):
        load_profile(tmp_path / "child.yaml")
    (tmp_path / "small.yaml").write_text(PROFILE.replace("about:", "abuot:"))
    with pytest.raises(ConfigurationError, match=r"small\.yaml:2:1: unknown key 'abuot'"):
        load_profile(tmp_path / "child.yaml")
