"""Regions: boxes, and areas bounded by the polygons of a vector file or of GeoJSON."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, MarsRetrievalWarning
from marsretrieval.geo import vector_files
from marsretrieval.geo.crs import Converter, converter_from
from marsretrieval.geo.sphere import Box, wrap_lon
from marsretrieval.io import read_json
from marsretrieval.text import pluralize

Floats = npt.NDArray[np.float64]

_EDGE_DEG = 7e-13  # 40 nm; more than the rounding of longitudes up to 540
_POLE_STEP_DEG = 90.0
_DOUBTFUL_DEG = 120.0

_JSON_SUFFIXES = (".geojson", ".json")
_HELP = (
    "Give polygons as GeoJSON, GeoPackage, Shapefile, FlatGeobuf or GeoParquet, in degrees of "
    "Mars, longitudes as -180..180 or 0..360, east positive."
)

_LAYER_OPTION = "--region-layer"
_REGION_BYTES = 2**29  # global geological maps have about 100 MB


class Region(Protocol):
    """An area of Mars; implemented by `Box` and `Area`."""

    @property
    def boxes(self) -> Sequence[Box]:
        """Boxes that together cover the region."""

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which positions lie in the region.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,); False for NaN.
        """


@dataclass(frozen=True, slots=True)
class _Polygon:
    """Outer ring and holes, longitudes unrolled so that no edge jumps.

    Attributes:
        shape: shapely polygon; as in any GIS, positions count by the even-odd rule.
        west: Least longitude of the shape.
        box: Box that holds it, longitudes -180..180.
    """

    shape: Any
    west: float
    box: Box

    def contains(self, lon: Floats, lat: Floats) -> npt.NDArray[np.bool_]:
        """Which of n positions lie in the polygon, without NaN."""
        import shapely

        # shapely excludes positions on an edge. Moving north-east by less than a micrometre puts a
        # position on a shared edge into exactly one of the two polygons.
        x = self.west + np.remainder(lon - self.west, 360.0) + _EDGE_DEG
        inside: npt.NDArray[np.bool_] = shapely.contains_xy(
            self.shape, x, np.nextafter(lat, np.inf)
        )
        return inside


class Area:
    """Polygons that may have holes, cross the antimeridian or enclose a pole.

    Edges are straight lines in longitude and latitude (RFC 7946). A ring with an edge of more than
    180 degrees is read as written if it then runs counter-clockwise without crossing itself, as
    RFC 7946 requires of outer rings; otherwise it crosses the antimeridian or encloses a pole, and
    its long edges take the shorter way. A position on an edge shared by two polygons lies in
    exactly one of them. Holes and self-crossings follow the even-odd rule; several polygons are
    united.
    """

    def __init__(self, polygons: Sequence[_Polygon]) -> None:
        self._polygons = tuple(polygons)

    @classmethod
    def read(cls, path: str | Path, *, layer: str | None = None) -> Self:
        """Read the polygons of a vector file.

        Args:
            path: GeoPackage (.gpkg), Shapefile (.shp, .zip), FlatGeobuf (.fgb), KML (.kml),
                GeoParquet (.parquet, .geoparquet), or GeoJSON (any other suffix).
            layer: Name of the layer; needed only if the file has several.

        Returns:
            The area of all polygons. Coordinates of another reference system of Mars are
            converted.

        Raises:
            DataError: If the file is missing, damaged, holds no polygon, has several layers or not
                the named one, or its reference system is not one of Mars. Degrees of the Earth are
                used as degrees of Mars, with a warning, in GeoJSON and KML alone, whose standards
                have no others.
            MissingDependencyError: If the format or the conversion needs the extra `gis`.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in vector_files.VECTOR_SUFFIXES:
            if layer is not None:
                raise vector_files.no_layers_error(path, _LAYER_OPTION)
            try:
                value = read_json(path, limit=_REGION_BYTES, strict=False)
            except DataError as error:
                if suffix in _JSON_SUFFIXES or not path.is_file():
                    raise
                raise DataError(error.message, remedy=_HELP) from error
            return cls.from_geojson(value, name=str(path))
        source = vector_files.read_vector(
            path, fields=False, layer=layer, layer_option=_LAYER_OPTION
        )
        if source.shapes is None:
            raise DataError(f"{path}: no column of geometries", remedy=_HELP)
        import shapely.geometry

        shapes = vector_files.parse_wkb(path, source.shapes)
        if suffix in (".shp", ".zip"):
            # Outer rings of Shapefiles are always clockwise, so normalize their direction.
            shapes = shapely.reverse(shapely.normalize(shapes))
        features = [
            {
                "type": "Feature",
                "geometry": None if shape is None else shapely.geometry.mapping(shape),
            }
            for shape in shapes
        ]
        collection = {"type": "FeatureCollection", "features": features}
        allow_earth = suffix == ".kml"
        return cls._from_value(collection, source.crs, str(path), allow_earth=allow_earth)

    @classmethod
    def from_geojson(cls, value: Any, *, name: str = "region") -> Self:
        """Make the area of parsed GeoJSON, or of an object that gives it.

        Args:
            value: A GeoJSON mapping, or an object with `__geo_interface__`: a shapely geometry, a
                GeoSeries, a GeoDataFrame.
            name: Begins the message of an error.

        Returns:
            The area of all polygons. Coordinates of another reference system of Mars, named by
            the member (or attribute) `crs`, are converted.

        Raises:
            DataError: If it holds no polygon, or its reference system is not a system of Mars.
            MissingDependencyError: If converting the coordinates needs pyproj, which is missing.
        """
        crs = None
        if not isinstance(value, Mapping) and hasattr(value, "__geo_interface__"):
            crs, value = getattr(value, "crs", None), value.__geo_interface__
        elif isinstance(value, Mapping):
            crs = value.get("crs")
        return cls._from_value(value, crs, name, allow_earth=True)

    @classmethod
    def _from_value(cls, value: Any, crs: Any, name: str, *, allow_earth: bool) -> Self:
        try:
            rings_of = list(_rings_of(value))
            convert = converter_from(crs, name=name, allow_earth=allow_earth)
            polygons = [_polygon(rings, convert, name) for rings in rings_of]
        except _InvalidGeometryError as error:
            raise DataError(f"{name}: {error}", remedy=_HELP) from error
        if not polygons:
            raise DataError(f"{name}: it holds no polygon", remedy=_HELP)
        return cls(polygons)

    def __eq__(self, other: object) -> bool:
        """Whether the polygons are the same, in the same order."""
        return isinstance(other, Area) and self._wkb == other._wkb

    def __hash__(self) -> int:
        return hash(self._wkb)

    @property
    def _wkb(self) -> tuple[bytes, ...]:
        return tuple(polygon.shape.wkb for polygon in self._polygons)

    @property
    def boxes(self) -> Sequence[Box]:
        """Bounding box of each polygon."""
        return [polygon.box for polygon in self._polygons]

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which positions lie in the area.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,); False for NaN.
        """
        x = np.atleast_1d(np.asarray(lon, dtype=np.float64))
        y = np.atleast_1d(np.asarray(lat, dtype=np.float64))
        inside = np.zeros(len(x), dtype=np.bool_)
        for polygon in self._polygons:
            rows = np.flatnonzero(polygon.box.contains(x, y) & ~inside)
            inside[rows] = polygon.contains(x[rows], y[rows])
        return inside


class _InvalidGeometryError(Exception):
    pass


def _rings_of(value: Any) -> Iterator[Sequence[Any]]:
    """Yield the rings of each polygon in a GeoJSON object."""
    if not isinstance(value, Mapping):
        raise _InvalidGeometryError("not a GeoJSON object")
    kind = value.get("type")
    if kind == "FeatureCollection":
        for feature in _require_list(value.get("features"), "features"):
            yield from _rings_of(feature)
    elif kind == "Feature":
        if value.get("geometry") is None:
            raise _InvalidGeometryError("a feature has no geometry")
        yield from _rings_of(value["geometry"])
    elif kind == "GeometryCollection":
        for geometry in _require_list(value.get("geometries"), "geometries"):
            yield from _rings_of(geometry)
    elif kind == "Polygon":
        yield _require_list(value.get("coordinates"), "coordinates")
    elif kind == "MultiPolygon":
        for rings in _require_list(value.get("coordinates"), "coordinates"):
            yield _require_list(rings, "coordinates")
    else:
        raise _InvalidGeometryError(f"a {kind or 'value without type'} is not an area")


def _require_list(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):  # tuples come from __geo_interface__
        raise _InvalidGeometryError(f"{name}: not a list")
    return value


def _polygon(rings: Sequence[Any], convert: Converter | None, name: str) -> _Polygon:
    import shapely

    if not rings:
        raise _InvalidGeometryError("a polygon has no ring")
    first, *others = (_ring(ring, convert) for ring in rings)
    outer = _unroll(first, _reads_as_written(first))
    if (np.abs(np.diff(first[:, 0])) > 180).any() and np.ptp(outer[:, 0]) < np.ptp(first[:, 0]):
        _warn_if_wide(first, outer, name)
    holes = [_unroll(hole, _hole_reads_as_written(hole, outer)) for hole in others]
    west, east = float(outer[:, 0].min()), float(outer[:, 0].max())
    south, north = float(outer[:, 1].min()), float(outer[:, 1].max())
    if not (west < east and south < north):
        raise _InvalidGeometryError("a polygon has no area")
    # Shift holes by full turns to the longitudes of the outer ring.
    for hole in holes:
        hole[:, 0] += 360.0 * math.ceil((west - 1e-9 - float(hole[:, 0].min())) / 360.0)
    span = (-180.0, 180.0) if east - west >= 360 else (float(wrap_lon(west)), float(wrap_lon(east)))
    if span[0] == span[1]:
        span = (-180.0, 180.0)
    return _Polygon(shapely.Polygon(outer, holes), west, Box(span[0], south, span[1], north))


def _ring(value: Any, convert: Converter | None) -> Floats:
    """Return longitudes and latitudes of a closed ring, shape (n, 2)."""
    positions = _require_list(value, "a ring")
    if any(not isinstance(corner, list | tuple) or len(corner) < 2 for corner in positions):
        raise _InvalidGeometryError("a position is not a list of longitude and latitude")
    try:
        corners = np.array([position[:2] for position in positions], dtype=np.float64).reshape(
            -1, 2
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise _InvalidGeometryError("a coordinate is not a number") from error
    if len(corners) < 4:
        raise _InvalidGeometryError(
            f"a ring has {pluralize(len(corners), 'position')}; it needs at least 4, the last "
            "equal to the first"
        )
    if not np.isfinite(corners).all():
        raise _InvalidGeometryError("a coordinate is not finite")
    if convert is not None:
        corners = convert(corners)
        if not np.isfinite(corners).all():
            raise _InvalidGeometryError(
                "a position is outside the area of its coordinate reference system"
            )
    if np.abs(corners[:, 0]).max() > 540 or np.abs(corners[:, 1]).max() > 90:
        x, y = corners[np.argmax(np.abs(corners).max(axis=1))]
        raise _InvalidGeometryError(
            f"position {x:g}, {y:g} is not in degrees of longitude and latitude"
        )
    lon_gap = (corners[0, 0] - corners[-1, 0]) % 360.0
    if min(lon_gap, 360.0 - lon_gap) > 1e-9 or corners[0, 1] != corners[-1, 1]:
        raise _InvalidGeometryError("a ring is not closed: its first and last positions differ")
    return corners


def _reads_as_written(ring: Floats) -> bool:
    """Whether an outer ring is read as written, edges of more than 180 degrees included."""
    steps = np.diff(ring[:, 0])
    if not _jumps(steps).any():
        return True
    if _signed_area(ring) <= 0 or _long_edges_cross(ring):
        return False
    short = np.where(_jumps(steps), steps - 360.0 * np.round(steps / 360.0), steps)
    goes_round = round(short.sum() / 360.0) != 0
    # Many short steps once around the planet: a ring around a pole, in either direction.
    return not (goes_round and np.abs(short).max() <= _POLE_STEP_DEG)


def _hole_reads_as_written(hole: Floats, outer: Floats) -> bool:
    """Whether a hole, within `outer` and normally clockwise, is read as written."""
    if not _jumps(np.diff(hole[:, 0])).any():
        return True
    west, east = float(outer[:, 0].min()), float(outer[:, 0].max())
    fits = west - 1e-9 <= hole[:, 0].min() and hole[:, 0].max() <= east + 1e-9
    return bool(fits and (east - west < 360 or _signed_area(hole) < 0))


def _jumps(steps: Floats) -> npt.NDArray[np.bool_]:
    # A full turn is an edge along the whole map, not a jump; half a turn is read as written.
    return np.asarray((np.abs(steps) > 180.0) & (np.abs(steps) != 360.0))


def _signed_area(ring: Floats) -> float:
    """Return the area in square degrees, positive if counter-clockwise (shoelace formula)."""
    x, y = (ring - ring[0]).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def _long_edges_cross(ring: Floats) -> bool:
    """Whether an edge of more than 180 degrees crosses another edge of the ring."""
    start, end = ring[:-1], ring[1:]
    for number in np.flatnonzero(_jumps(np.diff(ring[:, 0]))):
        a, b = start[number], end[number]
        one, other = _side(a, b, start), _side(a, b, end)
        first = (b[0] - start[:, 0]) * (end[:, 1] - start[:, 1])
        first -= (b[1] - start[:, 1]) * (end[:, 0] - start[:, 0])
        second = (a[0] - start[:, 0]) * (end[:, 1] - start[:, 1])
        second -= (a[1] - start[:, 1]) * (end[:, 0] - start[:, 0])
        if ((one * other < 0) & (first * second < 0)).any():
            return True
    return False


def _side(a: Floats, b: Floats, points: Floats) -> Floats:
    """Positive for points left of the line from `a` to `b`, negative right of it."""
    cross_product = (b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0])
    return np.asarray(cross_product)


def _warn_if_wide(ring: Floats, outer: Floats, name: str) -> None:
    """Warn if both readings of a ring are wide, so that the other may be meant."""
    if np.ptp(outer[:, 0]) < _DOUBTFUL_DEG or np.ptp(outer[:, 0]) >= 360:
        return
    west, east = ring[:, 0].min(), ring[:, 0].max()
    warnings.warn(
        f"{name}: a clockwise ring from {west:g} to {east:g} degrees is read as the part across "
        "the antimeridian; write it counter-clockwise if it is the part between",
        MarsRetrievalWarning,
        stacklevel=4,
    )


def _unroll(ring: Floats, as_written: bool) -> Floats:
    """Shift longitudes by full turns so that no edge jumps.

    A ring that encircles the planet is closed through the nearer pole.
    """
    if as_written:
        unrolled = ring.copy()
        turns = round(float(ring[-1, 0] - ring[0, 0]) / 360.0)
    else:
        steps = np.diff(ring[:, 0])
        steps = np.where(_jumps(steps), steps - 360.0 * np.round(steps / 360.0), steps)
        lon = ring[0, 0] + np.concatenate([[0.0], np.cumsum(steps)])
        # Use the original longitudes plus full turns because sums of steps drift.
        lon = ring[:, 0] + 360.0 * np.round((lon - ring[:, 0]) / 360.0)
        unrolled = np.column_stack([lon, ring[:, 1]])
        turns = round(float(lon[-1] - lon[0]) / 360.0)
    if turns == 0:
        unrolled[-1] = unrolled[0]
        return unrolled
    if abs(turns) > 1:
        raise _InvalidGeometryError("a ring encircles the planet more than once")
    pole = math.copysign(90.0, float(ring[:, 1].mean()))
    corners = [[unrolled[-1, 0], pole], [unrolled[0, 0], pole], unrolled[0].tolist()]
    return np.concatenate([unrolled, corners])
