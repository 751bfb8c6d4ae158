"""What an evaluation asks and how it samples."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from bench import benchmarks, prompts
from bench.engines.factory import EngineName, resolve
from vold.config import Strict


class EvalConfig(Strict):
    """What is asked and how it is sampled; enters the identity of an evaluation."""

    benchmarks: tuple[str, ...] | None = Field(default=None, description="None: every benchmark that has data")
    splits: dict[str, str] = Field(default_factory=dict, description="benchmark to split, where not the default")
    limit: int | None = Field(default=None, ge=1, description="items a benchmark: the first of a seeded shuffle")
    ids: tuple[str, ...] | None = Field(default=None, description="only these problems; None: all")
    subset_seed: int = Field(default=0, description="seed of that shuffle; the same items for every arm and seed")
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=2048, ge=1)
    template: str = Field(default="plain@1", description="a name without a version means its newest")
    min_pixels: int | None = Field(default=None, ge=1, description="of one image after resizing; None: the model's")
    max_pixels: int | None = Field(default=None, ge=1)
    think: Literal["default", "off"] = Field(
        default="default", description="off: the chat template's own switch, refused where it has none"
    )
    blind: bool = Field(default=False, description="leave the images out")
    group_size: int = Field(default=64, ge=1, description="items decoded together, where that matters")
    engine: EngineName = Field(
        default="auto", validate_default=True, description="auto: vllm where a GPU and vLLM are present, else builtin"
    )

    @field_validator("engine", mode="after")
    @classmethod
    def _resolved(cls, value: str) -> str:
        """The identity holds the engine that answers, not the wish."""
        return resolve(value)

    @field_validator("template")
    @classmethod
    def _with_its_version(cls, name: str) -> str:
        return prompts.find_template(name).name

    @model_validator(mode="after")
    def _is_consistent(self) -> "EvalConfig":
        for name in (*(self.benchmarks or ()), *self.splits):
            if name not in benchmarks.BENCHMARKS:
                raise ValueError(f"unknown benchmark {name!r}; choose from {', '.join(benchmarks.BENCHMARKS)}")
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
        """As the engines take it: None leaves the chat template as it is."""
        return False if self.think == "off" else None

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        if self.min_pixels is None or self.max_pixels is None:
            return None
        return self.min_pixels, self.max_pixels
