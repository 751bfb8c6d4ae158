"""How a model is written in options, profiles and training files."""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.engines.endpoint import SCHEMES
from bench.errors import ConfigurationError
from bench.smallworld import checkpoint_path
from bench.smallworld.sources import SMALLWORLD
from bench.store import from_hub
from vold.locations import hub_location, hub_name, on_hub

_HUB_NAME = re.compile(r"(?![.~])[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is. ``location``: an absolute path, ``hub:OWNER/NAME@REVISION`` or ``URL#MODEL``.

    fix: what to do when a path does not exist.
    """

    location: str
    fix: str = ""

    @property
    def on_server(self) -> bool:
        return self.location.startswith(SCHEMES)

    @property
    def on_hub(self) -> bool:
        return on_hub(self.location)

    def path(self, weights: bool = True) -> Path:
        """The checkpoint directory; a hub model is fetched first, on request without its weights.

        Raises ConfigurationError for a model behind a server and for one that does not exist.
        """
        if self.on_server:
            raise ConfigurationError(f"{self.location}: a model behind a server cannot be used here; {_FORMS}")
        if self.on_hub:
            return from_hub(self.location, weights)
        path = Path(self.location)
        if not path.exists():
            raise ConfigurationError(f"nothing at {path}; {self.fix}")
        return path


_FORMS = "give a checkpoint directory, OWNER/NAME@REVISION for a model on the hub, or smallworld/NAME"


def parse_model(text: str, base: Path) -> ModelSource:
    """The model that ``text`` names: a checkpoint directory, a hub model, ``smallworld/NAME`` or ``URL#MODEL``.

    ``OWNER/NAME`` and ``OWNER/NAME@REVISION`` name a directory below ``base`` if it exists, and otherwise the hub; the
    prefix ``hub:`` always means the hub. Raises ConfigurationError for an unknown name of the small world.
    """
    if text.startswith(SMALLWORLD):
        try:
            path = checkpoint_path(text.removeprefix(SMALLWORLD))
        except KeyError as error:
            raise ConfigurationError(error.args[0]) from error
        return ModelSource(str(path), "build it with `vold-bench smallworld build`")
    if text.startswith(SCHEMES):
        return ModelSource(text)
    path = (base / Path(text).expanduser()).resolve()
    if on_hub(text) or (_HUB_NAME.fullmatch(text) and not path.exists()):
        return ModelSource(hub_location(*hub_name(text)))
    return ModelSource(str(path), _FORMS)
