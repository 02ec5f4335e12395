"""The GeoTIFF inside one of the mosaic's zips, inflated from front to back, nothing on disk."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Self

from marsretrieval.errors import DataError

_CHUNK = 2**19
_INFLATED = 2**22
_LOCAL_HEADER = 30
_DAMAGED = "Delete it and fetch it again."


def geotiff_in(path: Path) -> zipfile.ZipInfo:
    """The one GeoTIFF of a zip. Raises DataError when the zip is damaged, cut short, packed in a
    way that cannot be streamed, or holds none or several."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [
                info
                for info in archive.infolist()
                if info.filename.lower().endswith((".tif", ".tiff"))
                and not PurePosixPath(info.filename).name.startswith(".")
            ]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: damaged or cut short, not a whole zip ({error})", remedy=_DAMAGED
        ) from error
    if len(found) != 1:
        raise DataError(f"{path}: {len(found)} GeoTIFFs in this zip, where one is expected")
    info = found[0]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise DataError(
            f"{path}: packed by a method that cannot be read here ({info.compress_type})",
            remedy="Unpack it with another program and name the GeoTIFF.",
        )
    return info


class Member:
    """Forward-only reading, checked at the end. Raises DataError when the data are damaged."""

    def __init__(self, path: Path, info: zipfile.ZipInfo) -> None:
        self._path = path
        self._info = info
        self._file = path.open("rb")
        try:
            self._file.seek(info.header_offset)
            header = self._file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\3\4":
                raise self._damaged("no header where its table of contents says")
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
        """Fill `out` with the bytes from `offset` on; offsets never decrease."""
        self._skip_to(offset)
        filled = 0
        while filled < len(out):
            part = self._next(len(out) - filled)
            out[filled : filled + len(part)] = part
            filled += len(part)

    def finish(self) -> None:
        """Inflate the rest and compare length and CRC-32 with what the zip records."""
        self._skip_to(self._info.file_size)
        if self._pending:
            raise self._damaged("it is longer than recorded")
        if self._crc != self._info.CRC:
            raise self._damaged("its checksum (CRC-32) is wrong")

    def _skip_to(self, offset: int) -> None:
        if offset < self._position:
            raise ValueError("a zip is read forwards only")
        while self._position < offset:
            self._next(offset - self._position)

    def _next(self, most: int) -> memoryview:
        """At most `most` bytes, at least one."""
        while not self._pending:
            self._refill()
        part, self._pending = self._pending[:most], self._pending[most:]
        self._position += len(part)
        return part

    def _refill(self) -> None:
        if not self._packed and self._packed_left:
            try:
                self._packed = self._file.read(min(_CHUNK, self._packed_left))
            except OSError as error:
                raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error
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

    def _damaged(self, what: str) -> DataError:
        return DataError(f"{self._path}: damaged: {what}", remedy=_DAMAGED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _inflater(
    method: int,
) -> tuple[Callable[[bytes], tuple[bytes, bytes]], Callable[[bytes, int], int]]:
    """Two functions: inflate some bytes and return the rest; go on with a CRC-32."""
    library: Any = zlib
    try:
        from isal import isal_zlib

        library = isal_zlib  # a fifth faster over a whole quad
    except ImportError:
        pass
    if method == zipfile.ZIP_STORED:
        return lambda data: (data, b""), library.crc32
    stream = library.decompressobj(-zlib.MAX_WBITS)

    def inflate(data: bytes) -> tuple[bytes, bytes]:
        # Bounded: a megabyte of packed no-data would be a gigabyte of zeros.
        return stream.decompress(data, _INFLATED), stream.unconsumed_tail

    return inflate, library.crc32
