"""GeoTIFFs of Mars: the quads of the CTX mosaic, and global maps in degrees.

Positions come from the affine transform alone: metres by the formula of the mosaic's sphere
(x = R lon, y = R lat), degrees as they stand. The CRS is read for its unit and its body, never
given to PROJ, which since 9.8 would put the mosaic's pixels up to 0.40 degrees off.
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
from marsretrieval.errors import DataError, DatasetNotFoundError, MissingDependencyError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders
_OPTIONS = {
    # No .ovr, .msk or .aux.xml: these are opened by any driver, whatever address they name.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The one address that the network file systems may open, which does not exist.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none",
}


def is_tiff(data: bytes) -> bool:
    """Check the signature of a TIFF or BigTIFF.

    Args:
        data: The first 4 bytes of a file, or more.
    """
    return data[:4] in _MAGIC


@contextmanager
def open_gtiff(source: Path | str | bytes, name: str) -> Iterator[Any]:
    """Open a TIFF with rasterio.

    Args:
        source: A file, a path below /vsizip/ that the caller has built, or the encoded bytes.
        name: The file as messages name it.

    Yields:
        The open `rasterio.DatasetReader`.

    Raises:
        DataError: If the file names another one as its overviews.
        rasterio.errors.RasterioError: If the file is no TIFF, or damaged.
    """
    import rasterio
    from rasterio.io import MemoryFile

    with rasterio.Env(**_OPTIONS):
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


_ROUNDING_DEG = 1e-9
_HEAD = 64


@dataclass(frozen=True, slots=True)
class GeoTiff:
    """An open single-band raster, north up.

    west, south, east, north: its edges in degrees; `east` may pass 180, it is west + width.
    pixel_deg: (width, height) of a pixel. nodata: None where the file declares none.
    transform, crs: as rasterio gives them, for what must do as GDAL does. Ask them no position.
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
        """Pixels of `window` (row, column, height, width; may be fractional), resampled
        bilinearly to `shape` (rows, columns). Raises DataError naming the file when the pixels
        cannot be read."""
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        part = None
        if window is not None:
            row, column, height, width = window
            part = Window(column, row, width, height)
        try:
            pixels: npt.NDArray[Any] = self._file.read(
                1, window=part, out_shape=shape, resampling=Resampling.bilinear
            )
        except (RasterioError, OSError, ValueError) as error:
            raise self._unreadable(error) from error
        return pixels

    def read_rows(self, first: int, out: npt.NDArray[Any]) -> None:
        """Fill `out` (n, width) with the rows from `first` on. Raises DataError as `read` does."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        try:
            self._file.read(1, window=Window(0, first, self.width, len(out)), out=out)
        except (RasterioError, OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def strips(self) -> tuple[npt.NDArray[np.int64], int] | None:
        """Where whole rows of bytes lie in the file, uncompressed and from north to south: the
        offset of each strip, and the rows of a strip. None for any other layout."""
        rows, columns = self._file.block_shapes[0]
        packed = self._file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8") != "8"
        if self._file.count != 1 or self.dtype != "uint8" or packed:
            return None
        if self._file.compression is not None or columns != self.width:
            return None
        count = -(-self.height // rows)
        tags = (f"BLOCK_OFFSET_0_{number}" for number in range(count))
        found = [self._file.get_tag_item(tag, "TIFF", bidx=1) for tag in tags]
        if None in found:  # a strip that was never written: zeros by convention
            return None
        offsets = np.array(found, dtype=np.int64)
        return (offsets, rows) if bool(np.all(np.diff(offsets) > 0)) else None

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path}: its pixels cannot be read ({error})",
            remedy="The file may be cut short: fetch it again.",
        )


@contextmanager
def open_geotiff(path: Path, *, member: str | None = None) -> Iterator[GeoTiff]:
    """Open a GeoTIFF of Mars, or the one called `member` inside the zip at `path`. Raises
    DataError when it is damaged, has several bands or no CRS, is rotated, is not of Mars, is in
    another projection or reaches over a pole, or bears the name of a quad and does not lie there
    to half a pixel."""
    try:
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "rasterio", "geotiff", needed_for="reading GeoTIFFs"
        ) from error
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file")
    name = str(path) if member is None else f"{path}, {member}"
    _check_signature(path, member, name)
    place = path if member is None else f"/vsizip/{{{path.absolute()}}}/{member}"
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_gtiff(place, name))
        except (RasterioError, OSError) as error:
            raise DataError(
                f"{path}: not readable as a GeoTIFF ({error})", remedy="Fetch it again."
            ) from error
        raster = _described(path, file)
        _check_place(raster)
        yield raster


def _check_signature(path: Path, member: str | None, name: str) -> None:
    """GDAL names no reason, and a file of another format may be an attempt to have it opened."""
    try:
        if member is None:
            with path.open("rb") as file:
                head = file.read(_HEAD)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as packed:
                head = packed.read(_HEAD)
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
            f"{name}: not readable as a GeoTIFF (it begins with {head[:8]!r})",
            remedy="Fetch it again.",
        )


def _described(path: Path, file: Any) -> GeoTiff:
    transform = file.transform
    if file.crs is None:
        raise DataError(
            f"{path}: no coordinate system", remedy="It must be georeferenced on the Mars sphere."
        )
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise DataError(f"{path}: not north up; rotated and flipped rasters are not read")
    if file.count != 1:
        raise DataError(f"{path}: {file.count} bands, one is expected")
    try:
        radius, _ = geo.mars_ellipsoid(file.crs.to_dict(projjson=True))
    except ValueError as error:
        raise DataError(
            f"{path}: {error}",
            remedy="Mars has 3,396 km. Files labelled as Earth (EPSG:4326) are refused.",
        ) from error
    corners = np.array([[transform.c, transform.f], [transform.a, -transform.e]])
    if not file.crs.is_geographic:
        _check_projection(path, file.crs)
        corners = np.column_stack(geo.metres_to_lonlat(corners[:, 0], corners[:, 1]))
        corners *= geo.MARS_RADIUS_M / radius
    (west, north), (pixel_x, pixel_y) = corners.tolist()
    south = north - file.height * pixel_y
    # A map of points, not cells, may reach half a pixel over the poles.
    if north > 90 + pixel_y or south < -90 - pixel_y or file.width * pixel_x > 360 + 2 * pixel_x:
        raise DataError(
            f"{path}: reaches from {south:.2f} to {north:.2f} degrees of latitude and over "
            f"{file.width * pixel_x:.2f} of longitude, which is no part of a planet",
            remedy="Its transform is not in the unit that its coordinate system says.",
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
    """Only x = R lon, y = R lat: no other meridian, parallel, origin or unit."""
    told = crs.to_dict(projjson=True).get("conversion", {})
    method = told.get("method", {}).get("name", "")
    others = [
        f"{each.get('name')} {each.get('value'):g}"
        for each in told.get("parameters", [])
        if each.get("value")
    ]
    if "Equidistant Cylindrical" not in method and "Equirectangular" not in method:
        wrong = f"neither in degrees nor equirectangular ({crs.to_string()[:80]})"
    elif others:
        wrong = f"equirectangular, but with {', '.join(others)}; zero is expected"
    elif crs.linear_units_factor[1] != 1:
        wrong = f"in units of {crs.linear_units_factor[0]}, not metres"
    else:
        return
    raise DataError(f"{path}: {wrong}", remedy="Warp it to IAU_2015:49910 first.")


def _check_place(raster: GeoTiff) -> None:
    named = geo.parse_quad_name(raster.path.name)
    if named is None:
        return
    lon, lat = named
    off = ((raster.west - lon + 180) % 360 - 180, raster.south - lat)
    if any(abs(each) > pixel / 2 for each, pixel in zip(off, raster.pixel_deg, strict=True)):
        raise DataError(
            f"{raster.path}: named for {lon}, {lat}, but its south-west corner is at "
            f"{raster.west:.4f}, {raster.south:.4f} degrees",
            remedy="Renamed, or written by another formula: its tiles would be misplaced.",
        )
