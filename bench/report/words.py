"""Arms in plain words, from the stages that they skip and from their resolved settings."""

from bench.report.model import Arm, ArmSettings

ALGORITHMS = {
    "grpo": "GRPO",
    "dr_grpo": "Dr.GRPO",
    "dapo": "DAPO",
    "gspo": "GSPO",
    "cispo": "CISPO",
}
OBJECTIVES = {
    "k2": "k2 estimate",
    "k1_advantage": "k1 as an advantage",
    "k1_control": "k1 as an advantage, less its expectation",
    "k3_forward": "k3 estimate of the forward KL's gradient",
    "reverse_kl": "exact reverse KL",
    "forward_kl": "exact forward KL",
    "jsd": "exact Jensen-Shannon divergence",
    "topk": "reverse KL on the teacher's likeliest tokens",
}
MASKS = {"wrong": "on wrong attempts", "all": "on all attempts", "correct": "on right attempts"}


def arm_in_words(arm: Arm, settings: ArmSettings) -> str:
    """The recipe of an arm as a sentence without a full stop: cold start, objective, remark of the matrix file."""
    if not any(name == arm.name for name, _ in settings):
        words = "not part of this run"
    elif {"sft", "rl"} <= set(arm.skip):
        words = "the base model as it is"
    else:
        words = f"{_cold_start(arm, settings)}, {_objective(arm, settings)}"
    return f"{words}; {arm.because}" if arm.because else words


def _cold_start(arm: Arm, settings: ArmSettings) -> str:
    if "sft" in arm.skip:
        return "no cold start"
    sft = settings.get((arm.name, "sft"), {})
    writer = sft.get("traces", "teacher")
    traces = "the teacher's own traces" if writer == "teacher" else f"traces of {writer}, not of the teacher"
    return f"cold start on {traces}" + (f" ({sft['steps']} steps)" if "steps" in sft else "")


def _objective(arm: Arm, settings: ArmSettings) -> str:
    if "rl" in arm.skip:
        return "no RL"
    rl = settings.get((arm.name, "rl"), {})
    distill = rl.get("distill", {})
    weight = distill.get("weight", 0)
    policy = ALGORITHMS[rl.get("algorithm", "grpo")]
    if not weight and not distill.get("weight_end"):
        return f"then {policy} without a teacher term"
    placebo = distill.get("target") == "placebo"
    term = "the placebo of OPD" if placebo else "OPD"
    name = f"{term} without a reward" if rl.get("reward_weight") == 0 else f"{policy} + {term}"
    if rl.get("schedule") == "distill_then_reward":
        name = f"{term} for {rl['distill_share']:.0%} of the steps and {policy} for the others"
    details = [f"weight {weight:g}"]
    if placebo:
        details.append(f"on tokens below a probability of {distill['placebo_probability']:g}")
    elif "estimator" in distill:
        details.append(OBJECTIVES.get(distill["estimator"], str(distill["estimator"])))
    if "mask" in distill:
        details.append(MASKS.get(distill["mask"], str(distill["mask"])))
    if rl.get("teacher", "teacher") != "teacher" and not placebo:
        details.append(f"RL teacher {rl['teacher']}")
    return f"then {name} ({', '.join(details)})"
