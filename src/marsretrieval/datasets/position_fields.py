"""Position of a tile: fields of a JSON object or table row, or the tile's published name."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from marsretrieval import geo

_ROUNDING = 1e-9
_TOLERANCE = 1e-6  # degrees: centres and bounds are written with few decimals
_WIDEST = 180.0
LON_NAMES, LAT_NAMES = ("lon", "longitude", "lng"), ("lat", "latitude")
_BOUNDS, _CENTRES = ("bounds", "bbox"), ("center", "centre")
POSITION_FIELDS = (*LON_NAMES, *LAT_NAMES, *_BOUNDS, *_CENTRES, "width_deg", "height_deg")
_EDGES = (
    ("west", "south", "east", "north"),
    ("left", "bottom", "right", "top"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("min_lon", "min_lat", "max_lon", "max_lat"),
    ("lon_min", "lat_min", "lon_max", "lat_max"),
)
# A `bbox` beside one of these is a box of pixels, as COCO annotates objects.
_OF_PIXELS = ("category_id", "segmentation", "iscrowd")
_GEOMETRIES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
)  # fmt: skip
_MOST_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Centre and extent in degrees, longitude in -180..180; what is not known is None."""

    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None
    height_deg: float | None = None


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Position:
    """A position as a file states it, in degrees and not checked yet.

    bounds: west, south, east, north. centre: longitude, latitude. size: width, height.
    """

    bounds: tuple[float, ...] | None = None
    centre: tuple[float, ...] | None = None
    size: tuple[float, ...] | None = None

    def __bool__(self) -> bool:
        return self.bounds is not None or self.centre is not None


def place_of(
    key: str,
    bounds: tuple[float, ...] | None = None,
    centre: tuple[float, ...] | None = None,
    size: tuple[float, ...] | None = None,
) -> Place:
    """Check a position, or take the one of a tile's published name.

    Longitudes may be -180..180 or 0..360; bounds whose east is less than their west cross the
    antimeridian.

    Args:
        key: Name of the tile; its position counts without `bounds` and `centre`.
        bounds: West, south, east, north in degrees.
        centre: Longitude and latitude; with `bounds`, it must lie within them.
        size: Width and height in degrees, for a centre without bounds.

    Returns:
        The place; `NOWHERE` if nothing states one.

    Raises:
        ValueError: If the numbers contradict each other or are no position on a planet.
    """
    if bounds is not None:
        return _of_bounds(bounds, centre)
    if centre is not None:
        return Place(*_centre(*centre), *_extent(size))
    name = PurePosixPath(key).name
    corner, middle = geo.tile_corner(name), geo.tile_centre(name)
    if corner is None or middle is None:
        return NOWHERE
    if not (_on_planet(*corner) and _on_planet(corner[0], corner[1] + geo.TILE_DEG)):
        return NOWHERE
    return Place(*middle, geo.TILE_DEG, geo.TILE_DEG)


def _of_bounds(bounds: tuple[float, ...], centre: tuple[float, ...] | None) -> Place:
    west, south, east, north = bounds
    shown = ", ".join(f"{value:.10g}" for value in bounds)
    if not (_on_planet(west, south) and _on_planet(east, north)):
        raise ValueError(f"bounds {shown} are no position on a planet in degrees")
    if south >= north:
        raise ValueError(f"bounds {shown}: south {south:g} is not below north {north:g}")
    if east == west:
        raise ValueError(f"bounds {shown}: east and west are the same")
    width = east - west if east > west else east - west + 360
    if width > _WIDEST + _TOLERANCE:
        what = f"footprint {width:g} degrees wide, more than {_WIDEST:g}"
        if east < west:
            what = f"east {east:g} lies before west {west:g}"
        raise ValueError(f"bounds {shown}: {what}")
    lon, lat = west + width / 2, (south + north) / 2
    if centre is not None:
        off_lon = abs(float(geo.wrap_lon(centre[0] - lon)))
        off_lat = abs(centre[1] - lat)
        if not (off_lon <= width / 2 + _TOLERANCE and off_lat <= (north - south) / 2 + _TOLERANCE):
            raise ValueError(
                f"centre {centre[0]:.10g}, {centre[1]:.10g} lies outside of the bounds {shown}"
            )
        if off_lon <= _TOLERANCE and off_lat <= _TOLERANCE:
            lon, lat = centre  # as it is written, without the rounding errors of the middle
    return Place(*_centre(lon, lat), width, north - south)


def _extent(size: tuple[float, ...] | None) -> tuple[float | None, float | None]:
    if size is None:
        return None, None
    width, height = size
    if not (0 < width <= _WIDEST and 0 < height <= 180):
        raise ValueError(f"footprint of {width:g} x {height:g} degrees (0 to 180 is expected)")
    return width, height


def _centre(lon: float, lat: float) -> tuple[float, float]:
    if not _on_planet(lon, lat):
        raise ValueError(f"centre {lon:.10g}, {lat:.10g} is no position on a planet in degrees")
    return float(geo.wrap_lon(lon)), lat


def _on_planet(lon: float, lat: float) -> bool:
    return (
        math.isfinite(lon)
        and -180 - _ROUNDING <= lon <= 360 + _ROUNDING
        and abs(lat) <= 90 + _ROUNDING
    )


def position_of(fields: Mapping[str, Any]) -> Position:
    """Find the position that an object or row states.

    Args:
        fields: `bounds` or `bbox` (four numbers, six with heights, a string of four, two corners,
            or an object of edges); `center` or `centre` (two numbers, a string, or an object);
            `lon` and `lat` or `longitude` and `latitude`, with `width_deg` and `height_deg`;
            `geometry` (GeoJSON). Names in any case.

    Returns:
        The position, empty where there is none.

    Raises:
        ValueError: If a field is not of this form.
    """
    known = {str(name).lower(): value for name, value in fields.items() if not _empty(value)}
    if any(name in known for name in _OF_PIXELS):
        known.pop("bbox", None)
    bounds = next((_bounds(name, known[name]) for name in _BOUNDS if name in known), None)
    geometry = known.get("geometry")
    points = [] if geometry is None else list(_points(geometry))
    centre = next((_pair(name, known[name]) for name in _CENTRES if name in known), None)
    if bounds is None and len(points) > 1:
        bounds = _around(points)
    elif centre is None and len(points) == 1:
        centre = points[0]
    return Position(bounds, centre or _lonlat(known), _size(known))


def unwrap_feature(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge a GeoJSON Feature into plain fields: its properties, and its geometry and bbox.

    Args:
        fields: A JSON object. A FeatureCollection of one feature counts as that feature, a bare
            geometry as a feature without properties.

    Raises:
        ValueError: If it holds several features.
    """
    kind = fields.get("type")
    if kind == "FeatureCollection":
        features = fields.get("features")
        if not isinstance(features, list) or len(features) != 1:
            count = len(features) if isinstance(features, list) else 0
            raise ValueError(f"a FeatureCollection of {count} features, one is expected")
        return unwrap_feature(features[0]) if isinstance(features[0], Mapping) else {}
    if kind == "Feature":
        properties = fields.get("properties")
        inner = dict(properties) if isinstance(properties, Mapping) else {}
        return {**inner, **{k: fields[k] for k in ("geometry", "bbox") if fields.get(k)}}
    if kind in _GEOMETRIES and "coordinates" in fields:
        return {"geometry": fields}
    return fields


def number_of(value: Any) -> float | None:
    """Convert a number, or a string that spells one, to a finite float; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    try:
        number = float(value) if not isinstance(value, bool | bytes) else None
    except (TypeError, ValueError, OverflowError):
        return None
    # False for NaN.
    return number if number is not None and abs(number) <= sys.float_info.max else None


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _numbers(value: Any) -> list[float] | None:
    parts = value.replace(";", ",").split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or isinstance(parts, str | bytes):
        return None
    numbers = [number_of(part) for part in parts]
    return [number for number in numbers if number is not None] if None not in numbers else None


def _bounds(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, Mapping):
        lower = {str(key).lower(): part for key, part in value.items()}
        edges = next((each for each in _EDGES if all(key in lower for key in each)), ())
        numbers = _numbers([lower[key] for key in edges])
    elif isinstance(value, list) and len(value) == 2 and all(isinstance(x, list) for x in value):
        numbers = _numbers([*value[0], *value[1]])
    else:
        numbers = _numbers(value)
    if numbers is not None and len(numbers) == 6:  # with heights, as GeoJSON allows
        numbers = [*numbers[:2], *numbers[3:5]]
    if numbers is None or len(numbers) != 4:
        raise ValueError(f"{name} should be west, south, east, north in degrees, not {value!r:.60}")
    return tuple(numbers)


def _pair(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, Mapping):
        found = _lonlat({str(key).lower(): part for key, part in value.items()})
        if found is None and {"x", "y"} <= value.keys():
            found = _pair(name, [value["x"], value["y"]])
        if found is not None:
            return found
    numbers = None if isinstance(value, Mapping) else _numbers(value)
    if numbers is None or len(numbers) not in (2, 3):
        raise ValueError(f"{name} should be longitude, latitude in degrees, not {value!r:.60}")
    return tuple(numbers[:2])


def _lonlat(known: Mapping[str, Any]) -> tuple[float, ...] | None:
    lon = next((name for name in LON_NAMES if not _empty(known.get(name))), None)
    lat = next((name for name in LAT_NAMES if not _empty(known.get(name))), None)
    if lon is None and lat is None:
        return None
    if lon is None or lat is None:
        raise ValueError(f"{lon or lat} without a {'longitude' if lon is None else 'latitude'}")
    numbers = _numbers([known[lon], known[lat]])
    if numbers is None:
        values = f"{known[lon]!r:.40}, {known[lat]!r:.40}"
        raise ValueError(f"{lon}, {lat} should be numbers in degrees, not {values}")
    return tuple(numbers)


def _size(known: Mapping[str, Any]) -> tuple[float, ...] | None:
    if "width_deg" not in known or "height_deg" not in known:
        return None
    numbers = _numbers([known["width_deg"], known["height_deg"]])
    if numbers is None:
        raise ValueError(
            f"width_deg, height_deg should be numbers, not {known['width_deg']!r:.40}, "
            f"{known['height_deg']!r:.40}"
        )
    return tuple(numbers)


def _points(geometry: Any) -> Iterator[tuple[float, float]]:
    if not isinstance(geometry, Mapping) or geometry.get("type") not in _GEOMETRIES:
        kind = geometry.get("type") if isinstance(geometry, Mapping) else geometry
        raise ValueError(f"geometry should be a GeoJSON geometry, not {kind!r:.60}")
    yield from _coordinates(geometry.get("coordinates"), 0)


def _coordinates(value: Any, depth: int) -> Iterator[tuple[float, float]]:
    if not isinstance(value, list) or depth > _MOST_DEPTH:
        raise ValueError(f"coordinates should be lists of numbers, not {value!r:.60}")
    if value and not isinstance(value[0], list):
        numbers = _numbers(value)
        if numbers is None or len(numbers) < 2:
            raise ValueError(f"coordinates should be longitude, latitude, not {value!r:.60}")
        yield numbers[0], numbers[1]
        return
    for part in value:
        yield from _coordinates(part, depth + 1)


def _around(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """The bounds of points; over the antimeridian where that is shorter."""
    lon, lat = [x for x, _ in points], [y for _, y in points]
    if max(lon) - min(lon) > 180:
        turned = [float(x) for x in geo.lon_180_to_360(lon)]
        if max(turned) - min(turned) < max(lon) - min(lon):
            lon = turned
    return min(lon), min(lat), max(lon), max(lat)
