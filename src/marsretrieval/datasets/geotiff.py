"""GeoTIFFs of Mars: quads of the CTX mosaic, and global maps in degrees.

Positions are computed from the affine transform alone: metres by the mosaic's sphere
(x = R lon, y = R lat), degrees unchanged. The CRS is only checked for its unit and body. It is
not passed to PROJ: since version 9.8, PROJ moves the mosaic's pixels by up to 0.40 degrees.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.listing import describe_content, is_tiff
from marsretrieval.errors import DataError, DatasetNotFoundError, MissingDependencyError
from marsretrieval.text import missing_file, suggest_path

_HEAD_BYTES = 64  # enough for the signatures of TIFF and VRT files
_ROUNDING_DEG = 1e-9
_GDAL_OPTIONS = {
    # Ignore .ovr, .msk and .aux.xml files: any driver may open them, also network addresses.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Allow network file systems only this address, which does not exist.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none",
}


@contextmanager
def open_gtiff(source: Path | str | bytes, name: str) -> Iterator[Any]:
    """Open a TIFF with rasterio.

    Args:
        source: A file, a path below /vsizip/ that the caller built, or the encoded bytes.
        name: Name of the file in messages.

    Yields:
        The open `rasterio.DatasetReader`.

    Raises:
        DataError: If the metadata names another file as the overviews.
        rasterio.errors.RasterioError: If the file is damaged or not a TIFF.
    """
    import rasterio
    from rasterio.io import MemoryFile

    with rasterio.Env(**_GDAL_OPTIONS):
        if isinstance(source, bytes):
            with MemoryFile(source) as memory, memory.open(driver="GTiff") as file:
                _check_overviews(file, name)
                yield file
        else:
            with rasterio.open(source, driver="GTiff") as file:
                _check_overviews(file, name)
                yield file


def _check_overviews(file: Any, name: str) -> None:
    other = file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if other is not None:
        raise DataError(
            f"{name}: its metadata names another file as its overviews ({other!r:.80})",
            remedy="Write it again without them: gdal_translate -of GTiff IN.tif OUT.tif",
        )


@dataclass(frozen=True, slots=True)
class GeoTiff:
    """An open single-band raster, north up.

    Attributes:
        path: The file.
        width: Columns.
        height: Rows.
        dtype: NumPy name of the data type.
        west: Western edge in degrees.
        south: Southern edge in degrees.
        east: Eastern edge in degrees, west + width; may exceed 180.
        north: Northern edge in degrees.
        pixel_deg: Width and height of a pixel in degrees.
        nodata: No-data value; None if the file declares none.
        transform: Affine transform from rasterio, for computations that must match GDAL. Do not
            use it for positions.
        crs: CRS from rasterio, likewise.
    """

    path: Path
    width: int
    height: int
    dtype: str
    west: float
    south: float
    east: float
    north: float
    pixel_deg: tuple[float, float]
    nodata: float | None
    transform: Any = field(repr=False)
    crs: Any = field(repr=False)
    _file: Any = field(repr=False)

    def read(
        self,
        window: tuple[float, float, float, float] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> npt.NDArray[Any]:
        """Read a window of pixels, resampled bilinearly.

        Args:
            window: Row, column, height and width in pixels, may be fractional; None: all pixels.
            shape: Rows and columns of the result; None: the shape of the window.

        Returns:
            Array of shape (rows, columns).

        Raises:
            DataError: If the pixels cannot be read.
        """
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        pixel_window = None
        if window is not None:
            row, column, height, width = window
            pixel_window = Window(column, row, width, height)
        try:
            pixels: npt.NDArray[Any] = self._file.read(
                1, window=pixel_window, out_shape=shape, resampling=Resampling.bilinear
            )
        except (RasterioError, OSError, ValueError) as error:
            raise self._read_error(error) from error
        return pixels

    def read_rows(self, first: int, out: npt.NDArray[Any]) -> None:
        """Read whole rows into an array.

        Args:
            first: Number of the first row.
            out: Array of shape (n, width) to fill.

        Raises:
            DataError: If the pixels cannot be read.
        """
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        try:
            self._file.read(1, window=Window(0, first, self.width, len(out)), out=out)
        except (RasterioError, OSError, ValueError) as error:
            raise self._read_error(error) from error

    def strips(self) -> tuple[npt.NDArray[np.int64], int] | None:
        """Locate uncompressed 8-bit strips that are stored from north to south.

        Returns:
            Byte offset of each strip, int64 of shape (n,), and the number of rows per strip; None
            for any other layout.
        """
        rows, columns = self._file.block_shapes[0]
        is_packed = self._file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8") != "8"
        if self._file.count != 1 or self.dtype != "uint8" or is_packed:
            return None
        if self._file.compression is not None or columns != self.width:
            return None
        count = -(-self.height // rows)
        tags = (f"BLOCK_OFFSET_0_{number}" for number in range(count))
        strip_offsets = [self._file.get_tag_item(tag, "TIFF", bidx=1) for tag in tags]
        if None in strip_offsets:  # a missing strip stands for zeros
            return None
        offsets = np.array(strip_offsets, dtype=np.int64)
        return (offsets, rows) if bool(np.all(np.diff(offsets) > 0)) else None

    def _read_error(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path}: its pixels cannot be read ({error})",
            remedy="The file may be cut short: fetch it again.",
        )


@contextmanager
def open_geotiff(path: str | Path, *, member: str | None = None) -> Iterator[GeoTiff]:
    """Open a GeoTIFF of Mars.

    Args:
        path: The file, or a zip.
        member: Name of the file inside the zip.

    Yields:
        The open raster.

    Raises:
        DatasetNotFoundError: If the file is missing.
        DataError: If it is damaged, has several bands or no CRS, is rotated, is not of Mars, is in
            another projection or extends over a pole; or if it is named as a quad but is more than
            half a pixel away from that quad.
        MissingDependencyError: If rasterio is not installed.
    """
    path = Path(path)
    try:
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "rasterio", "geotiff", needed_for="reading GeoTIFFs"
        ) from error
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: {missing_file(path)}", remedy=suggest_path(path))
    name = str(path) if member is None else f"{path}, {member}"
    _check_signature(path, member, name)
    gdal_path = path if member is None else f"/vsizip/{{{path.absolute()}}}/{member}"
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_gtiff(gdal_path, name))
        except (RasterioError, OSError) as error:
            raise DataError(
                f"{path}: not readable as a GeoTIFF ({error})", remedy="Fetch it again."
            ) from error
        raster = _read_metadata(path, file)
        _check_quad_name(raster)
        yield raster


def _check_signature(path: Path, member: str | None, name: str) -> None:
    """Reject other formats before GDAL opens them; GDAL's own message gives no reason."""
    try:
        if member is None:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as member_file:
                head = member_file.read(_HEAD_BYTES)
    except (OSError, KeyError, EOFError, ValueError, zipfile.BadZipFile, zlib.error,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        raise DataError(
            f"{name}: not readable as a GeoTIFF ({error})", remedy="Fetch it again."
        ) from error
    if head.lstrip()[:11] == b"<VRTDataset":
        raise DataError(
            f"{name}: a VRT, which names other files, not a GeoTIFF",
            remedy="Convert it: gdal_translate -of GTiff IN.vrt OUT.tif",
        )
    if head and not is_tiff(head):
        raise DataError(
            f"{name}: {describe_content(name, head)}, not a GeoTIFF",
            remedy="Fetch it again, or name a GeoTIFF.",
        )


def _read_metadata(path: Path, file: Any) -> GeoTiff:
    transform = file.transform
    if file.crs is None:
        raise DataError(
            f"{path}: no coordinate system", remedy="It must be georeferenced on the Mars sphere."
        )
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise DataError(
            f"{path}: not north up; rotated and flipped rasters are not read",
            remedy="Warp the raster to north up, such as with gdalwarp.",
        )
    if file.count != 1:
        raise DataError(
            f"{path}: {file.count} bands, one is expected",
            remedy="Extract one band, such as with gdal_translate -b 1.",
        )
    try:
        radius, _ = geo.mars_ellipsoid(file.crs.to_dict(projjson=True))
    except ValueError as error:
        raise DataError(
            f"{path}: {error}",
            remedy="The radius of Mars is 3,396 km. Files labelled as Earth (EPSG:4326) are "
            "refused.",
        ) from error
    corners = np.array([[transform.c, transform.f], [transform.a, -transform.e]])
    if not file.crs.is_geographic:
        _check_projection(path, file.crs)
        corners = np.column_stack(geo.metres_to_lonlat(corners[:, 0], corners[:, 1]))
        corners *= geo.MARS_RADIUS_M / radius
    (west, north), (pixel_x, pixel_y) = corners.tolist()
    south = north - file.height * pixel_y
    # Grids registered at pixel centres may extend half a pixel over the poles.
    if north > 90 + pixel_y or south < -90 - pixel_y or file.width * pixel_x > 360 + 2 * pixel_x:
        raise DataError(
            f"{path}: reaches from {south:.2f} to {north:.2f} degrees of latitude and over "
            f"{file.width * pixel_x:.2f} of longitude, which is not on the planet",
            remedy="Its transform must use the unit of its coordinate system.",
        )
    if west >= 180 - _ROUNDING_DEG:
        west -= 360
    return GeoTiff(
        path=path,
        width=file.width,
        height=file.height,
        dtype=file.dtypes[0],
        west=west,
        south=south,
        east=west + file.width * pixel_x,
        north=north,
        pixel_deg=(pixel_x, pixel_y),
        nodata=file.nodata,
        transform=transform,
        crs=file.crs,
        _file=file,
    )


def _check_projection(path: Path, crs: Any) -> None:
    """Require x = R lon, y = R lat, without another meridian, parallel, origin or unit."""
    conversion = crs.to_dict(projjson=True).get("conversion", {})
    method = conversion.get("method", {}).get("name", "")
    nonzero = [
        f"{parameter.get('name')} {parameter.get('value'):g}"
        for parameter in conversion.get("parameters", [])
        if parameter.get("value")
    ]
    if "Equidistant Cylindrical" not in method and "Equirectangular" not in method:
        problem = f"neither in degrees nor equirectangular ({crs.to_string()[:80]})"
    elif nonzero:
        problem = f"equirectangular, but with {', '.join(nonzero)}; zero is expected"
    elif crs.linear_units_factor[1] != 1:
        problem = f"in units of {crs.linear_units_factor[0]}, not metres"
    else:
        return
    raise DataError(f"{path}: {problem}", remedy="Warp it to IAU_2015:49910 first.")


def _check_quad_name(raster: GeoTiff) -> None:
    corner = geo.parse_quad_name(raster.path.name)
    if corner is None:
        return
    lon, lat = corner
    offsets = ((raster.west - lon + 180) % 360 - 180, raster.south - lat)
    if any(
        abs(offset) > pixel / 2 for offset, pixel in zip(offsets, raster.pixel_deg, strict=True)
    ):
        raise DataError(
            f"{raster.path}: named for {lon}, {lat}, but its south-west corner is at "
            f"{raster.west:.4f}, {raster.south:.4f} degrees",
            remedy="Renamed, or written by another formula: its tiles would be misplaced.",
        )
