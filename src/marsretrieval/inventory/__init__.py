"""Inventories: marks on a store's tiles, a learned ranking, audits and estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.inventory.answers import Answer
    from marsretrieval.inventory.files import (
        InventoryError,
        InventoryFiles,
        InventoryInUseError,
        Mark,
        inventory_path,
    )
    from marsretrieval.inventory.inventory import Inventory, NextTiles
    from marsretrieval.inventory.summary import estimate_files

__all__ = [
    "Answer",
    "Inventory",
    "InventoryError",
    "InventoryFiles",
    "InventoryInUseError",
    "Mark",
    "NextTiles",
    "estimate_files",
    "inventory_path",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.inventory.answers": ("Answer",),
        "marsretrieval.inventory.files": (
            "InventoryError",
            "InventoryFiles",
            "InventoryInUseError",
            "Mark",
            "inventory_path",
        ),
        "marsretrieval.inventory.inventory": ("Inventory", "NextTiles"),
        "marsretrieval.inventory.summary": ("estimate_files",),
    },
)
