"""Tiles of one quad: bands of rows are read in sequence and cut by all threads."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.ctx.grid import Tile, TileSpec
from marsretrieval.datasets.ctx.mosaic import NO_DATA
from marsretrieval.datasets.ctx.quad import QuadFile
from marsretrieval.datasets.ctx.resample import COLUMN_BLOCK, ROW_BLOCK, Axis, axis, resample
from marsretrieval.datasets.geotiff import GeoTiff
from marsretrieval.errors import DataError

_BLOCK = 512
# GDAL's coordinate systems are not thread-safe, and all threads share the quad's. Few tiles need
# this lock.
_LOCK = Lock()
_JPEG_QUALITY = 90
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SUB = 1  # PNG filter type: difference to the left neighbour
# Two bands are in memory: one is cut while the next is read. A row of 0.2 degree tiles of the
# mosaic has 112 MB; taller tiles are cut in parts.
_BANDS = 2
_BAND_BYTES = 128 * 2**20
# Decimals of a pixel: rounding removes the float error of degrees, so that tiles share weights.
_ORIGIN_DECIMALS, _STEP_DECIMALS = 9, 12
Bytes = npt.NDArray[np.uint8]


@dataclass(slots=True)
class CutTile:
    """Result of cutting one tile.

    Attributes:
        tile: The tile.
        data: Encoded image.
        valid: Share of its source pixels that have data (0 to 1).
        failed: Error message if there is no image.
    """

    tile: Tile
    data: bytes = b""
    valid: float = 0.0
    failed: str | None = None


def cut(
    file: QuadFile, rows: Sequence[Sequence[Tile]], spec: TileSpec, pool: Executor
) -> Iterator[CutTile]:
    """Cut the tiles of a quad.

    Args:
        file: The open quad.
        rows: Tiles by row, as `tile_rows` lists them.
        spec: Tile specification.
        pool: Executor that cuts the tiles.

    Yields:
        Tiles in the order of `rows`. If damage is local, tiles that need unreadable rows are
        marked as failed.

    Raises:
        DataError: If the file as a whole is damaged.
    """
    parts = (part for row in rows for part in _parts(file.raster, row, spec))
    bands = _BandBuffers(file.raster.width)
    in_flight: deque[tuple[_Part, list[Future[None]]]] = deque()
    previous: tuple[_Part, Bytes] | None = None
    try:
        for number, part in enumerate(parts):
            if len(in_flight) == _BANDS:
                yield from _finished(*in_flight.popleft())
            band = bands.take(number, part.end - part.first)
            try:
                _fill(file, part, band, previous)
                previous = part, band
            except DataError as error:
                if not file.damage_is_local:
                    raise
                previous = None
                for job in part.jobs:
                    job.result.failed = error.message
            futures = [pool.submit(job.take, part, band) for job in part.jobs]
            in_flight.append((part, futures))
        while in_flight:
            yield from _finished(*in_flight.popleft())
        file.finish()
    finally:
        for _, futures in in_flight:
            for future in futures:
                future.cancel()


class _BandBuffers:
    """Reused buffers of the bands: allocating new pages would cost as much as reading."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._bands = [np.empty((0, width), dtype=np.uint8) for _ in range(_BANDS)]

    def take(self, number: int, height: int) -> Bytes:
        slot = number % _BANDS
        if len(self._bands[slot]) < height:
            self._bands[slot] = np.empty((height, self._width), dtype=np.uint8)
        return self._bands[slot][:height]


def _fill(file: QuadFile, part: _Part, band: Bytes, previous: tuple[_Part, Bytes] | None) -> None:
    """Read the rows of `part`, copying those that the previous band also holds."""
    shared = 0
    if previous is not None and previous[0].first <= part.first < previous[0].end:
        shared = min(previous[0].end, part.end) - part.first
        offset = part.first - previous[0].first
        band[:shared] = previous[1][offset : offset + shared]
    if shared < len(band):
        file.read(part.first + shared, band[shared:])


def _finished(part: _Part, futures: Sequence[Future[None]]) -> Iterator[CutTile]:
    for job, future in zip(part.jobs, futures, strict=True):
        try:
            future.result()
        except CancelledError:
            raise  # the caller has stopped
        except Exception as error:  # report the tile as failed and cut the others
            job.result.failed = f"{type(error).__name__}: {error}"
        if part.last:
            yield job.result


@dataclass(slots=True)
class _Part:
    """Output rows `top` to `bottom` of a row of tiles.

    They are made from source rows `first` to `end`; rows `own_first` to `own_end` lie inside the
    tiles.
    """

    jobs: Sequence[_TileJob]
    top: int
    bottom: int
    first: int
    end: int
    own_first: int
    own_end: int
    y: Axis
    last: bool


@dataclass(slots=True)
class _TileJob:
    """Tile being cut. Several threads may process parts of it at once."""

    raster: GeoTiff
    spec: TileSpec
    first: int  # source columns read: from here
    end: int  # to here
    own_first: int  # of these inside the tile: from here
    own_end: int
    x: Axis
    parts: int
    result: CutTile
    pixels: Bytes
    counted: int = 0
    with_data: int = 0
    lock: Lock = field(default_factory=Lock)

    def take(self, part: _Part, band: Bytes) -> None:
        if self.result.failed is not None:
            return
        raster, tile = self.raster, self.result.tile
        nodata = raster.nodata
        no_data = int(nodata) if nodata is not None and nodata in range(256) else None
        source = band[:, self.first : self.end]
        resampled = resample(source, part.y, self.x, no_data=no_data)
        pixels = resampled.pixels
        if self.spec.exact:
            if resampled.ties:
                pixels = published_pixels(
                    raster, source, part.first, self.first, tile, self.spec.size
                )[part.top : part.bottom]
            if no_data is None:
                pixels = np.maximum(pixels, 1)  # gdalwarp reserves 0 for pixels it did not compute
        self.pixels[part.top : part.bottom] = pixels
        own = band[
            part.own_first - part.first : part.own_end - part.first, self.own_first : self.own_end
        ]
        empty = NO_DATA if no_data is None else no_data
        # The minimum takes a third of the time of a count and usually suffices.
        full = empty == 0 and bool(own.min())
        with_data = own.size if full else int(np.count_nonzero(own != empty))
        with self.lock:
            self.counted += own.size
            self.with_data += with_data
            self.parts -= 1
            last = self.parts == 0
        if last:
            self.result.valid = self.with_data / self.counted
            self.result.data = encode(self.pixels, self.spec.format)
            self.pixels = self.pixels[:0].copy()


def _parts(raster: GeoTiff, row: Sequence[Tile], spec: TileSpec) -> Iterator[_Part]:
    """Split a row of tiles into parts that fit into a band."""
    pixel = raster.pixel_deg[1]
    north = (raster.north - row[0].north) / pixel
    span = (row[0].north - row[0].south) / pixel
    count = min(spec.size, math.ceil(span * raster.width / _BAND_BYTES))
    jobs = [_job(raster, tile, spec, count) for tile in row]
    edges = [round(spec.size * number / count) for number in range(count + 1)]
    for top, bottom in pairwise(edges):
        step = span / spec.size
        start, stop = north + top * step, north + bottom * step
        first, end, y = _window(start, step, bottom - top, raster.height, ROW_BLOCK)
        own_first, own_end = _pixel_range(start, stop, raster.height)
        last = bottom == spec.size
        yield _Part(jobs, top, bottom, first, end, own_first, own_end, y, last)


def _job(raster: GeoTiff, tile: Tile, spec: TileSpec, parts: int) -> _TileJob:
    pixel = raster.pixel_deg[0]
    west = ((tile.west - raster.west + 180) % 360 - 180) / pixel
    span = (tile.east - tile.west) / pixel
    first, end, x = _window(west, span / spec.size, spec.size, raster.width, COLUMN_BLOCK)
    own_first, own_end = _pixel_range(west, west + span, raster.width)
    pixels = np.empty((spec.size, spec.size), dtype=np.uint8)
    return _TileJob(raster, spec, first, end, own_first, own_end, x, parts, CutTile(tile), pixels)


def _window(
    start: float, step: float, count: int, length: int, block: int
) -> tuple[int, int, Axis]:
    """Return the source pixels that `count` outputs from `start` on need, and their weights."""
    margin = max(1.0, step) + 2
    first = max(0, math.floor(start - margin))
    end = min(length, math.ceil(start + count * step + margin))
    origin = round(start - first, _ORIGIN_DECIMALS)
    return first, end, axis(end - first, origin, round(step, _STEP_DECIMALS), count, block)


def _pixel_range(start: float, stop: float, length: int) -> tuple[int, int]:
    """Return the range of whole pixels between two edges, at least one."""
    first = min(max(0, round(start)), length - 1)
    return first, min(length, max(first + 1, round(stop)))


def published_pixels(
    raster: GeoTiff, window: Bytes, row: int, column: int, tile: Tile, size: int
) -> Bytes:
    """Warp a tile with GDAL, as gdalwarp does from the file itself.

    Args:
        raster: Metadata of the quad.
        window: uint8 array: the part of the raster that surrounds the tile.
        row: First row of the window in the raster.
        column: First column of the window in the raster.
        tile: The tile.
        size: Width and height of the result in pixels.

    Returns:
        uint8 array of shape (size, size), bilinear, no-data not yet raised to 1.
    """
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.io import MemoryFile
    from rasterio.transform import from_bounds
    from rasterio.warp import reproject
    from rasterio.windows import Window

    pixels = np.zeros((size, size), dtype=np.uint8)
    height, width = window.shape
    with (
        _LOCK,
        rasterio.Env(),
        MemoryFile() as memory,
        memory.open(
            driver="GTiff",
            width=raster.width,
            height=raster.height,
            count=1,
            dtype="uint8",
            crs=raster.crs,
            transform=raster.transform,
            nodata=raster.nodata,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            SPARSE_OK=True,  # only the window takes memory
        ) as quad,
    ):
        quad.write(window, 1, window=Window(column, row, width, height))
        reproject(
            rasterio.band(quad, 1),
            pixels,
            dst_transform=from_bounds(*_edges(raster, tile), size, size),
            dst_crs=raster.crs,
            dst_nodata=0,
            resampling=Resampling.bilinear,
            num_threads=1,
        )
    return pixels


def _edges(raster: GeoTiff, tile: Tile) -> tuple[float, ...]:
    """Return west, south, east, north in the units of the file's CRS."""
    if raster.crs.is_geographic:
        return tile.west, tile.south, tile.east, tile.north
    x, y = geo.lonlat_to_metres([tile.west, tile.east], [tile.south, tile.north])
    scale = raster.transform.a / float(geo.lonlat_to_metres(raster.pixel_deg[0], 0)[0])
    if abs(scale - 1) > 1e-9:  # a sphere of another radius
        x, y = x * scale, y * scale
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])


def encode(pixels: Bytes, kind: str) -> bytes:
    """Encode an 8-bit grey image.

    Args:
        pixels: uint8 array of shape (h, w).
        kind: `png` or `jpeg`.

    Returns:
        Content of the image file.
    """
    return _png(pixels) if kind == "png" else _jpeg(pixels)


def encoder_name(kind: str) -> str:
    """Name the compression library for the manifest: file bytes (not pixels) depend on it.

    Args:
        kind: `png` or `jpeg`.

    Returns:
        Name and settings of the encoder.
    """
    return f"Pillow, quality {_JPEG_QUALITY}" if kind == "jpeg" else _DEFLATE_NAME


def _png(pixels: Bytes) -> bytes:
    height, width = pixels.shape
    lines = np.empty((height, width + 1), dtype=np.uint8)
    lines[:, 0] = _SUB
    lines[:, 1] = pixels[:, 0]
    np.subtract(pixels[:, 1:], pixels[:, :-1], out=lines[:, 2:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", _deflate(lines.data)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def _jpeg(pixels: Bytes) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def _find_deflate() -> tuple[Callable[[memoryview], bytes], str]:
    """Use ISA-L if it is installed: a third of zlib's time at the same size."""
    try:
        from isal import isal_zlib  # noqa: F401
    except ImportError:
        return lambda data: zlib.compress(data, 1), "zlib, level 1"
    return _deflate_with_isal, "isal, level 2, first byte stored"


def _deflate_with_isal(data: memoryview) -> bytes:
    """Return a zlib stream that depends on `data` alone.

    At levels 1 and 2, ISA-L (2.32) hashes an address on the stack in place of the bytes at
    position 2, but only at the start of a stream without history: equal pixels then give other
    bytes in one of thousands of tiles. So the first byte is a stored block and the history.
    """
    from isal import isal_zlib

    flat = data.cast("B")
    first = bytes(flat[:1])
    stream = isal_zlib.compressobj(2, wbits=-zlib.MAX_WBITS, zdict=first)
    return b"".join(
        [
            b"\x78\x01",  # zlib: deflate, 32 KiB window, fast
            b"\x00\x01\x00\xfe\xff" + first,  # stored block of one byte, not the last block
            stream.compress(flat[1:]),
            stream.flush(),
            struct.pack(">I", isal_zlib.adler32(flat)),
        ]
    )


_deflate, _DEFLATE_NAME = _find_deflate()
