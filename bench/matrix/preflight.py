"""The training runs of a matrix as jobs for the preflight check, each distinct one once."""

from collections.abc import Callable
from pathlib import Path

from bench.errors import ConfigurationError, InfrastructureError
from bench.matrix.plan import Plan
from bench.matrix.yaml_file import setting_place
from bench.store import StageSpec, Store, from_hub
from vold.config import RLConfig, SFTConfig
from vold.execution import Execution
from vold.locations import on_hub
from vold.preflight.devices import Device, parse_device, this_machine
from vold.preflight.job import Job

_CONFIGS = {"sft": SFTConfig, "rl": RLConfig}
_DATA = {"sft": "traces", "rl": "prompts"}


def matrix_jobs(plan: Plan, store: Store, device: Device | None) -> list[Job]:
    """One job for each distinct configuration of SFT and RL stages, whatever their seeds and whether they are finished.

    A stage that starts from the checkpoint of another stage is checked with the model that the first one starts from,
    because training changes neither the tokenizer nor the shape. Data that a stage has not written yet are left out.
    """
    jobs: dict[tuple[object, ...], Job] = {}
    for stage in plan.stages.values():
        spec = stage.spec
        if spec.kind not in _CONFIGS:
            continue
        name = _DATA[spec.kind]
        location = spec.locations[name]
        available = location.partition("/")[0] not in plan.stages or (store.root / location).exists()
        job = Job(
            config=_CONFIGS[spec.kind].model_validate(spec.config),
            execution=Execution.model_validate(spec.execution),
            student=_model(plan, spec, "student", store),
            teacher=_model(plan, spec, "teacher", store) if "teacher" in spec.locations else None,
            data=spec.data(name, store) if available else None,
            run=store.root,
            device=device or hardware(plan),
            where=_place(plan, spec.kind),
            weights_here=not on_hub(_root(plan, spec)),
        )
        jobs.setdefault((job.kind, job.config, job.student, job.teacher, job.data), job)
    return list(jobs.values())


def hardware(plan: Plan) -> Device | None:
    """The device that the profile names, or this machine's."""
    settings = plan.profile.settings
    if settings.execution.device != "cpu":
        try:
            return parse_device(settings.hardware.device)
        except ValueError:
            pass
    return this_machine(settings.execution.device)


def _root(plan: Plan, spec: StageSpec) -> str:
    """The location of the student that the first training stage of a chain starts from."""
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
        return Path(location)  # a missing model becomes a finding; everything else is still checked


def _place(plan: Plan, kind: str) -> Callable[[str], str]:
    """A function that says where the profile sets a setting."""

    def where(key: str) -> str:
        first, *rest = key.split(".")
        loc = {"config": ("stages", kind, *rest), "prompts": ("data", "rl"), "traces": ("data", "traces")}
        name = ".".join([kind, *rest]) if first == "config" else key
        return setting_place(plan.profile.sources, loc.get(first, (first, *rest)), name)

    return where
