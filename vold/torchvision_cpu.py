"""Lets the packaged torchvision be imported beside a CPU build of torch.

Its compiled operators are linked against CUDA, so on CPU torch they never load and the import dies on
``operator torchvision::nms does not exist``. transformers imports torchvision wherever it is installed (vLLM brings
it). Declaring the two operators that torchvision looks up while it is imported is enough for everything that image
processors use; calling one of them fails as before.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _Finder(MetaPathFinder):
    """Finds nothing: it acts at the moment before torchvision is imported, and only once."""

    def __init__(self) -> None:
        self.libraries: list[Any] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision" and not self.libraries:
            self._declare()
        return None

    def _declare(self) -> None:
        import torch

        if torch.version.cuda is not None or torch.version.hip is not None:
            return
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _OPERATORS:
            if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
                library.define(schema)
        self.libraries.append(library)


def install() -> None:
    """Watch for the import of torchvision; imports nothing itself."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
