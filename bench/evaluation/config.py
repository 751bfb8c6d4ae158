"""The settings of an evaluation that belong to its identity."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from bench import prompts
from bench.benchmarks import registry
from bench.engines.factory import EngineName, resolve
from vold.config import Strict


class EvalConfig(Strict):
    """Which problems a model is asked, and how its responses are sampled; part of the identity of an evaluation."""

    benchmarks: tuple[str, ...] | None = Field(default=None, description="Benchmarks. None: all that have data.")
    splits: dict[str, str] = Field(default_factory=dict, description="Split of a benchmark, if not the default one.")
    limit: int | None = Field(default=None, ge=1, description="Most problems per benchmark: the first of a shuffle.")
    ids: tuple[str, ...] | None = Field(default=None, description="Ids of the problems to ask. None: all.")
    subset_seed: int = Field(
        default=0, description="Seed of the shuffle for `limit`, so that every arm and seed gets the same problems."
    )
    samples: int = Field(default=1, ge=1, description="Responses per problem.")
    temperature: float = Field(default=0.0, ge=0, description="Sampling temperature. 0: greedy decoding.")
    max_tokens: int = Field(default=2048, ge=1, description="Most tokens of a response.")
    template: str = Field(default="plain@1", description="Prompt template. Without a version: its newest.")
    min_pixels: int | None = Field(
        default=None, ge=1, description="Fewest pixels of an image after resizing. None: the model's own limit."
    )
    max_pixels: int | None = Field(
        default=None, ge=1, description="Most pixels of an image after resizing. None: the model's own limit."
    )
    think: Literal["default", "off"] = Field(
        default="default",
        description="off: turn thinking off with the switch of the chat template; an error if it has no switch.",
    )
    blind: bool = Field(default=False, description="Leave the images out.")
    group_size: int = Field(
        default=64, ge=1, description="Problems decoded together, for engines whose replies depend on it."
    )
    engine: EngineName = Field(
        default="auto",
        validate_default=True,
        description="Inference engine. auto: vllm if a GPU and vLLM are present, otherwise builtin.",
    )

    @field_validator("engine", mode="after")
    @classmethod
    def _resolved(cls, value: str) -> str:
        """Replace ``auto``, so that the identity names the engine that is used."""
        return resolve(value)

    @field_validator("template")
    @classmethod
    def _with_its_version(cls, name: str) -> str:
        return prompts.find_template(name).name

    @model_validator(mode="after")
    def _is_consistent(self) -> "EvalConfig":
        for name in (*(self.benchmarks or ()), *self.splits):
            if name not in registry.BENCHMARKS:
                raise ValueError(f"unknown benchmark {name!r}; choose from {', '.join(registry.BENCHMARKS)}")
        if self.ids is not None and (not self.ids or len(set(self.ids)) != len(self.ids)):
            raise ValueError("ids must name at least one problem, and each once")
        if (self.min_pixels is None) != (self.max_pixels is None):
            raise ValueError("min_pixels and max_pixels are set together or not at all")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 are all the same; set a temperature or samples: 1")
        return self

    @property
    def thinking(self) -> bool | None:
        """False turns thinking off; None leaves the chat template as it is."""
        return False if self.think == "off" else None

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        if self.min_pixels is None or self.max_pixels is None:
            return None
        return self.min_pixels, self.max_pixels
