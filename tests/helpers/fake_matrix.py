"""Quick stand-ins for every kind of stage, and a matrix file to plan with. Also a program that runs such a matrix.

A fake stage counts to ``steps`` in ``metrics.jsonl`` and resumes from the steps it finds there, as a trainer does.
Files named ``<action>-<stage id or kind>`` in the directory ``control`` next to the store make a stage misbehave.
"""

import dataclasses
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench.matrix import stages
from bench.matrix.stages import Progress
from bench.store import StageSpec, Store

STEP_SECONDS = 0.01

MATRIX = """\
schema: vold-bench/matrix@1
name: fake
question: Does the launcher do what the plan says?
seeds: [1, 2]
axes:
  cold_start:
    none: {skip: [sft]}
    teacher: {}
    mismatch: {sft.traces: other_model}
  objective:
    sft_only: {skip: [rl]}
    grpo: {rl.distill.weight: 0}
    grpo_opd: {}
matrix:
  product: [cold_start, objective]
  exclude: [{cold_start: none, objective: sft_only, because: it is the base model}]
  include:
    - {name: base, skip: [sft, rl]}
analysis:
  contrasts:
    - {id: H1, test: teacher+grpo_opd, against: teacher+grpo, min_effect: 2.0pp}
"""

PROFILE = """\
schema: vold-bench/profile@1
about: no models at all
models: {student: ./student_a, teacher: ./teacher, other_model: ./other}
data: {traces: "file:prompts.jsonl", rl: "file:prompts.jsonl", eval: {mathvision: ./problems}}
stages:
  sft: {steps: 20}
  rl: {steps: 30, distill: {weight: 0.3}}
cost: {source: a guess, traces: 1, sft: 0.01, rl: 0.01, eval: 1}
"""


def make_world(root: Path, matrix: str = MATRIX, profile: str = PROFILE) -> Path:
    """Write a matrix file with everything that it names and return its path."""
    profiles = root / "profiles"
    profiles.mkdir(parents=True)
    for name in ("student_a", "student_b", "teacher", "other"):
        (profiles / name).mkdir()
        (profiles / name / "config.json").write_text(json.dumps({"name": name}))
    (profiles / "problems").mkdir()
    (profiles / "problems" / "test.jsonl").write_text("{}\n")
    (profiles / "prompts.jsonl").write_text('{"id": "1", "text": "1+1", "answer": "2"}\n')
    (profiles / "small.yaml").write_text(profile)
    path = root / "fake.yaml"
    path.write_text(matrix)
    return path


def fake_kinds() -> dict[str, stages.Kind]:
    """The real kinds of stage with their real settings, but fake work."""
    run = f"{__name__ if __name__ != '__main__' else 'tests.helpers.fake_matrix'}:run_fake"
    return {name: dataclasses.replace(kind, run=run) for name, kind in stages.KINDS.items()}


def _must(action: str, spec: StageSpec, store: Store, once: bool = False) -> bool:
    """Whether a control file asks the stage for ``action``; ``once``: delete the file, so that it asks only once."""
    for name in (spec.id, spec.kind):
        path = store.root.parent / "control" / f"{action}-{name}"
        if path.exists():
            if once:
                path.unlink()
            return True
    return False


def run_fake(spec: StageSpec, store: Store, work: Path, progress: Progress) -> None:
    """Count steps; the artefact holds the kind, seed and steps of this stage and the artefacts of its inputs."""
    steps = spec.config.get("steps", 5)
    metrics = work / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    (work / f"pid-{os.getpid()}").touch()
    if _must("refuse", spec, store):
        raise ValueError(f"{spec.id}: refuses as requested")
    if _must("full", spec, store):
        raise OSError(errno.ENOSPC, "No space left on device", str(metrics))
    for step in range(done, steps):
        if step == steps // 2 and _must("kill", spec, store, once=True):
            os.kill(os.getpid(), signal.SIGKILL)
        if _must("memory", spec, store) and spec.execution["rollout_batch"] > 200:
            raise MemoryError("out of memory as requested")
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step + 1, "loss": 1 / (step + 1), "seed": spec.seed}) + "\n")
        time.sleep(STEP_SECONDS)
        progress(step + 1, steps, {"loss": 1 / (step + 1)})
    identities = spec.identity["inputs"]
    needs = [location for name, location in spec.locations.items() if identities[name] in location]
    parents = [(store.root / location.split("/")[0] / "out" / "result.json").read_text() for location in needs]
    result = json.dumps([spec.kind, spec.seed, steps, parents])
    (work / "out").mkdir(exist_ok=True)
    (work / "out" / "result.json").write_text(result)
    (work / "out" / "traces.jsonl").write_text("{}\n")


def main(matrix: Path, store: Path) -> int:
    """Run ``matrix`` to the end with fake stages; for tests that kill the whole run."""
    from rich.console import Console

    from bench.matrix.launchers.local import LocalLauncher
    from bench.matrix.plan import make_plan
    from bench.matrix.run import run_plan

    stages.KINDS.update(fake_kinds())
    home, plain = Store(store), LocalLauncher(preload=())
    outcomes = run_plan(make_plan(matrix, home), home, jobs=2, console=Console(stderr=True), launcher=plain)
    return 0 if all(outcome.state == "done" for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
