"""Group positive tiles into places."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.inventory.files import Mark


def group_nearby(lon: npt.ArrayLike, lat: npt.ArrayLike, deg: float) -> npt.NDArray[np.int64]:
    """Group positions into connected components: chains of positions closer than a distance.

    Args:
        lon: Longitudes in degrees, shape (n,); NaN if unknown.
        lat: Latitudes in degrees, shape (n,); NaN if unknown.
        deg: Great-circle distance in degrees.

    Returns:
        Number of the group of each position, shape (n,); unknown positions form groups of one.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    x, y = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    located = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    pairs = np.empty((0, 2), dtype=np.int64)
    if len(located):
        radius = 2 * np.sin(np.radians(deg) / 2) * (1 + 1e-12)
        tree = cKDTree(geo.unit_vectors(x[located], y[located]))
        pairs = located[tree.query_pairs(radius, output_type="ndarray").reshape(-1, 2)]
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(x), len(x)))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, dtype=np.int64)


class PlaceSizes:
    """Number of positive tiles of the place of each marked tile.

    Tiles marked yes form a place if they are connected. A size given with a mark counts if it is
    larger, because tiles of the place may be unmarked.

    Args:
        names: Tile ids, n of them.
        values: Their marks: yes or unsure.
        groups: Group of each tile, shape (n,).
        given: Size given with each mark; 0 if none.
    """

    def __init__(
        self,
        names: Sequence[str],
        values: Sequence[str],
        groups: npt.NDArray[np.int64],
        given: Sequence[int],
    ) -> None:
        self._group = dict(zip(names, groups.tolist(), strict=True))
        is_yes = np.array([value == "yes" for value in values], dtype=np.bool_)
        count = int(groups.max()) + 1 if len(groups) else 0
        connected = np.bincount(groups[is_yes], minlength=count)
        self._given = np.zeros(count, dtype=np.int64)
        np.maximum.at(self._given, groups, np.asarray(given, dtype=np.int64))
        self._sizes = np.maximum(np.maximum(connected, self._given), 1)
        self._confirmed = int((connected > 0).sum())

    @classmethod
    def from_marks(cls, marks: Sequence[Mark], deg: float) -> PlaceSizes:
        """Group marked tiles.

        Args:
            marks: Marks with yes or unsure, one per tile.
            deg: Distance below which two tiles belong to one place, in degrees.

        Returns:
            The sizes.
        """
        yes = [mark for mark in marks if mark.mark == "yes"]
        others = [mark for mark in marks if mark.mark != "yes"]
        ordered = [*yes, *others]
        lon = [np.nan if mark.lon is None else mark.lon for mark in yes]
        lat = [np.nan if mark.lat is None else mark.lat for mark in yes]
        groups = group_nearby(lon, lat, deg)
        start = int(groups.max()) + 1 if len(groups) else 0
        groups = np.concatenate([groups, np.arange(start, start + len(others))])
        return cls(
            [mark.id for mark in ordered],
            [mark.mark for mark in ordered],
            groups,
            [mark.tiles or 0 for mark in ordered],
        )

    def of(self, name: str) -> int:
        """Return the number of positive tiles of a tile's place; 1 for a tile that is not marked.

        Args:
            name: Tile id.
        """
        group = self._group.get(name)
        return 1 if group is None else int(self._sizes[group])

    def group(self, name: str) -> int | None:
        """Return the number of a tile's place, from 0; None for a tile that is not marked.

        Args:
            name: Tile id.
        """
        return self._group.get(name)

    @property
    def confirmed(self) -> int:
        """Number of places with a tile marked yes."""
        return self._confirmed

    def count_assumed(self, names: Collection[str]) -> int:
        """Count the tiles whose place has no given size, so that the marked tiles define it.

        Args:
            names: Tile ids.
        """
        return sum(
            (group := self._group.get(name)) is None or not self._given[group] for name in names
        )
