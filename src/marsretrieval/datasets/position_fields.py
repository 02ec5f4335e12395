"""Parse the position of a tile from JSON fields, a table row, or the tile's published name."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from marsretrieval import geo
from marsretrieval.text import pluralize

_ROUNDING_DEG = 1e-9
_TOLERANCE_DEG = 1e-6  # centres and bounds are often written with few decimals
_MAX_WIDTH_DEG = 180.0
LON_NAMES, LAT_NAMES = ("lon", "longitude", "lng"), ("lat", "latitude")
_BOUNDS_NAMES, _CENTRE_NAMES = ("bounds", "bbox"), ("center", "centre")
POSITION_FIELDS = (
    *LON_NAMES,
    *LAT_NAMES,
    *_BOUNDS_NAMES,
    *_CENTRE_NAMES,
    "width_deg",
    "height_deg",
)
_EDGE_NAMES = (
    ("west", "south", "east", "north"),
    ("left", "bottom", "right", "top"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("min_lon", "min_lat", "max_lon", "max_lat"),
    ("lon_min", "lat_min", "lon_max", "lat_max"),
)
# With one of these fields (COCO annotations), `bbox` is in pixels.
_PIXEL_BOX_FIELDS = ("category_id", "segmentation", "iscrowd")
_GEOMETRY_TYPES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
)  # fmt: skip
_MAX_DEPTH = 5


@dataclass(frozen=True, slots=True)
class TileLocation:
    """Centre and extent of a tile in degrees; unknown values are None.

    Attributes:
        lon: Longitude of the centre, -180..180.
        lat: Latitude of the centre.
        width_deg: Extent in longitude.
        height_deg: Extent in latitude.
    """

    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None
    height_deg: float | None = None


NO_LOCATION = TileLocation()


@dataclass(frozen=True, slots=True)
class Position:
    """A position as a file states it, in degrees, not validated.

    Attributes:
        bounds: West, south, east, north.
        centre: Longitude, latitude.
        size: Width, height.
    """

    bounds: tuple[float, ...] | None = None
    centre: tuple[float, ...] | None = None
    size: tuple[float, ...] | None = None

    def __bool__(self) -> bool:
        return self.bounds is not None or self.centre is not None


def resolve_location(
    key: str,
    bounds: tuple[float, ...] | None = None,
    centre: tuple[float, ...] | None = None,
    size: tuple[float, ...] | None = None,
) -> TileLocation:
    """Validate a position, or derive it from a tile's published name.

    Longitudes may be -180..180 or 0..360. Bounds whose east is less than their west cross the
    antimeridian.

    Args:
        key: Name of the tile; its position is used without `bounds` and `centre`.
        bounds: West, south, east, north in degrees.
        centre: Longitude and latitude; with `bounds`, it must lie within them.
        size: Width and height in degrees, for a centre without bounds.

    Returns:
        The location; `NO_LOCATION` if there is neither a position nor a tile name.

    Raises:
        ValueError: If the numbers contradict each other or are not a position on a planet.
    """
    if bounds is not None:
        return _location_from_bounds(bounds, centre)
    if centre is not None:
        return TileLocation(*_check_centre(*centre), *_check_size(size))
    name = PurePosixPath(key).name
    corner, centre_of_tile = geo.tile_corner(name), geo.tile_centre(name)
    if corner is None or centre_of_tile is None:
        return NO_LOCATION
    if not (_on_planet(*corner) and _on_planet(corner[0], corner[1] + geo.TILE_DEG)):
        return NO_LOCATION
    return TileLocation(*centre_of_tile, geo.TILE_DEG, geo.TILE_DEG)


def _location_from_bounds(
    bounds: tuple[float, ...], centre: tuple[float, ...] | None
) -> TileLocation:
    west, south, east, north = bounds
    values_text = ", ".join(f"{value:.10g}" for value in bounds)
    if not (_on_planet(west, south) and _on_planet(east, north)):
        raise ValueError(f"bounds {values_text} are not a position in degrees")
    if south >= north:
        raise ValueError(f"bounds {values_text}: south {south:g} is not below north {north:g}")
    if east == west:
        raise ValueError(f"bounds {values_text}: east and west are the same")
    width = east - west if east > west else east - west + 360
    if width > _MAX_WIDTH_DEG + _TOLERANCE_DEG:
        problem = f"footprint {width:g} degrees wide, more than {_MAX_WIDTH_DEG:g}"
        if east < west:
            problem = f"east {east:g} is less than west {west:g}"
        raise ValueError(f"bounds {values_text}: {problem}")
    lon, lat = west + width / 2, (south + north) / 2
    if centre is not None:
        off_lon = abs(float(geo.wrap_lon(centre[0] - lon)))
        off_lat = abs(centre[1] - lat)
        if not (
            off_lon <= width / 2 + _TOLERANCE_DEG
            and off_lat <= (north - south) / 2 + _TOLERANCE_DEG
        ):
            raise ValueError(
                f"centre {centre[0]:.10g}, {centre[1]:.10g} is outside the bounds {values_text}"
            )
        if off_lon <= _TOLERANCE_DEG and off_lat <= _TOLERANCE_DEG:
            lon, lat = centre  # use the stated centre, without rounding errors
    return TileLocation(*_check_centre(lon, lat), width, north - south)


def _check_size(size: tuple[float, ...] | None) -> tuple[float | None, float | None]:
    if size is None:
        return None, None
    width, height = size
    if not (0 < width <= _MAX_WIDTH_DEG and 0 < height <= 180):
        raise ValueError(f"footprint of {width:g} x {height:g} degrees (0 to 180 is expected)")
    return width, height


def _check_centre(lon: float, lat: float) -> tuple[float, float]:
    if not _on_planet(lon, lat):
        raise ValueError(f"centre {lon:.10g}, {lat:.10g} is not a position in degrees")
    return float(geo.wrap_lon(lon)), lat


def _on_planet(lon: float, lat: float) -> bool:
    return (
        math.isfinite(lon)
        and -180 - _ROUNDING_DEG <= lon <= 360 + _ROUNDING_DEG
        and abs(lat) <= 90 + _ROUNDING_DEG
    )


def parse_position(fields: Mapping[str, Any]) -> Position:
    """Parse the position fields of an object or row.

    Args:
        fields: `bounds` or `bbox` (four numbers, six with heights, a string of four, two corners,
            or an object of edges); `center` or `centre` (two numbers, a string, or an object);
            `lon` and `lat` or `longitude` and `latitude`, with `width_deg` and `height_deg`;
            `geometry` (GeoJSON). Names in any case.

    Returns:
        The position, empty if no field states one.

    Raises:
        ValueError: If a field does not have this form.
    """
    values = {str(name).lower(): value for name, value in fields.items() if not _is_missing(value)}
    if any(name in values for name in _PIXEL_BOX_FIELDS):
        values.pop("bbox", None)
    bounds = next(
        (_parse_bounds(name, values[name]) for name in _BOUNDS_NAMES if name in values), None
    )
    geometry = values.get("geometry")
    points = [] if geometry is None else list(_iter_points(geometry))
    centre = next(
        (_parse_pair(name, values[name]) for name in _CENTRE_NAMES if name in values), None
    )
    if bounds is None and len(points) > 1:
        bounds = _bounding_box(points)
    elif centre is None and len(points) == 1:
        centre = points[0]
    return Position(bounds, centre or _parse_lonlat(values), _parse_size(values))


def unwrap_feature(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Flatten a GeoJSON Feature: its properties, geometry and bbox in one object.

    Args:
        fields: A JSON object. A FeatureCollection of one feature counts as that feature, a bare
            geometry as a feature without properties.

    Returns:
        The flattened object; `fields` itself if it is not GeoJSON.

    Raises:
        ValueError: If a FeatureCollection does not have exactly one feature.
    """
    kind = fields.get("type")
    if kind == "FeatureCollection":
        features = fields.get("features")
        if not isinstance(features, list) or len(features) != 1:
            count = len(features) if isinstance(features, list) else 0
            raise ValueError(
                f"a FeatureCollection of {pluralize(count, 'feature')}, one is expected"
            )
        return unwrap_feature(features[0]) if isinstance(features[0], Mapping) else {}
    if kind == "Feature":
        properties = fields.get("properties")
        inner = dict(properties) if isinstance(properties, Mapping) else {}
        return {**inner, **{k: fields[k] for k in ("geometry", "bbox") if fields.get(k)}}
    if kind in _GEOMETRY_TYPES and "coordinates" in fields:
        return {"geometry": fields}
    return fields


def parse_finite(value: Any) -> float | None:
    """Convert a value to a finite float.

    Args:
        value: A number, or a string that spells one.

    Returns:
        The number; None for any other value.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    try:
        number = float(value) if not isinstance(value, bool | bytes) else None
    except (TypeError, ValueError, OverflowError):
        return None
    # The comparison is False for NaN.
    return number if number is not None and abs(number) <= sys.float_info.max else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _parse_numbers(value: Any) -> list[float] | None:
    parts = value.replace(";", ",").split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or isinstance(parts, str | bytes):
        return None
    numbers = [parse_finite(part) for part in parts]
    return [number for number in numbers if number is not None] if None not in numbers else None


def _parse_bounds(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, Mapping):
        lower = {str(key).lower(): part for key, part in value.items()}
        edges = next((names for names in _EDGE_NAMES if all(key in lower for key in names)), ())
        numbers = _parse_numbers([lower[key] for key in edges])
    elif isinstance(value, list) and len(value) == 2 and all(isinstance(x, list) for x in value):
        numbers = _parse_numbers([*value[0], *value[1]])
    else:
        numbers = _parse_numbers(value)
    if numbers is not None and len(numbers) == 6:  # with heights, as GeoJSON allows
        numbers = [*numbers[:2], *numbers[3:5]]
    if numbers is None or len(numbers) != 4:
        raise ValueError(f"{name} should be west, south, east, north in degrees, not {value!r:.60}")
    return tuple(numbers)


def _parse_pair(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, Mapping):
        lonlat = _parse_lonlat({str(key).lower(): part for key, part in value.items()})
        if lonlat is None and {"x", "y"} <= value.keys():
            lonlat = _parse_pair(name, [value["x"], value["y"]])
        if lonlat is not None:
            return lonlat
    numbers = None if isinstance(value, Mapping) else _parse_numbers(value)
    if numbers is None or len(numbers) not in (2, 3):
        raise ValueError(f"{name} should be longitude, latitude in degrees, not {value!r:.60}")
    return tuple(numbers[:2])


def _parse_lonlat(fields: Mapping[str, Any]) -> tuple[float, ...] | None:
    lon = next((name for name in LON_NAMES if not _is_missing(fields.get(name))), None)
    lat = next((name for name in LAT_NAMES if not _is_missing(fields.get(name))), None)
    if lon is None and lat is None:
        return None
    if lon is None or lat is None:
        raise ValueError(f"{lon or lat} without a {'longitude' if lon is None else 'latitude'}")
    numbers = _parse_numbers([fields[lon], fields[lat]])
    if numbers is None:
        values_text = f"{fields[lon]!r:.40}, {fields[lat]!r:.40}"
        raise ValueError(f"{lon}, {lat} should be numbers in degrees, not {values_text}")
    return tuple(numbers)


def _parse_size(fields: Mapping[str, Any]) -> tuple[float, ...] | None:
    if "width_deg" not in fields or "height_deg" not in fields:
        return None
    numbers = _parse_numbers([fields["width_deg"], fields["height_deg"]])
    if numbers is None:
        raise ValueError(
            f"width_deg, height_deg should be numbers, not {fields['width_deg']!r:.40}, "
            f"{fields['height_deg']!r:.40}"
        )
    return tuple(numbers)


def _iter_points(geometry: Any) -> Iterator[tuple[float, float]]:
    if not isinstance(geometry, Mapping) or geometry.get("type") not in _GEOMETRY_TYPES:
        kind = geometry.get("type") if isinstance(geometry, Mapping) else geometry
        raise ValueError(f"geometry should be a GeoJSON geometry, not {kind!r:.60}")
    yield from _iter_coordinates(geometry.get("coordinates"), 0)


def _iter_coordinates(value: Any, depth: int) -> Iterator[tuple[float, float]]:
    if not isinstance(value, list) or depth > _MAX_DEPTH:
        raise ValueError(f"coordinates should be lists of numbers, not {value!r:.60}")
    if value and not isinstance(value[0], list):
        numbers = _parse_numbers(value)
        if numbers is None or len(numbers) < 2:
            raise ValueError(f"coordinates should be longitude, latitude, not {value!r:.60}")
        yield numbers[0], numbers[1]
        return
    for part in value:
        yield from _iter_coordinates(part, depth + 1)


def _bounding_box(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return the bounds of points, across the antimeridian if that is shorter."""
    lon, lat = [x for x, _ in points], [y for _, y in points]
    if max(lon) - min(lon) > 180:
        shifted = [float(x) for x in geo.lon_180_to_360(lon)]
        if max(shifted) - min(shifted) < max(lon) - min(lon):
            lon = shifted
    return min(lon), min(lat), max(lon), max(lat)
