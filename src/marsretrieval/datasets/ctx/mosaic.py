"""Layout of the Murray Lab global CTX mosaic (V01), and its files.

Quads of 4 x 4 degrees are named by their south-west corner, from 180 W and 88 S on. Pixels are
grey bytes, 47,420 per side (5.0 m), 0 for no data, with x = R lon and y = R lat on the sphere of
3,396,190 m, whatever ellipsoid the file's CRS names. A zip holds one GeoTIFF.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from marsretrieval import geo
from marsretrieval.datasets.geotiff import GeoTiff
from marsretrieval.datasets.listing import list_visible
from marsretrieval.errors import DataError, DatasetNotFoundError, UsageError
from marsretrieval.text import suggest_path

SERVER = "https://murray-lab.caltech.edu/CTX/V01/tiles"
NO_DATA = 0
SOUTHMOST, NORTHMOST = -88, 84  # south edges of the first and the last row of quads

# Typical size of a zip, used for estimates only.
ZIP_BYTES = 1_730_000_000
_TIFF = (".tif", ".tiff")
_ZIP = ".zip"


@dataclass(frozen=True, slots=True, order=True)
class Quad:
    """Quad of the mosaic.

    Attributes:
        south: Latitude of the south-west corner in whole degrees.
        west: Longitude of the south-west corner in whole degrees.
    """

    south: int
    west: int

    @property
    def name(self) -> str:
        """Name of the quad, such as E-004_N-04."""
        return geo.quad_name(self.west, self.south)

    @property
    def box(self) -> geo.Box:
        """Bounding box in degrees."""
        side = geo.QUAD_DEG
        return geo.Box(self.west, self.south, self.west + side, self.south + side)

    @property
    def zip_name(self) -> str:
        """File name of the zip on the server."""
        return f"MurrayLab_GlobalCTXMosaic_V01_{self.name}.zip"


def all_quads() -> Iterator[Quad]:
    """Iterate over the 3,960 quads, from south to north, then from west to east."""
    for south in range(SOUTHMOST, NORTHMOST + 1, geo.QUAD_DEG):
        for west in range(-180, 180, geo.QUAD_DEG):
            yield Quad(south, west)


def quads_in(box: geo.Box) -> list[Quad]:
    """List the quads that a box overlaps.

    Args:
        box: Bounding box in degrees.

    Returns:
        Quads that share an area with the box, in the mosaic's order.

    Raises:
        UsageError: If no quad overlaps the box.
    """
    quads = [quad for quad in all_quads() if quad.box.overlaps(box)]
    if not quads:
        raise UsageError(
            "no quad of the mosaic overlaps that box",
            remedy=f"The mosaic reaches from {SOUTHMOST} to {NORTHMOST + geo.QUAD_DEG} degrees.",
        )
    return quads


def part_outside(box: geo.Box) -> str | None:
    """Describe the part of a box north or south of the mosaic.

    Args:
        box: Bounding box in degrees.

    Returns:
        A message, or None if the mosaic covers the latitudes of the box.
    """
    south, north = SOUTHMOST, NORTHMOST + geo.QUAD_DEG
    parts = []
    if box.south < south:
        parts.append(f"{box.south:g} to {min(box.north, south):g}")
    if box.north > north:
        parts.append(f"{max(box.south, north):g} to {box.north:g}")
    if not parts:
        return None
    return (
        f"latitudes {' and '.join(parts)} of the box lie outside of the mosaic, which reaches "
        f"from {south} to {north} degrees"
    )


def parse_quads(text: str) -> list[Quad]:
    """Parse a comma-separated list of quad names, such as "E-004_N-04,E176_N-04".

    Args:
        text: The list.

    Returns:
        Quads in the mosaic's order, without duplicates.

    Raises:
        UsageError: If a name is invalid or the list is empty.
    """
    quads_by_name = {quad.name: quad for quad in all_quads()}
    quads = set()
    for part in filter(None, (name.strip() for name in text.split(","))):
        if part not in quads_by_name:
            raise UsageError(
                f"'{part}' is not a quad of the mosaic",
                remedy="Quads are named by their south-west corner, every 4 degrees, with three "
                f"and two digits: {geo.quad_name(-4, -4)}, {geo.quad_name(136, 0)}.",
            )
        quads.add(quads_by_name[part])
    if not quads:
        raise UsageError(
            "no quads given", remedy="Name quads by their south-west corner: E-004_N-04,E136_N00."
        )
    return sorted(quads)


def check_quad(raster: GeoTiff, quad: Quad, *, source: str) -> None:
    """Check that a raster has byte pixels and covers a quad to within half a pixel.

    Args:
        raster: The opened GeoTIFF.
        quad: Quad that the file is named for.
        source: File name for error messages.

    Raises:
        DataError: If the pixel type or an edge differs.
    """
    if raster.dtype != "uint8":
        raise DataError(
            f"{source}: pixels of {raster.dtype}, expected uint8",
            remedy="Use the 8-bit quads that the Murray Lab publishes.",
        )
    side = geo.QUAD_DEG
    raster_edges = (raster.west, raster.south, raster.east, raster.north)
    quad_edges = (quad.west, quad.south, quad.west + side, quad.south + side)
    pixels = raster.pixel_deg * 2
    offsets = [
        abs(a - b) / pixel for a, b, pixel in zip(raster_edges, quad_edges, pixels, strict=True)
    ]
    if max(offsets) > 0.5:
        edges = ", ".join(f"{edge:.4f}" for edge in raster_edges)
        raise DataError(
            f"{source}: named {quad.name}, but its extent is {edges} (west, south, east, north)",
            remedy="Use the original file: the tiles of a renamed or cropped one would be "
            "misplaced.",
        )


@dataclass(frozen=True, slots=True)
class Input:
    """Quad to cut, and its file.

    Attributes:
        quad: The quad.
        path: GeoTIFF or zip; None if it has to be downloaded.
    """

    quad: Quad
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """File or quad that could not be processed.

    Attributes:
        source: File, or name of a quad.
        reason: Error message.
    """

    source: str
    reason: str


def select_quads(box: geo.Box | None, named: Iterable[Quad]) -> list[Quad]:
    """Combine the quads that a box overlaps with explicitly named quads.

    Args:
        box: Bounding box in degrees, or None.
        named: Explicitly named quads.

    Returns:
        Quads in the mosaic's order, without duplicates.

    Raises:
        UsageError: If no quad overlaps the box.
    """
    return sorted({*(quads_in(box) if box is not None else ()), *named})


def find_files(
    paths: Sequence[str | Path], quads: Iterable[Quad] | None = None
) -> tuple[list[Input], list[Problem]]:
    """Find GeoTIFFs and zips of the mosaic in files and, recursively, in folders.

    A file whose name is not that of a quad is a problem, and so is a requested quad without a file.
    If a quad has a zip and a GeoTIFF, the zip is used, because it has a checksum.

    Args:
        paths: Files and folders.
        quads: Return only these quads; None for all.

    Returns:
        Inputs in the mosaic's order, and the problems.

    Raises:
        DatasetNotFoundError: If a path does not exist, or there are no files.
        UsageError: If a quad has two files of the same type.
    """
    mosaic_quads = set(all_quads())
    selected = None if quads is None else set(quads)
    files_by_quad: dict[Quad, dict[str, Path]] = {}
    problems = []
    for path in dict.fromkeys(file for start in paths for file in _files(Path(start))):
        corner = geo.parse_quad_name(path.name)
        quad = Quad(corner[1], corner[0]) if corner else None
        if quad is None or quad not in mosaic_quads:
            problems.append(
                Problem(
                    str(path),
                    "not named as a quad of the CTX mosaic, such as "
                    "MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif. This command cuts that mosaic "
                    "alone; `marsretrieval embed` reads the positions of other GeoTIFFs",
                )
            )
            continue
        kind = _ZIP if path.suffix.lower() == _ZIP else _TIFF[0]
        other = files_by_quad.setdefault(quad, {}).setdefault(kind, path)
        if other != path:
            raise UsageError(
                f"two files of quad {quad.name}: {other} and {path}",
                remedy="Give only one of them.",
            )
    if not files_by_quad and not problems:
        names = ", ".join(map(str, paths))
        raise DatasetNotFoundError(
            f"{names}: contains no GeoTIFF or zip of the mosaic",
            remedy="Name quads of the mosaic, or a folder of them.",
        )
    if selected is not None:
        missing = sorted(selected - files_by_quad.keys())
        problems += [Problem(quad.name, "no file of this quad") for quad in missing]
    return [
        Input(quad, kinds.get(_ZIP, kinds.get(_TIFF[0])))
        for quad, kinds in sorted(files_by_quad.items())
        if selected is None or quad in selected
    ], problems


def _files(start: Path) -> Iterator[Path]:
    if start.is_file():
        yield start
    elif start.is_dir():
        for entry in list_visible(start):
            if entry.is_dir() or entry.suffix.lower() in (*_TIFF, _ZIP):
                yield from _files(entry)
    else:
        raise DatasetNotFoundError(f"{start}: no such file or folder", remedy=suggest_path(start))
