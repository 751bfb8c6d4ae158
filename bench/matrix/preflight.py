"""The training runs of a matrix, for the preflight: each different one once."""

from collections.abc import Callable
from pathlib import Path

from bench.errors import ConfigurationError, InfrastructureError
from bench.matrix.plan import Plan
from bench.matrix.yaml_file import setting_place
from bench.store import StageSpec, Store, from_hub
from vold.config import Execution, RLConfig, SFTConfig
from vold.locations import on_hub
from vold.preflight.devices import Device, parse_device, this_machine
from vold.preflight.job import Job

_CONFIGS = {"sft": SFTConfig, "rl": RLConfig}
_DATA = {"sft": "traces", "rl": "prompts"}


def matrix_jobs(plan: Plan, store: Store, device: Device | None) -> list[Job]:
    """One job for each different setting of an SFT or RL stage; seeds and finished stages make no difference.

    A stage that starts from another's checkpoint is checked with the model at the root of both: training changes
    neither tokenizer nor shape. Data that a stage has yet to write is left out.
    """
    jobs: dict[tuple[object, ...], Job] = {}
    for stage in plan.stages.values():
        spec = stage.spec
        if spec.kind not in _CONFIGS:
            continue
        name = _DATA[spec.kind]
        location = spec.locations[name]
        written = location.partition("/")[0] not in plan.stages or (store.root / location).exists()
        job = Job(
            config=_CONFIGS[spec.kind].model_validate(spec.config),
            execution=Execution.model_validate(spec.execution),
            student=_model(plan, spec, "student", store),
            teacher=_model(plan, spec, "teacher", store) if "teacher" in spec.locations else None,
            data=spec.data(name, store.root) if written else None,
            run=store.root,
            device=device or hardware(plan),
            where=_place(plan, spec.kind),
            weights_here=not on_hub(_root(plan, spec)),
        )
        jobs.setdefault((job.kind, job.config, job.student, job.teacher, job.data), job)
    return list(jobs.values())


def hardware(plan: Plan) -> Device | None:
    """What the profile says of the hardware, else this machine's."""
    settings = plan.profile.settings
    if settings.execution.device != "cpu":
        try:
            return parse_device(settings.hardware.device)
        except ValueError:
            pass
    return this_machine(settings.execution.device)


def _root(plan: Plan, spec: StageSpec) -> str:
    """Where the first student of a chain of stages lies."""
    location = spec.locations["student"]
    while (before := plan.stages.get(location.partition("/")[0])) is not None:
        location = before.spec.locations["student"]
    return location


def _model(plan: Plan, spec: StageSpec, role: str, store: Store) -> Path:
    location = _root(plan, spec) if role == "student" else spec.locations[role]
    if not on_hub(location):
        return store.root / location
    try:
        return from_hub(location, weights=False)
    except (ConfigurationError, InfrastructureError):
        return Path(location)  # not there: a finding like any other, beside what else can be checked


def _place(plan: Plan, kind: str) -> Callable[[str], str]:
    """Where the profile says a setting."""

    def where(key: str) -> str:
        first, *rest = key.split(".")
        loc = {"config": ("stages", kind, *rest), "prompts": ("data", "rl"), "traces": ("data", "traces")}
        name = ".".join([kind, *rest]) if first == "config" else key
        return setting_place(plan.profile.sources, loc.get(first, (first, *rest)), name)

    return where
