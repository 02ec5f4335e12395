"""Inventories: marks on a store's tiles, a learned ranking, audits and estimates."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsretrieval.inventory.files import (
        InventoryError,
        InventoryFiles,
        Mark,
        inventory_path,
    )
    from marsretrieval.inventory.inventory import Answer, Inventory, NextTiles
    from marsretrieval.inventory.summary import estimate_files

__all__ = [
    "Answer",
    "Inventory",
    "InventoryError",
    "InventoryFiles",
    "Mark",
    "NextTiles",
    "estimate_files",
    "inventory_path",
]

_HOMES = {
    "files": ("InventoryError", "InventoryFiles", "Mark", "inventory_path"),
    "inventory": ("Answer", "Inventory", "NextTiles"),
    "summary": ("estimate_files",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
