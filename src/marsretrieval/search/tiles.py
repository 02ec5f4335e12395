"""Tiles of a store by their ids, or by where they lie."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import UsageError
from marsretrieval.search.index.find import known_of

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_EDGE_DEG = 1e-6  # an edge written in decimals belongs to the tile
_NEAR_DEG = 0.5  # a position is that of a tile no further away, where extents are unknown
_GUESSES = 3
_IMAGE = re.compile(r"\.(png|jpe?g|tiff?|webp)$", re.IGNORECASE)


def rows_of(store: EmbeddingStore, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """The row of each id, (n,); its first where an id is there twice.

    The extension of an image file may be left on. Raises UsageError for an id that is not in the
    store, with the nearest that are: by place for the name of a tile, else by spelling.
    """
    known = known_of(store)
    rows = np.full(len(ids), -1, dtype=np.int64)
    for number, name in enumerate(ids):
        rows[number] = known.find(name)
        if rows[number] < 0 and _IMAGE.search(name):
            rows[number] = known.find(_IMAGE.sub("", name))
    for name, row in zip(ids, rows.tolist(), strict=True):
        if row < 0:
            near = _alike(store, name)
            raise UsageError(
                f"{store.path} holds no tile '{name}'",
                remedy=f"Did you mean {' or '.join(near)}?" if near else
                "`--json` of a search lists ids; a position finds a tile too (LON,LAT).",
            )  # fmt: skip
    return rows


def row_at(store: EmbeddingStore, lon: float, lat: float) -> int:
    """The row of the tile that holds a position: of several, the one whose centre is nearest.

    A tile whose extent is unknown holds what is within half a degree. Raises UsageError where no
    tile holds it, naming the nearest.
    """
    if not (np.isfinite(lon) and -360 <= lon <= 360 and -90 <= lat <= 90):
        raise UsageError(
            f"{lon:g},{lat:g} is no position on Mars",
            remedy="Give longitude and latitude in degrees, east positive, such as 137.4,-4.6.",
        )
    known = known_of(store)
    (x, y), (width, height) = known.positions().T, known.extents().T
    distance = geo.great_circle_deg(lon, lat, x, y)
    if not np.isfinite(distance).any():
        raise UsageError(f"no tile of {store.path} has a known position")
    across, upward = np.abs(geo.wrap_lon(x - lon)), np.abs(y - lat)
    holds = (across <= width / 2 + _EDGE_DEG) & (upward <= height / 2 + _EDGE_DEG)
    holds |= ~np.isfinite(width + height) & (distance <= _NEAR_DEG)
    if not holds.any():
        nearest = int(np.nanargmin(distance))
        raise UsageError(
            f"no tile of {store.path} holds {lon:g},{lat:g}",
            remedy=f"The nearest is {known.ids(nearest)[0]} at {x[nearest]:.4g},{y[nearest]:.4g}, "
            f"{distance[nearest]:.3g} degrees away.",
        )
    # Not simply the nearest centre: beside a corner that may be a neighbour's, or a smaller tile's.
    return int(np.argmin(np.where(holds, distance, np.inf)))


def parse_lonlat(text: str) -> tuple[float, float]:
    """From "LON,LAT". Raises UsageError."""
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"'{text}' is no position",
            remedy="Give longitude and latitude in degrees, such as 137.4,-4.6.",
        ) from error
    return lon, lat


def _alike(store: EmbeddingStore, name: str) -> list[str]:
    """Ids nearest to one that is not there, the nearest first."""
    centre = geo.tile_centre(name)
    if centre is not None:
        known = known_of(store)
        lon, lat = known.positions().T
        distance = geo.great_circle_deg(*centre, lon, lat)
        rows = np.argsort(distance, kind="stable")[:_GUESSES]
        rows = rows[np.isfinite(distance[rows])]
        if len(rows):
            return known.ids(rows)
    return difflib.get_close_matches(name, _candidates(store, name), n=_GUESSES, cutoff=0.5)


def _candidates(store: EmbeddingStore, name: str) -> Iterator[str]:
    """Ids to compare with: all of a small store, of a large one those that begin alike."""
    import pyarrow.compute as pc

    small = store.rows <= 20_000
    for block in store.blocks():
        column = block.column("id")
        if not small:
            column = column.filter(pc.starts_with(column, pattern=name[:6]))
        yield from column.to_pylist()


def rows_below(store: EmbeddingStore, min_valid: float | None) -> npt.NDArray[np.bool_] | None:
    """Find the tiles with too little data.

    Args:
        store: The store.
        min_valid: Least share of a tile with data, 0 to 1. Tiles whose share is unknown count as
            below any share above 0. None: tiles known to have no data at all.

    Returns:
        Booleans of shape (rows,); None if no tile is below.

    Raises:
        UsageError: If the share is out of range, or the store holds no shares.
    """
    if min_valid is not None and not 0 <= min_valid <= 1:
        raise UsageError(
            f"min_valid is {min_valid:g}", remedy="Use a share of the tile from 0 to 1."
        )
    if min_valid == 0:
        return None
    valid = known_of(store).valid()
    if min_valid is None:
        below = valid == 0
    elif np.isfinite(valid).any():
        # As the store rounds shares, to float32.
        below = ~(valid >= float(np.float32(min_valid)))
    else:
        raise UsageError(
            f"{store.path} holds no shares of data, which min_valid needs",
            remedy="Embed tiles whose JSON has `valid` (marsretrieval data tiles writes it), "
            "with --force if the store is older than that.",
        )
    return below if below.any() else None
