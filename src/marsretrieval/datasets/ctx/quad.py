"""Rows of a quad, read from north to south out of a GeoTIFF or a zip.

Uncompressed strips, the mosaic's layout, are read directly from the file, or from the zip while
it is inflated. Other layouts are read through GDAL, after unpacking a zip to the scratch folder.
"""

from __future__ import annotations

import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.ctx.mosaic import Quad, check_quad
from marsretrieval.datasets.geotiff import GeoTiff, open_geotiff
from marsretrieval.datasets.listing import check_space
from marsretrieval.errors import DataError, MissingDependencyError, OutputError

_CHUNK = 2**19
_INFLATED = 2**22
_LOCAL_HEADER = 30
_DAMAGED = "Delete it and fetch it again."
# Cache size in bytes: enough for a row of blocks in any common layout. One thread, because the
# tiles are already cut in parallel.
_GDAL = {"GDAL_CACHEMAX": 64 * 2**20, "GDAL_NUM_THREADS": 1}
UNPACKED = "unpacked-"
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class QuadFile:
    """Quad opened for reading.

    Attributes:
        raster: The GeoTIFF's metadata.
        read: Fill an array of shape (n, width) with the rows from a given one on. Rows must not
            decrease between calls. Raises DataError.
        finish: Read the rest of the file and verify its checksum, if it has one. Raises DataError.
        damage_is_local: Whether other rows can still be trusted after a failed read.
    """

    raster: GeoTiff
    read: Callable[[int, Bytes], None]
    finish: Callable[[], None]
    damage_is_local: bool


@contextmanager
def open_quad(path: Path, quad: Quad, scratch: Path) -> Iterator[QuadFile]:
    """Open the GeoTIFF or zip of a quad.

    Args:
        path: GeoTIFF or zip.
        quad: Quad that the file must cover.
        scratch: Folder for an unpacked zip.

    Yields:
        The open quad.

    Raises:
        DataError: If the file is damaged or covers another area.
        MissingDependencyError: If rasterio is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise MissingDependencyError("rasterio", "geotiff", needed_for="cutting tiles") from error
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(**_GDAL))
        opened = _open_zip if path.suffix.lower() == ".zip" else _open_geotiff
        yield opened(path, quad, scratch, stack)


def _open_geotiff(path: Path, quad: Quad, scratch: Path, stack: ExitStack) -> QuadFile:
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path}: an empty file", remedy="Fetch or unpack it again.")
    raster = stack.enter_context(open_geotiff(path))
    check_quad(raster, quad, source=str(path))
    strips = raster.strips()
    read: Callable[[int, Bytes], None] = raster.read_rows
    if strips is not None:
        read = _strip_reader(stack.enter_context(_PlainFile(path)), raster.width, *strips)
    return QuadFile(raster, read, lambda: None, damage_is_local=True)


def _open_zip(path: Path, quad: Quad, scratch: Path, stack: ExitStack) -> QuadFile:
    info = geotiff_in(path)
    source = f"{path}, {info.filename}"
    if geo.parse_quad_name(info.filename) != (quad.west, quad.south):
        raise DataError(
            f"{source}: not the quad that the zip is named for ({quad.name})",
            remedy="Rename the zip, or download it again.",
        )
    raster = stack.enter_context(open_geotiff(path, member=info.filename))
    check_quad(raster, quad, source=source)
    strips = raster.strips()
    if strips is not None:
        member = stack.enter_context(ZipStream(path, info))
        read = _strip_reader(member, raster.width, *strips)
        return QuadFile(raster, read, member.finish, damage_is_local=False)
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch, prefix=UNPACKED)))
    unpacked = folder / Path(info.filename).name
    _unpack(path, unpacked)
    return _open_geotiff(unpacked, quad, scratch, stack)


def _unpack(path: Path, unpacked: Path) -> None:
    """Unpack the GeoTIFF of a zip.

    Raises:
        DataError: If the zip is damaged.
        OutputError: If there is not enough disk space.
    """
    info = geotiff_in(path)
    check_space(unpacked.parent, info.file_size)
    buffer = memoryview(bytearray(2**22))
    with ZipStream(path, info) as member:
        try:
            with unpacked.open("wb") as file:
                for offset in range(0, info.file_size, len(buffer)):
                    part = buffer[: info.file_size - offset]
                    member.read_at(offset, part)
                    file.write(part)
        except OSError as error:
            raise OutputError(
                f"{unpacked}: cannot be written ({error.strerror})",
                remedy="Choose another folder with --scratch, or free space in it.",
            ) from error
        member.finish()


def geotiff_in(path: Path) -> zipfile.ZipInfo:
    """Find the only GeoTIFF of a zip.

    Args:
        path: The zip.

    Returns:
        Entry of the GeoTIFF in the zip's table of contents.

    Raises:
        DataError: If the zip is damaged or truncated, uses a compression method that cannot be
            streamed, or does not hold exactly one GeoTIFF.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                info
                for info in archive.infolist()
                if info.filename.lower().endswith((".tif", ".tiff"))
                and not PurePosixPath(info.filename).name.startswith(".")
            ]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: damaged or incomplete zip ({error})", remedy=_DAMAGED) from error
    if len(members) != 1:
        raise DataError(
            f"{path}: {len(members)} GeoTIFFs in this zip, expected one",
            remedy="Download the zip again.",
        )
    info = members[0]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise DataError(
            f"{path}: unsupported compression method ({info.compress_type})",
            remedy="Unpack it with another program and give the GeoTIFF.",
        )
    return info


class ZipStream:
    """Forward-only reader of one file in a zip, verified at the end.

    Args:
        path: The zip.
        info: Entry of the file.

    Raises:
        DataError: If the data are damaged; raised by every method.
    """

    def __init__(self, path: Path, info: zipfile.ZipInfo) -> None:
        self._path = path
        self._info = info
        self._file = path.open("rb")
        try:
            self._file.seek(info.header_offset)
            header = self._file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\3\4":
                raise self._damaged("no header at the offset in its directory")
            name, extra = struct.unpack("<HH", header[26:30])
            self._file.seek(name + extra, 1)
        except BaseException:
            self._file.close()
            raise
        self._packed_left = info.compress_size
        self._packed = b""
        self._inflate, self._crc32 = _inflater(info.compress_type)
        self._pending = memoryview(b"")
        self._crc = 0
        self._position = 0

    def read_at(self, offset: int, out: memoryview) -> None:
        """Fill a buffer with the bytes from an offset on.

        Args:
            offset: Offset in the uncompressed file, not below the end of the previous read.
            out: Buffer to fill.

        Raises:
            DataError: If the data are damaged or end too early.
            ValueError: If `offset` lies before the end of the previous read.
        """
        self._skip_to(offset)
        filled = 0
        while filled < len(out):
            part = self._next(len(out) - filled)
            out[filled : filled + len(part)] = part
            filled += len(part)

    def finish(self) -> None:
        """Inflate the rest, and compare length and CRC-32 with the values recorded in the zip."""
        self._skip_to(self._info.file_size)
        if self._pending:
            raise self._damaged("it is longer than recorded")
        if self._crc != self._info.CRC:
            raise self._damaged("its checksum (CRC-32) is wrong")

    def _skip_to(self, offset: int) -> None:
        if offset < self._position:
            raise ValueError("a zip member can only be read sequentially")
        while self._position < offset:
            self._next(offset - self._position)

    def _next(self, limit: int) -> memoryview:
        """Return 1 to `limit` bytes."""
        while not self._pending:
            self._refill()
        part, self._pending = self._pending[:limit], self._pending[limit:]
        self._position += len(part)
        return part

    def _refill(self) -> None:
        if not self._packed and self._packed_left:
            try:
                self._packed = self._file.read(min(_CHUNK, self._packed_left))
            except OSError as error:
                raise DataError(
                    f"{self._path}: cannot be read ({error.strerror})",
                    remedy="Check the permissions and the disk, or copy the file again.",
                ) from error
            self._packed_left -= len(self._packed)
            if not self._packed:
                raise self._damaged("it ends too early")
        last = not self._packed
        try:
            data, self._packed = self._inflate(self._packed)
        except Exception as error:  # zlib.error, or that of ISA-L
            raise self._damaged(str(error)) from error
        if last and not data:
            raise self._damaged("it ends too early")
        self._crc = self._crc32(data, self._crc)
        self._pending = memoryview(data)

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self._path}: damaged: {reason}", remedy=_DAMAGED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _inflater(
    method: int,
) -> tuple[Callable[[bytes], tuple[bytes, bytes]], Callable[[bytes, int], int]]:
    """Return two functions: inflate a chunk and return its unused rest; update a CRC-32."""
    library: Any = zlib
    try:
        from isal import isal_zlib

        library = isal_zlib  # a fifth faster per quad
    except ImportError:
        pass
    if method == zipfile.ZIP_STORED:
        return lambda data: (data, b""), library.crc32
    stream = library.decompressobj(-zlib.MAX_WBITS)

    def inflate(data: bytes) -> tuple[bytes, bytes]:
        # Bounded: a megabyte of compressed no-data inflates to a gigabyte of zeros.
        return stream.decompress(data, _INFLATED), stream.unconsumed_tail

    return inflate, library.crc32


class _ByteSource(Protocol):
    def read_at(self, offset: int, out: memoryview) -> None: ...


def _strip_reader(
    stream: _ByteSource, width: int, offsets: npt.NDArray[np.int64], height: int
) -> Callable[[int, Bytes], None]:
    """Return a function that reads rows from strips; contiguous rows in one read."""

    def read(first: int, out: Bytes) -> None:
        rows = np.arange(first, first + len(out))
        row_offsets = offsets[rows // height] + rows % height * width
        breaks = np.flatnonzero(np.diff(row_offsets) != width) + 1
        for start, end in zip([0, *breaks], [*breaks, len(out)], strict=True):
            stream.read_at(int(row_offsets[start]), out[start:end].data.cast("B"))

    return read


class _PlainFile:
    """Uncompressed file with random access."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)

    def read_at(self, offset: int, out: memoryview) -> None:
        try:
            self._file.seek(offset)
            filled = 0
            while filled < len(out):
                count = self._file.readinto(out[filled:])
                if not count:
                    raise DataError(
                        f"{self._path}: cut short: it ends after {offset + filled:,} bytes",
                        remedy="Unpack or fetch it again.",
                    )
                filled += count
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be read ({error.strerror})",
                remedy="Check the permissions and the disk, or copy the file again.",
            ) from error

    def __enter__(self) -> _PlainFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
