"""Parse and format names that carry positions: tiles and quads of the Murray Lab CTX mosaic.

Both name the south-west corner. In tile names (`E137_2_N_4_6.png`) the decimal point and the
minus sign are underscores: `E_4_0_N_4_0` lies at 4.0 W, 4.0 S.
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
    """Read the south-west corner from a file name as the published code does.

    Args:
        name: File name or path.

    Returns:
        Longitude and latitude in degrees; None without `.png` or without decimals.
    """
    match = _PUBLISHED.fullmatch(PurePosixPath(name).name)
    return _corner(match) if match else None


def tile_corner(name: str) -> tuple[float, float] | None:
    """Read the south-west corner from a tile name.

    WebDataset keys (no extension), other image formats and whole degrees are accepted.

    Args:
        name: Tile name, file name or path.

    Returns:
        Longitude and latitude in degrees; None if it is not a tile name or out of range.
    """
    match = _TILE.fullmatch(PurePosixPath(name).name)
    if not match:
        return None
    lon, lat = _corner(match)
    return (lon, lat) if -180 <= lon <= 360 and -90 <= lat <= 90 else None


def tile_centre(name: str, delta: float = TILE_DEG) -> tuple[float, float] | None:
    """Read the centre from a tile name.

    Args:
        name: Tile name, file name or path.
        delta: Tile size in degrees.

    Returns:
        Longitude (-180..180) and latitude in degrees; None if it is not a tile name.
    """
    corner = tile_corner(name)
    if corner is None:
        return None
    lon = float(wrap_lon(round(corner[0] + delta / 2, 9)))
    return lon, round(corner[1] + delta / 2, 9)


def tile_name(lon: float, lat: float, delta: float = TILE_DEG) -> str:
    """Format the name of a tile, without extension.

    It has as many decimals as `delta` needs, at least one, so that the corner can be read back.
    With `delta` 0.2 it is the published name.

    Args:
        lon: Longitude of the south-west corner, degrees.
        lat: Latitude of the south-west corner, degrees.
        delta: Tile size in degrees.

    Returns:
        The name.
    """
    decimals = max(1, _decimals(delta))
    return f"E{_format_degrees(lon, decimals)}_N{_format_degrees(lat, decimals)}"


@lru_cache(maxsize=4096)
def parse_quad_name(name: str) -> tuple[int, int] | None:
    """Read the south-west corner from the name of a quad's GeoTIFF or zip.

    `MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif` and `MurrayLab_GlobalCTXMosaic_V01_E-004_N-04.zip`
    give (-4, -4).

    Args:
        name: File name or path.

    Returns:
        Longitude and latitude in degrees; None if it contains no valid quad.
    """
    match = _QUAD.search(PurePosixPath(name).name)
    if not match:
        return None
    lon, lat = int(match[1]), int(match[2])
    return (lon, lat) if -180 <= lon <= 180 and -90 <= lat < 90 else None


def quad_name(lon: float, lat: float) -> str:
    """Format the name of the quad that contains a position, such as `E-004_N-04`.

    Args:
        lon: Longitude in degrees.
        lat: Latitude in degrees, 88 S to 88 N.

    Returns:
        The name.
    """
    wrapped = lon if -180 <= lon < 180 else float(wrap_lon(lon))
    west = int(wrapped // QUAD_DEG) * QUAD_DEG
    south = int(lat // QUAD_DEG) * QUAD_DEG
    return f"E{_pad(west, 3)}_N{_pad(south, 2)}"


def _corner(match: re.Match[str]) -> tuple[float, float]:
    values = []
    for sign, number in ((match[1], match[2]), (match[3], match[4])):
        value = float(number.replace("_", "."))
        values.append(-value if sign and value else value)
    return values[0], values[1]


def _decimals(delta: float) -> int:
    text = f"{delta:.9f}".rstrip("0")
    return len(text.partition(".")[2])


def _format_degrees(value: float, decimals: int) -> str:
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no negative zero
    return text.replace("-", "_").replace(".", "_")


def _pad(value: int, width: int) -> str:
    return f"{'-' if value < 0 else ''}{abs(value):0{width}d}"
