"""Rows of a quad from north to south, whatever file they lie in.

The mosaic's GeoTIFFs are taken to be uncompressed strips: their bytes are read straight from the
file, or from the zip while it is inflated. Any other layout is read through GDAL, out of a zip
after unpacking it to the scratch folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets._disk import check_space
from marsretrieval.datasets.ctx._member import Member, geotiff_in
from marsretrieval.datasets.ctx._mosaic import Quad, check_quad
from marsretrieval.datasets.geotiff import GeoTiff, open_geotiff
from marsretrieval.errors import DataError, MissingDependencyError, OutputError

# The cache is in bytes, as rasterio passes it on: a row of blocks of any usual layout. One thread,
# whatever the environment asks for: the tiles keep the CPUs busy.
_GDAL = {"GDAL_CACHEMAX": 64 * 2**20, "GDAL_NUM_THREADS": 1}
UNPACKED = "unpacked-"

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class QuadFile:
    """An open quad.

    read: fills (n, width) bytes with the rows from the first given on; rows never go back.
    finish: reads what is left and checks it, where there is a checksum to check.
    damage_is_local: a failed read tells nothing of the rows that did not fail.

    `read` and `finish` raise DataError.
    """

    raster: GeoTiff
    read: Callable[[int, Bytes], None]
    finish: Callable[[], None]
    damage_is_local: bool


class _Stream(Protocol):
    def read_at(self, offset: int, out: memoryview) -> None: ...


@contextmanager
def open_quad(path: Path, quad: Quad, scratch: Path) -> Iterator[QuadFile]:
    """Open the GeoTIFF or zip of a quad; it must lie where it is named. Raises DataError."""
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
        read = _strip_reader(stack.enter_context(_File(path)), raster.width, *strips)
    return QuadFile(raster, read, lambda: None, damage_is_local=True)


def _open_zip(path: Path, quad: Quad, scratch: Path, stack: ExitStack) -> QuadFile:
    info = geotiff_in(path)
    source = f"{path}, {info.filename}"
    if geo.parse_quad_name(info.filename) != (quad.west, quad.south):
        raise DataError(f"{source}: not the quad that the zip is named for ({quad.name})")
    raster = stack.enter_context(open_geotiff(path, member=info.filename))
    check_quad(raster, quad, source=source)
    strips = raster.strips()
    if strips is not None:
        member = stack.enter_context(Member(path, info))
        read = _strip_reader(member, raster.width, *strips)
        return QuadFile(raster, read, member.finish, damage_is_local=False)
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch, prefix=UNPACKED)))
    unpacked = folder / Path(info.filename).name
    _unpack(path, unpacked)
    return _open_geotiff(unpacked, quad, scratch, stack)


def _unpack(path: Path, unpacked: Path) -> None:
    """Raises DataError when the zip is damaged, OutputError when there is no room."""
    info = geotiff_in(path)
    check_space(unpacked.parent, info.file_size)
    buffer = memoryview(bytearray(2**22))
    with Member(path, info) as member:
        try:
            with unpacked.open("wb") as file:
                for offset in range(0, info.file_size, len(buffer)):
                    part = buffer[: info.file_size - offset]
                    member.read_at(offset, part)
                    file.write(part)
        except OSError as error:
            raise OutputError(f"{unpacked}: cannot be written ({error.strerror})") from error
        member.finish()


def _strip_reader(
    stream: _Stream, width: int, offsets: npt.NDArray[np.int64], height: int
) -> Callable[[int, Bytes], None]:
    """Reads rows out of strips of `height` rows each; neighbouring strips in one go."""

    def read(first: int, out: Bytes) -> None:
        rows = np.arange(first, first + len(out))
        places = offsets[rows // height] + rows % height * width
        breaks = np.flatnonzero(np.diff(places) != width) + 1
        for start, end in zip([0, *breaks], [*breaks, len(out)], strict=True):
            stream.read_at(int(places[start]), out[start:end].data.cast("B"))

    return read


class _File:
    """A plain file, read where asked."""

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
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
