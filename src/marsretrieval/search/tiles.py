"""Look up tiles of a store by id, by position, or by their share of data."""

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

_EDGE_DEG = 1e-6  # tolerance for edges rounded to decimals
_NEAR_DEG = 0.5  # radius of a tile of unknown extent
_GUESSES = 3
_POSITION = re.compile(r"\s*[-+]?[\d.]+\s*,\s*[-+]?[\d.]+\s*")
_IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|tiff?|webp)$", re.IGNORECASE)


def rows_of(
    store: EmbeddingStore, ids: Sequence[str], *, sources: Sequence[str | None] = ()
) -> npt.NDArray[np.int64]:
    """Return the row of each id.

    An image file extension is ignored.

    Args:
        store: The store.
        ids: n ids.
        sources: File and line of each id, for the message; n or none.

    Returns:
        int64 array of shape (n,); the first row of a repeated id.

    Raises:
        UsageError: If an id is not in the store. The message suggests the nearest tiles if the id
            is a tile name, else the ids with the most similar spelling.
    """
    reader = known_of(store)
    rows = np.full(len(ids), -1, dtype=np.int64)
    for number, name in enumerate(ids):
        if not isinstance(name, str):
            raise UsageError(
                f"{name!r} is not the id of a tile",
                remedy="Give the id as text; a position is similar_to_location=(lon, lat).",
            )
        rows[number] = reader.find(name)
        if rows[number] < 0 and _IMAGE_SUFFIX.search(name):
            rows[number] = reader.find(_IMAGE_SUFFIX.sub("", name))
    for number, name in enumerate(ids):
        if rows[number] < 0:
            suggestions = _similar_ids(store, name)
            source = sources[number] if sources else None
            raise UsageError(
                f"{'' if source is None else f'{source}: '}{store.path} holds no tile '{name}'",
                remedy=_missing_id_remedy(name, suggestions),
            )
    return rows


def tile_names(store: EmbeddingStore, rows: Sequence[int]) -> list[str]:
    """Return the names by which `rows_of` finds tiles.

    Args:
        store: The store.
        rows: n row numbers.

    Returns:
        n ids; ``STORE:ID`` for several stores.
    """
    ids, stores = known_of(store).ids(rows), store.store_names(rows)
    if stores is None:
        return ids
    return [f"{name}:{tile}" for name, tile in zip(stores, ids, strict=True)]


def row_at(store: EmbeddingStore, lon: float, lat: float) -> int:
    """Return the row of the tile that contains a position.

    If several tiles contain it, the one with the nearest centre is returned. A tile of unknown
    extent contains positions within half a degree of its centre.

    Args:
        store: The store.
        lon: Longitude in degrees, east positive.
        lat: Latitude in degrees.

    Returns:
        The row.

    Raises:
        UsageError: If the position is invalid or no tile contains it (with the nearest tile).
    """
    if not (np.isfinite(lon) and -360 <= lon <= 360 and -90 <= lat <= 90):
        raise UsageError(
            f"{lon:g},{lat:g} is not a position on Mars",
            remedy="Give longitude and latitude in degrees, east positive, such as 137.4,-4.6.",
        )
    reader = known_of(store)
    (x, y), (width, height) = reader.positions().T, reader.extents().T
    distance = geo.great_circle_deg(lon, lat, x, y)
    if not np.isfinite(distance).any():
        raise UsageError(
            f"no tile of {store.path} has a known position",
            remedy="Embed tiles with positions in their names, metadata or georeference.",
        )
    lon_offset, lat_offset = np.abs(geo.wrap_lon(x - lon)), np.abs(y - lat)
    holds = (lon_offset <= width / 2 + _EDGE_DEG) & (lat_offset <= height / 2 + _EDGE_DEG)
    holds |= ~np.isfinite(width + height) & (distance <= _NEAR_DEG)
    if not holds.any():
        nearest = int(np.nanargmin(distance))
        raise UsageError(
            f"no tile of {store.path} holds {lon:g},{lat:g}",
            remedy=f"The nearest is {reader.ids(nearest)[0]} at {x[nearest]:.4g},{y[nearest]:.4g}, "
            f"{distance[nearest]:.3g} degrees away.",
        )
    # The nearest centre alone is not enough: near a corner it may be a neighbour's.
    return int(np.argmin(np.where(holds, distance, np.inf)))


def parse_lonlat(text: str) -> tuple[float, float]:
    """Parse a position.

    Args:
        text: `LON,LAT` in degrees.

    Returns:
        Longitude and latitude.

    Raises:
        UsageError: If the text is not two numbers.
    """
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"'{text}' is not a position",
            remedy="Give longitude and latitude in degrees, such as 137.4,-4.6.",
        ) from error
    return lon, lat


def _missing_id_remedy(name: str, suggestions: Sequence[str]) -> str:
    if suggestions:
        return f"Did you mean {' or '.join(suggestions)}?"
    if _POSITION.fullmatch(name):
        return (
            "This is a position, not an id: only `search --similar-to-location=LON,LAT` "
            "selects a tile by position."
        )
    return "List the ids with `marsretrieval search --json` or `marsretrieval store export`."


def _similar_ids(store: EmbeddingStore, name: str) -> list[str]:
    """Return the ids nearest to a missing one, by position or spelling."""
    centre = geo.tile_centre(name)
    if centre is not None:
        reader = known_of(store)
        lon, lat = reader.positions().T
        distance = geo.great_circle_deg(*centre, lon, lat)
        rows = np.argsort(distance, kind="stable")[:_GUESSES]
        rows = rows[np.isfinite(distance[rows])]
        if len(rows):
            return reader.ids(rows)
    return difflib.get_close_matches(name, _ids_to_compare(store, name), n=_GUESSES, cutoff=0.5)


def _ids_to_compare(store: EmbeddingStore, name: str) -> Iterator[str]:
    """Yield all ids of a small store, or those of a large store with the same prefix."""
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
        # Rounded to float32 as in the store.
        below = ~(valid >= float(np.float32(min_valid)))
    else:
        raise UsageError(
            f"{store.path} has no shares of valid data, which min_valid needs",
            remedy="Embed tiles whose JSON has `valid` (marsretrieval data tiles writes it), "
            "with --force if the store is older than that.",
        )
    return below if below.any() else None


def searched_extent(store: EmbeddingStore, region: geo.Region | None = None) -> list[float] | None:
    """Return the bounding box of the tiles of a store.

    Args:
        store: The store.
        region: Use only tiles whose centre lies in it.

    Returns:
        West, south, east, north in degrees, the footprints included; west > east across the
        antimeridian. None if no position is known or the tiles span more than 180 degrees.
    """
    reader = known_of(store)
    (lon, lat), (width, height) = reader.positions().T, reader.extents().T
    selected = np.isfinite(lon) & np.isfinite(lat)
    if region is not None:
        selected &= region.contains(lon, lat)
    if not selected.any():
        return None
    lon, lat = lon[selected], lat[selected]
    half_width, half_height = (
        np.nan_to_num(values[selected].astype(np.float64)) / 2 for values in (width, height)
    )
    # Relative to one tile, so that a box across the antimeridian has no gap.
    offset = geo.wrap_lon(lon - lon[0])
    west, east = float((offset - half_width).min()), float((offset + half_width).max())
    if east - west > 180:
        return None
    south = max(float((lat - half_height).min()), -90.0)
    north = min(float((lat + half_height).max()), 90.0)
    edges = (float(geo.wrap_lon(lon[0] + west)), south, float(geo.wrap_lon(lon[0] + east)), north)
    return [round(edge, 6) for edge in edges]
