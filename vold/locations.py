"""How settings and records write a place on the Hugging Face hub: ``hub:OWNER/NAME@REVISION``."""

HUB = "hub:"
DEFAULT_REVISION = "main"


def on_hub(location: str) -> bool:
    """Whether a written location is a model or data set on the hub, and not a path."""
    return location.startswith(HUB)


def hub_location(name: str, revision: str = DEFAULT_REVISION) -> str:
    """The written location of ``OWNER/NAME`` at a revision."""
    return f"{HUB}{name}@{revision}"


def hub_name(location: str) -> tuple[str, str]:
    """``OWNER/NAME`` and the revision of a written location, ``main`` if it names none; the prefix may be missing."""
    name, _, revision = location.removeprefix(HUB).partition("@")
    return name, revision or DEFAULT_REVISION
