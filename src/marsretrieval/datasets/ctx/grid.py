"""Tile grid of a quad: exact decimal corners, and tile names derived from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Self

from marsretrieval import geo
from marsretrieval.datasets.ctx.mosaic import Quad
from marsretrieval.errors import UsageError
from marsretrieval.io import sha256_json

FORMATS = ("png", "jpeg")
_VERSION = 1  # raised whenever the same request would give other pixels, names or annotations
_SMALLEST_DEG = Decimal("0.01")
_SIZES = (16, 4096)
# Columns of equal ground width have no short decimals; their edges are put on this grid (6 m).
_EQUAL_ASPECT_DECIMALS = 4


@dataclass(frozen=True)
class TileSpec:
    """Tile specification. Two runs with equal specs produce the same tiles.

    Attributes:
        delta: Height of a tile in degrees, and its width unless `equal_aspect`; divides 4.
        size: Width and height of an image in pixels.
        format: Image format, `png` or `jpeg`.
        equal_aspect: Widen tiles in longitude by about 1 / cos(latitude), so that a whole number of
            tiles fills the quad.
        exact: Reproduce the published tiles, with no-data as in those (1, not 0).
        drop_below: Minimum share of pixels with data (0 to 1); other tiles are left out.
        clip: Leave out tiles that do not overlap this box.

    Raises:
        UsageError: If a value is out of range, or two options exclude each other.
    """

    delta: Decimal = Decimal("0.2")
    size: int = 512
    format: str = "png"
    equal_aspect: bool = False
    exact: bool = False
    drop_below: float = 0.0
    clip: geo.Box | None = None

    @classmethod
    def of(cls, delta: str | float, **others: Any) -> Self:
        """Create a spec from the tile height as given on the command line.

        Args:
            delta: Tile height in degrees.
            **others: Other fields.

        Returns:
            The spec.

        Raises:
            UsageError: If `delta` is not a number, or a value is invalid.
        """
        try:
            return cls(delta=Decimal(str(delta)), **others)
        except InvalidOperation as error:
            raise UsageError(
                f"--delta {delta}: not a number", remedy="Give degrees, such as 0.2."
            ) from error

    def __post_init__(self) -> None:
        if not self.delta.is_finite() or not self.delta > 0 or geo.QUAD_DEG % self.delta:
            raise UsageError(
                f"--delta {self.delta}: does not divide {geo.QUAD_DEG} degrees",
                remedy="Use a divisor of 4 degrees, such as 0.05, 0.1, 0.2, 0.25, 0.5 or 1.",
            )
        if self.delta < _SMALLEST_DEG:
            raise UsageError(
                f"--delta {self.delta}: smaller than {_SMALLEST_DEG} degrees",
                remedy="Give a larger size of a tile.",
            )
        if not _SIZES[0] <= self.size <= _SIZES[1]:
            raise UsageError(f"--size {self.size}: not within {_SIZES[0]}..{_SIZES[1]} pixels")
        if self.format not in FORMATS:
            raise UsageError(
                f"--format {self.format}: unknown", remedy=f"Use {' or '.join(FORMATS)}."
            )
        if self.exact and self.format != "png":
            raise UsageError(
                "--exact requires --format png: JPEG changes the pixels",
                remedy="Add --format png, or omit --exact.",
            )
        if not 0 <= self.drop_below <= 1:
            raise UsageError(
                f"--drop-empty {self.drop_below}: not a share within 0..1",
                remedy="Give a decimal number, such as 0.5.",
            )

    @cached_property
    def hash(self) -> str:
        """Hash of every option that affects the tiles."""
        return sha256_json(self.to_dict())

    def to_dict(self) -> Mapping[str, Any]:
        """Return the options as plain data for JSON."""
        clip = self.clip
        return {
            "version": _VERSION,
            "delta": float(self.delta),
            "size": self.size,
            "format": self.format,
            "equal_aspect": self.equal_aspect,
            "exact": self.exact,
            "drop_below": self.drop_below,
            "clip": clip and [clip.west, clip.south, clip.east, clip.north],
        }

    @property
    def extension(self) -> str:
        """File name extension of the images."""
        return "jpg" if self.format == "jpeg" else "png"


@dataclass(frozen=True, slots=True)
class Tile:
    """Name and edges of a tile.

    Attributes:
        name: Tile name, derived from the south-west corner.
        west: West edge in degrees.
        south: South edge in degrees.
        east: East edge in degrees; 180 in the last column before the antimeridian.
        north: North edge in degrees.
    """

    name: str
    west: float
    south: float
    east: float
    north: float


def tile_rows(quad: Quad, spec: TileSpec) -> list[list[Tile]]:
    """List the tiles of a quad by row.

    Args:
        quad: The quad.
        spec: Tile specification.

    Returns:
        Rows from north to south, each from west to east. Rows without a tile in `spec.clip` are
        left out.
    """
    rows = []
    for number in reversed(range(int(geo.QUAD_DEG / spec.delta))):
        south = quad.south + number * spec.delta
        columns = _column_edges(south, spec)
        row = [
            _tile(quad.west + west, south, quad.west + east, spec)
            for west, east in pairwise(columns)
        ]
        if spec.clip is not None:
            row = [
                tile
                for tile in row
                if geo.Box(tile.west, tile.south, tile.east, tile.north).overlaps(spec.clip)
            ]
        if row:
            rows.append(row)
    return rows


def tile_count(quad: Quad, spec: TileSpec) -> int:
    """Count the tiles of a quad.

    Args:
        quad: The quad.
        spec: Tile specification.

    Returns:
        Number of tiles that `tile_rows` lists.
    """
    if spec.clip is not None:
        return sum(map(len, tile_rows(quad, spec)))
    return _full_count(quad.south, spec)


@lru_cache(maxsize=256)
def _full_count(quad_south: int, spec: TileSpec) -> int:
    rows = range(int(geo.QUAD_DEG / spec.delta))
    return sum(len(_column_edges(quad_south + row * spec.delta, spec)) - 1 for row in rows)


def _column_edges(south: Decimal, spec: TileSpec) -> list[Decimal]:
    """Return column edges in degrees from the quad's west edge."""
    columns = int(geo.QUAD_DEG / spec.delta)
    if not spec.equal_aspect:
        return [number * spec.delta for number in range(columns + 1)]
    columns = max(1, round(columns * math.cos(math.radians(float(south + spec.delta / 2)))))
    side = Decimal(geo.QUAD_DEG)
    return [round(side * number / columns, _EQUAL_ASPECT_DECIMALS) for number in range(columns + 1)]


def _tile(west: Decimal, south: Decimal, east: Decimal, spec: TileSpec) -> Tile:
    finest = spec.delta
    if spec.equal_aspect:
        finest = min(finest, Decimal(1).scaleb(-_EQUAL_ASPECT_DECIMALS), key=_exponent)
    name = geo.tile_name(float(west), float(south), float(finest))
    return Tile(name, float(west), float(south), float(east), float(south + spec.delta))


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # finite: checked when the spec was made
    return exponent
