"""Hits of a search over several stores: every hit names its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from marsretrieval.search.hits import Hit, Hits


@dataclass(frozen=True, slots=True)
class StoreHit(Hit):
    """A hit of a search over several stores.

    Attributes:
        store: Name of the store that holds the tile.
    """

    store: str = ""

    def record(self) -> dict[str, Any]:
        """Return the fields of `Hit.record`, and `store` after the id."""
        row: dict[str, Any] = {}
        for name, value in Hit.record(self).items():
            row[name] = value
            if name == "id":
                row["store"] = self.store
        return row


@dataclass(frozen=True, slots=True, eq=False)
class StoreHits(Hits):
    """Hits of several stores in descending score order.

    Attributes:
        stores: Name of the store of each hit.
    """

    stores: list[str] = field(default_factory=list)

    @classmethod
    def from_hits(cls, hits: Hits, stores: Sequence[str]) -> StoreHits:
        """Add the stores to hits.

        Args:
            hits: n hits.
            stores: Name of the store of each hit.

        Returns:
            The hits with their stores.
        """
        return cls(**_fields(hits), stores=list(stores))

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        hit = Hits.__getitem__(self, index)
        values = {name: getattr(hit, name) for name in Hit.__slots__}
        return StoreHit(**values, store=self.stores[index])

    def merge(self, deg: float) -> StoreHits:
        """Merge hits within `deg` degrees of a better hit, also of different stores.

        Args:
            deg: As in `Hits.merge`.

        Returns:
            One hit per cluster, with the store of its best tile.

        Raises:
            UsageError: If `deg` is out of range.
        """
        numbers = [str(number) for number in range(len(self))]
        merged = Hits.merge(Hits(**{**_fields(self), "ids": numbers}), deg)
        best = [int(number) for number in merged.ids]
        ids = [self.ids[number] for number in best]
        return StoreHits(
            **{**_fields(merged), "ids": ids}, stores=[self.stores[number] for number in best]
        )

    def qualified(self) -> Hits:
        """Return plain hits with ids ``STORE:ID``, unique over the stores."""
        ids = [f"{store}:{name}" for store, name in zip(self.stores, self.ids, strict=True)]
        return Hits(**{**_fields(self), "ids": ids})


def hits_for_files(hits: Hits) -> Hits:
    """Return the hits to write to a file: those of several stores with ids ``STORE:ID``.

    Args:
        hits: Hits of one or several stores.

    Returns:
        Hits of the class `Hits`.
    """
    return hits.qualified() if isinstance(hits, StoreHits) else hits


def _fields(hits: Hits) -> dict[str, Any]:
    return {name: getattr(hits, name) for name in Hits.__slots__}
