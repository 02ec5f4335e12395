"""Check devices, hook imports, and make torchvision importable with a CPU-only torch.

A torchvision built for CUDA does not register its C++ operators with a CPU-only torch, and its
import fails with "operator torchvision::nms does not exist", as do open_clip, timm and
transformers. None of them needs those operators. After that error, and only then, the two
missing schemas are defined and the import is repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from marsretrieval.errors import MissingDependencyError
from marsretrieval.system import let_interrupts_end_waits

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
    hook_import("torchvision", _execute_torchvision)


def import_mteb(needed_for: str) -> Any:
    """Import MTEB, which imports torchvision and Polars.

    Args:
        needed_for: What needs it, for the message.

    Returns:
        The module.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    guard_torchvision()
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise MissingDependencyError("mteb", "mteb", needed_for=needed_for) from error
    let_interrupts_end_waits()
    return mteb


Execute = Callable[[ModuleType], None]
_hooks: dict[str, Callable[[ModuleType, Execute], None]] = {}


def hook_import(name: str, hook: Callable[[ModuleType, Execute], None]) -> None:
    """Call a function in place of executing a module, from now on, when it is imported.

    A module that is already imported is not executed again. A module has one hook; a second one
    replaces the first.

    Args:
        name: Full name of the module.
        hook: Receives the new module and the function that executes it.
    """
    _hooks[name] = hook
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Find the modules with hooks as usual, and import them with `_Loader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _hooks:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """Create a module with its own loader, and execute it with its hook."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        _hooks[module.__name__](module, self._loader.exec_module)


def _execute_torchvision(module: ModuleType, execute: Execute) -> None:
    """Execute torchvision, a second time after the known failure."""
    try:
        execute(module)
    except RuntimeError as error:
        if _defined or "operator torchvision::" not in str(error):
            raise
        _define_schemas(keep="torchvision")
        execute(module)


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
