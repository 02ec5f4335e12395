"""Names that carry positions: tiles (`E137_2_N_4_6.png`) and quads of the Murray Lab mosaic.

Both name the south-west corner. In a tile's name the decimal dot and the minus sign are
underscores: `E_4_0_N_4_0` lies at 4.0 W, 4.0 S.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

from marsretrieval.geo.sphere import wrap_lon

TILE_DEG = 0.2
QUAD_DEG = 4

_PUBLISHED = re.compile(r"E(_?)(\d+_\d+)_N(_?)(\d+_\d+)\.png")
_TILE = re.compile(r"E(_?)(\d+(?:_\d+)?)_N(_?)(\d+(?:_\d+)?)(?:\.[A-Za-z0-9]+)?")
_QUAD = re.compile(r"(?<![A-Za-z0-9])E(-?\d{1,3})_N(-?\d{1,2})(?!\d)")


def parse_tile_name(name: str) -> tuple[float, float] | None:
    """(lon, lat) that the published code reads from a file name: the south-west corner.

    None where it reads none: without `.png`, or without a decimal part.
    """
    found = _PUBLISHED.fullmatch(PurePosixPath(name).name)
    return _corner(found) if found else None


def tile_corner(name: str) -> tuple[float, float] | None:
    """(lon, lat) of the south-west corner, also from a WebDataset key (no extension), another
    image format, or whole degrees. None where the name is no tile name or lies off the planet."""
    found = _TILE.fullmatch(PurePosixPath(name).name)
    if not found:
        return None
    lon, lat = _corner(found)
    return (lon, lat) if -180 <= lon <= 360 and -90 <= lat <= 90 else None


def tile_centre(name: str, delta: float = TILE_DEG) -> tuple[float, float] | None:
    """(lon, lat) of the centre of a tile `delta` degrees wide and high, lon in -180..180."""
    corner = tile_corner(name)
    if corner is None:
        return None
    lon = float(wrap_lon(round(corner[0] + delta / 2, 9)))
    return lon, round(corner[1] + delta / 2, 9)


def tile_name(lon: float, lat: float, delta: float = TILE_DEG) -> str:
    """Name, without extension, of the tile whose south-west corner is at `lon`, `lat`.

    It has as many decimals as `delta` needs, and at least one, so that every reader finds the
    corner again; with `delta` 0.2 it is the published name.
    """
    decimals = max(1, _decimals(delta))
    return f"E{_spelled(lon, decimals)}_N{_spelled(lat, decimals)}"


@lru_cache(maxsize=4096)
def parse_quad_name(name: str) -> tuple[int, int] | None:
    """(lon, lat) of the south-west corner of a quad, from the name of its GeoTIFF or zip.

    `MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif` and `MurrayLab_GlobalCTXMosaic_V01_E-004_N-04.zip`
    give (-4, -4). None where the name holds no quad of this planet.
    """
    found = _QUAD.search(PurePosixPath(name).name)
    if not found:
        return None
    lon, lat = int(found[1]), int(found[2])
    return (lon, lat) if -180 <= lon <= 180 and -90 <= lat < 90 else None


def quad_name(lon: float, lat: float) -> str:
    """The part `E-004_N-04` of the name of the quad that holds a point (88 S to 88 N)."""
    wrapped = lon if -180 <= lon < 180 else float(wrap_lon(lon))
    west = int(wrapped // QUAD_DEG) * QUAD_DEG
    south = int(lat // QUAD_DEG) * QUAD_DEG
    return f"E{_padded(west, 3)}_N{_padded(south, 2)}"


def _corner(found: re.Match[str]) -> tuple[float, float]:
    values = []
    for sign, number in ((found[1], found[2]), (found[3], found[4])):
        value = float(number.replace("_", "."))
        values.append(-value if sign and value else value)
    return values[0], values[1]


def _decimals(delta: float) -> int:
    text = f"{delta:.9f}".rstrip("0")
    return len(text.partition(".")[2])


def _spelled(value: float, decimals: int) -> str:
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no negative zero
    return text.replace("-", "_").replace(".", "_")


def _padded(value: int, width: int) -> str:
    return f"{'-' if value < 0 else ''}{abs(value):0{width}d}"
