"""Check devices, and make torchvision importable with a CPU-only torch.

A torchvision built for CUDA does not register its C++ operators with a CPU-only torch, and its
import fails with "operator torchvision::nms does not exist", as do open_clip, timm and
transformers. None of them needs those operators. After that error, and only then, the two
missing schemas are defined and the import is repeated.
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
_defined: list[str] = []  # operators defined in this process


def ensure_torchvision() -> bool:
    """Import torchvision, and define its missing operators if necessary.

    Must be called before open_clip, timm or transformers are imported. Any other failure of the
    import is raised unchanged.

    Returns:
        False if operators had to be defined.

    Raises:
        MissingDependencyError: If torchvision is not installed.
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
    """Apply `ensure_torchvision` to a later import of torchvision by other code.

    For a user's class or a library that imports torchvision by itself.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Find torchvision as usual, and import it with `_Loader`."""

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
    """Import with the package's own loader, a second time after the known failure."""

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
            del sys.modules[name]  # partially imported
    for operator in _OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
        _defined.append(operator)


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have, without loading a model.

    Args:
        name: A device name, or auto.

    Raises:
        UsageError: If the device is unknown or not available.
    """
    if name in ("auto", "cpu"):  # torch need not be imported
        return
    try:
        from marsretrieval.encoders.torch_encoder import choose_device
    except ImportError:  # no torch: what the name means is up to the model
        return
    choose_device(name)
