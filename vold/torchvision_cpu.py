"""Makes the packaged torchvision importable with a CPU build of torch.

The compiled operators of torchvision are linked against CUDA. With a CPU build of torch they do not load, and the
import fails with ``operator torchvision::nms does not exist``. transformers imports torchvision wherever it is
installed, and vLLM installs it. It is enough to declare the two operators that torchvision looks up while it is
imported. Image processors need no more. Calls of these operators still fail.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _Finder(MetaPathFinder):
    """Never finds a module: it declares the operators just before torchvision is imported, and only once."""

    def __init__(self) -> None:
        self.libraries: list[torch.library.Library] = []

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
    """Declare the operators as soon as torchvision is imported. This imports nothing itself."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
