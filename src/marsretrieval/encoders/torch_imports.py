"""Let torchvision import beside a CPU-only torch.

A torchvision built for CUDA links libraries that a CPU-only torch does not have. Its C++ operators
are then not registered, and two unguarded lines of its own (the shape rules of nms and qnms) fail
with "operator torchvision::nms does not exist"; open_clip, timm and transformers fail with it.
None of them needs those operators, only the transforms. So after that very failure, and only then,
the two schemas are defined and the import is tried again. Where torchvision is whole, or absent,
nothing is touched.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from marsretrieval.errors import MissingDependencyError

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_defined: list[str] = []  # by us, in this process


def ensure_torchvision() -> bool:
    """Import torchvision, mending the one failure described above. False where that was needed.

    Call it before open_clip, timm or transformers are imported. Raises MissingDependencyError
    when torchvision is not installed; any other failure is passed on as it is.
    """
    try:
        import torchvision
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "torchvision", "models", needed_for="loading a model"
        ) from error
    except RuntimeError as error:
        if _defined or "operator torchvision::" not in str(error):
            raise
        _define_schemas()
        import torchvision  # noqa: F401
    return not _defined


def guard_torchvision() -> None:
    """Let a later `import torchvision`, by whatever library, be mended as above. Costs nothing.

    For code that is not ours: a user's class or a library that imports torchvision by itself.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Find torchvision as usual, and have it imported by `_Loader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Import with the package's own loader; after the known failure, once more."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except RuntimeError as error:
            if _defined or "operator torchvision::" not in str(error):
                raise
            _define_schemas(keep="torchvision")
            self._loader.exec_module(module)


def _define_schemas(keep: str = "") -> None:
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        if name != keep:
            del sys.modules[name]  # half imported
    for operator in _OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
        _defined.append(operator)
