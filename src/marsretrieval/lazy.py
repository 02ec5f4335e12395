"""Exports of a package that load their modules at first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    Importing the package then loads none of its modules. The package also lists the same names
    in `__all__`, and imports them under `TYPE_CHECKING`, for type checkers and editors.

    Args:
        package: Name of the package, its `__name__`.
        modules: Names that the package exports, by the module that defines them.

    Returns:
        `__getattr__`, which imports the module of a name, and `__dir__`.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module), name)

    return load, lambda: sorted(module_of)
