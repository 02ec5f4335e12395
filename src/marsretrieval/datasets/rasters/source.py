"""Open and check rasters of Mars: GeoTIFFs, VRTs and JPEG 2000 files of any size.

Positions come from `geo.planetocentric` and `geo.place_rectangle`, as those of single
georeferenced images: degrees as they are (planetographic ones converted), equirectangular metres
by the formula of the sphere, other projections by PROJ on the file's own ellipsoid, with the
resulting planetographic latitudes converted to planetocentric ones.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.georeference import degree_converter
from marsretrieval.datasets.listing import (
    describe_content,
    files_fingerprint,
    image_format,
    is_tiff,
)
from marsretrieval.errors import DataError, DatasetNotFoundError, MissingDependencyError
from marsretrieval.geo.crs import OtherBodyError
from marsretrieval.text import missing_file, suggest_path

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".jpx")
_JPEG_2000 = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")
_JPEG_2000_DRIVERS = ("JP2KAK", "JP2OpenJPEG", "JP2ECW", "JP2MrSID")
_HEAD_BYTES = 512
_GDAL = {
    # Rows of wide rasters stay in this cache while the tiles of a row are read.
    "GDAL_CACHEMAX": 256 * 2**20,
    "GDAL_NUM_THREADS": "2",
    # No network: allow network file systems only this address, which does not exist.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
}
_MAX_MAGNITUDE = 1e38  # ISIS stores its special pixels near -3.4e38
_SAMPLE_SIDE = 2048
_TRUNCATED = "The file may be truncated or damaged: copy or download it again."
Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Raster:
    """An open raster of Mars.

    Attributes:
        path: The file.
        width: Columns.
        height: Rows.
        dtype: NumPy name of the data type of the selected bands.
        bands: Numbers of the bands that are read, one or three.
        band_count: Number of bands of the file.
        affine: a, b, c, d, e, f of the transform, see `geo.place_rectangle`.
        converter: Conversion between the CRS and planetocentric degrees.
        crs_name: Name of the CRS.
        pixel_m: Width and height of a pixel on the ground in metres, at the centre of the raster.
        pixel_range_m: Smallest and largest side of a pixel on the ground over the raster.
        nodata: No-data value; None if there is none.
        has_mask: Whether the file states which pixels are valid (no-data value, mask or alpha).
    """

    path: Path
    width: int
    height: int
    dtype: str
    bands: tuple[int, ...]
    band_count: int
    affine: tuple[float, ...]
    converter: geo.DegreeConverter = field(repr=False)
    crs_name: str
    pixel_m: tuple[float, float]
    pixel_range_m: tuple[float, float]
    nodata: float | None
    has_mask: bool
    _file: Any = field(repr=False)

    def place(self, window: tuple[float, float, float, float]) -> geo.Placement | None:
        """Compute the position of a window.

        Args:
            window: First column, first row, width and height in pixels.

        Returns:
            The position; None if a part of the window lies off the planet.

        Raises:
            DataError: If the window is more than 180 degrees wide.
        """
        try:
            return geo.place_rectangle(
                self.affine, window, self.converter.to_degrees, wraps=self.converter.wraps
            )
        except geo.OffPlanetError:
            return None
        except ValueError as error:
            raise DataError(
                f"{self.path}: the tile at column {window[0]:g}, row {window[1]:g}: {error}",
                remedy="Use smaller tiles, or --delta.",
            ) from error

    def to_degrees(self, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Convert pixel coordinates (edges of the first pixel: 0 and 1) to degrees.

        Args:
            column: Columns.
            row: Rows.

        Returns:
            Planetocentric longitudes and latitudes.
        """
        a, b, c, d, e, f = self.affine
        return self.converter.to_degrees(a * column + b * row + c, d * column + e * row + f)

    def from_degrees(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Convert planetocentric degrees to pixel coordinates.

        Args:
            lon: Longitudes, in the same turn of 360 degrees as the raster's.
            lat: Latitudes.

        Returns:
            Columns and rows; not finite where the projection is not defined.
        """
        a, b, c, d, e, f = self.affine
        x, y = self.converter.from_degrees(lon, lat)
        determinant = a * e - b * d
        with np.errstate(invalid="ignore"):  # infinite outside of the projection
            column = (e * (x - c) - b * (y - f)) / determinant
            row = (a * (y - f) - d * (x - c)) / determinant
        return column, row

    def read(
        self, window: tuple[int, int, int, int], shape: tuple[int, int], *, nearest: bool = False
    ) -> tuple[Values, Mask]:
        """Read a window of the selected bands, resampled to a shape.

        Reductions use overviews where there are some and average over all source pixels.

        Args:
            window: First column, first row, width and height in pixels, within the raster.
            shape: Rows and columns of the result.
            nearest: Take single source pixels instead of bilinear averages.

        Returns:
            Values of shape (bands, rows, columns), and a mask of shape (rows, columns) that is
            True for valid pixels.

        Raises:
            DataError: If the pixels cannot be read.
        """
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        pixels = Window(*window)
        method = Resampling.nearest if nearest else Resampling.bilinear
        try:
            values: Values = self._file.read(
                list(self.bands),
                window=pixels,
                out_shape=(len(self.bands), *shape),
                resampling=method,
            )
            valid = np.ones(shape, dtype=np.bool_)
            if self.has_mask:
                masks: Values = self._file.read_masks(
                    list(self.bands), window=pixels, out_shape=(len(self.bands), *shape)
                )
                valid = (masks != 0).any(axis=0)
        except (RasterioError, OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: its pixels cannot be read ({_first_line(error)})", remedy=_TRUNCATED
            ) from error
        if values.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                valid &= (np.abs(values) <= _MAX_MAGNITUDE).all(axis=0)  # False for NaN
        return values, valid

    def sample(self) -> tuple[Values, Mask]:
        """Read at most 2048 x 2048 pixels, evenly spaced over the raster.

        Returns:
            As `read`.

        Raises:
            DataError: If the pixels cannot be read.
        """
        shape = min(self.height, _SAMPLE_SIDE), min(self.width, _SAMPLE_SIDE)
        return self.read((0, 0, self.width, self.height), shape, nearest=True)


@contextmanager
def open_raster(
    path: str | Path, *, bands: Sequence[int] | None = None, nodata: float | None = None
) -> Iterator[Raster]:
    """Open a raster of Mars.

    Args:
        path: GeoTIFF, VRT or JPEG 2000 file.
        bands: Numbers of one or three bands; None: red, green and blue if the file names its bands
            so, else the first.
        nodata: Value of pixels without data; None: as the file states.

    Yields:
        The open raster.

    Raises:
        DatasetNotFoundError: If the file is missing.
        DataError: If it is damaged, empty, not georeferenced, not of Mars or mirrored, or lacks a
            requested band.
        MissingDependencyError: If rasterio is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise MissingDependencyError(
            "rasterio", "geotiff", needed_for="cutting rasters into tiles"
        ) from error
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: {missing_file(path)}", remedy=suggest_path(path))
    if path.stat().st_size == 0:
        raise DataError(f"{path}: an empty file", remedy="Copy or download it again.")
    with rasterio.Env(**_GDAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        file = _open(path)
        with file:
            if nodata is None:
                yield _check(path, file, bands, file.nodata)
            else:
                with _override_nodata(file, path, nodata) as view:
                    yield _check(path, view, bands, nodata)


def _open(path: Path) -> Any:
    """Open a file by the driver of its first bytes, so that no other driver is tried."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with path.open("rb") as head_file:
            head = head_file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    driver = None
    if is_tiff(head):
        driver = "GTiff"
    elif b"<VRTDataset" in head:
        driver = "VRT"
    elif head.startswith(_JPEG_2000):
        with rasterio.Env() as env:
            drivers = env.drivers()
        driver = next((name for name in _JPEG_2000_DRIVERS if name in drivers), None)
        if driver is None:
            raise DataError(
                f"{path}: JPEG 2000, which this GDAL cannot read",
                remedy="Convert it: gdal_translate IN OUT.tif, or install rasterio from PyPI.",
            )
    if driver is None:
        is_image = image_format(head) is not None
        remedy = "Convert georeferenced rasters of other formats: gdal_translate IN OUT.tif."
        if is_image or path.suffix.lower() in (".tar", ".parquet", ".csv", ".tsv"):
            images = path.parent if is_image else path
            remedy = f"Images that need no tiling: embed --images {images}. {remedy}"
        raise DataError(
            f"{path}: {describe_content(path, head)}, not a GeoTIFF, VRT or JPEG 2000 file",
            remedy=remedy,
        )
    try:
        return rasterio.open(path, driver=driver)
    except (RasterioError, OSError) as error:
        raise DataError(
            f"{path}: not readable as {driver} ({_first_line(error)})", remedy=_TRUNCATED
        ) from error


@contextmanager
def _override_nodata(file: Any, path: Path, nodata: float | None) -> Iterator[Any]:
    """Open a view of the file with another no-data value, by a VRT in memory."""
    import rasterio
    from rasterio.shutil import copy, delete

    dtype = np.dtype(file.dtypes[0])
    if nodata is not None and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not (limits.min <= nodata <= limits.max and float(nodata).is_integer()):
            raise DataError(
                f"{path}: --nodata {nodata:g} is not a value of {dtype}",
                remedy=f"Use a whole number from {limits.min} to {limits.max}.",
            )
    name = f"/vsimem/marsretrieval-{id(file)}.vrt"
    copy(file, name, driver="VRT")
    try:
        with rasterio.open(name, "r+") as view:
            view.nodata = nodata
        with rasterio.open(name) as view:
            yield view
    finally:
        delete(name, driver="VRT")


def _check(path: Path, file: Any, bands: Sequence[int] | None, nodata: float | None) -> Raster:
    affine = tuple(file.transform)[:6]
    if file.crs is None:
        raise DataError(
            f"{path}: no coordinate reference system",
            remedy="Assign the one that it was made in: gdal_edit.py -a_srs IAU_2015:49910 FILE "
            "(metres), or IAU_2015:49900 (degrees). Unprojected images must be map-projected first "
            "(ISIS cam2map).",
        )
    if file.transform.is_identity:
        has_points = bool(file.gcps[0])
        raise DataError(
            f"{path}: no pixel size and corner" + (", only control points" if has_points else ""),
            remedy="Warp it: gdalwarp IN OUT.tif."
            if has_points
            else "Map-project it, or keep its world file beside it.",
        )
    a, b, _, d, e, _ = affine
    if a * e - b * d >= 0:
        raise DataError(
            f"{path}: mirrored, its rows go from south to north or its columns from east to west",
            remedy="Write it north up: gdalwarp IN OUT.tif.",
        )
    selected = _select_bands(path, file, bands)
    dtype = np.result_type(*(file.dtypes[band - 1] for band in selected))
    if dtype.kind not in "iuf":
        raise DataError(
            f"{path}: values of type {dtype}", remedy="Convert it: gdal_translate -ot Float32."
        )
    try:
        converter = degree_converter(file.crs.to_wkt())
    except ValueError as error:
        remedy = "Convert it to a CRS of Mars: gdalwarp -t_srs IAU_2015:49910 IN OUT.tif."
        if isinstance(error, OtherBodyError):
            remedy = "If it is of Mars, assign its CRS: gdal_edit.py -a_srs IAU_2015:49910 FILE."
        raise DataError(f"{path}: {error}", remedy=remedy) from error
    centre, extremes = _measure_pixels(path, affine, (file.width, file.height), converter)
    masked = any(
        str(flag) != "MaskFlags.all_valid"
        for band in selected
        for flag in file.mask_flag_enums[band - 1]
    )
    return Raster(
        path=path,
        width=file.width,
        height=file.height,
        dtype=str(dtype),
        bands=selected,
        band_count=file.count,
        affine=affine,
        converter=converter,
        crs_name=_crs_name(file.crs),
        pixel_m=centre,
        pixel_range_m=extremes,
        nodata=nodata,
        has_mask=masked,
        _file=file,
    )


def _select_bands(path: Path, file: Any, bands: Sequence[int] | None) -> tuple[int, ...]:
    from rasterio.enums import ColorInterp

    if bands is None:
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        if all(colour in file.colorinterp for colour in colours):
            return tuple(file.colorinterp.index(colour) + 1 for colour in colours)
        bands = (1,)
    missing = [band for band in bands if band > file.count]
    if missing:
        raise DataError(
            f"{path}: has no band {missing[0]}, only {file.count}",
            remedy="Name other bands with --bands.",
        )
    if any(file.colorinterp[band - 1] == ColorInterp.palette for band in bands):
        raise DataError(
            f"{path}: its values are colours of a palette",
            remedy="Convert it: gdal_translate -expand rgb IN OUT.tif.",
        )
    return tuple(bands)


def _measure_pixels(
    path: Path,
    affine: tuple[float, ...],
    size: tuple[int, int],
    converter: geo.DegreeConverter,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the size of the central pixel, and the extreme sides over a grid of pixels."""
    width, height = size
    a, b, c, d, e, f = affine
    share = np.array([0.5, *np.linspace(0, 1, 9)])
    column, row = (axis.ravel() for axis in np.meshgrid(share * width, share * height))
    # Pixels at the edges lie inside; wide steps avoid the rounding of tiny angles.
    step = max(1.0, min(width, height) / 64)
    column = np.clip(column, step / 2, max(width - step / 2, step / 2))
    row = np.clip(row, step / 2, max(height - step / 2, step / 2))

    def locate(across: float, down: float) -> tuple[Floats, Floats]:
        i, j = column + across * step, row + down * step
        return converter.to_degrees(a * i + b * j + c, d * i + e * j + f)

    try:
        west, east, north, south = (
            locate(*offset) for offset in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}", remedy="Warp it to IAU_2015:49910 first.") from error
    metres = math.radians(1) * geo.MARS_RADIUS_M / step
    with np.errstate(invalid="ignore"):  # points off the planet are infinite
        x = geo.great_circle_deg(*west, *east) * metres
        y = geo.great_circle_deg(*north, *south) * metres
    sides = np.concatenate([x, y])
    step_deg = float(y[0]) / metres if np.isfinite(y[0]) else 0.0
    latitudes = np.concatenate([north[1], south[1]])
    latitudes = np.abs(latitudes[np.isfinite(latitudes)])
    if not (np.isfinite(x[0]) and np.isfinite(y[0])) or latitudes.max(initial=0) > 90 + step_deg:
        raise DataError(
            f"{path}: its georeference leads off the planet",
            remedy="Its transform is not in the unit of its coordinate reference system.",
        )
    sides = sides[np.isfinite(sides)]
    return (float(x[0]), float(y[0])), (float(sides.min()), float(sides.max()))


def _crs_name(crs: Any) -> str:
    record = crs.to_dict(projjson=True)
    name = str(record.get("name", "")) or "unnamed"
    if name != "unknown":
        return name
    return str(record.get("conversion", {}).get("method", {}).get("name", "degrees"))


def raster_fingerprint(path: Path) -> str:
    """Compute a fingerprint of a raster from the states of its file and its side files.

    Args:
        path: The raster. The files that a VRT names count as well.

    Returns:
        SHA-256 in hex of names, sizes and modification times.

    Raises:
        DataError: If the file cannot be opened.
    """
    return files_fingerprint(dict.fromkeys([path, *source_files(path)]))


def source_files(path: Path) -> list[Path]:
    """List the files that a raster consists of.

    Args:
        path: The raster.

    Returns:
        The file itself, and for a VRT the files that it names, in GDAL's order.

    Raises:
        DataError: If the file cannot be opened.
    """
    import rasterio

    with rasterio.Env(**_GDAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with _open(path) as file:
            return [Path(name) for name in file.files]


def _first_line(error: BaseException) -> str:
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return " ".join(text.split())[:200]
