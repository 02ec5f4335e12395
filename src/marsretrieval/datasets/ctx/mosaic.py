"""What is assumed of the Murray Lab global CTX mosaic (V01): all of it here, checked on opening.

Quads of 4 x 4 degrees, named by their south-west corner, from 180 W and 88 S on; grey bytes,
47,420 pixels a side (5.0 m), 0 where there is no image; x = R lon, y = R lat on the sphere of
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

SERVER = "https://murray-lab.caltech.edu/CTX/V01/tiles"
NO_DATA = 0
SOUTHMOST, NORTHMOST = -88, 84  # south edges of the first and the last row of quads

# For plans only: reported by people who fetched some of the quads.
ZIP_BYTES = 1_730_000_000


@dataclass(frozen=True, slots=True, order=True)
class Quad:
    """South-west corner in whole degrees."""

    south: int
    west: int

    @property
    def name(self) -> str:
        return geo.quad_name(self.west, self.south)

    @property
    def box(self) -> geo.Box:
        side = geo.QUAD_DEG
        return geo.Box(self.west, self.south, self.west + side, self.south + side)

    @property
    def zip_name(self) -> str:
        return f"MurrayLab_GlobalCTXMosaic_V01_{self.name}.zip"


def all_quads() -> Iterator[Quad]:
    """The 3,960 quads, from the south, eastward."""
    for south in range(SOUTHMOST, NORTHMOST + 1, geo.QUAD_DEG):
        for west in range(-180, 180, geo.QUAD_DEG):
            yield Quad(south, west)


def quads_in(box: geo.Box) -> list[Quad]:
    """Quads that share an area with `box`. Raises UsageError when there are none."""
    found = [quad for quad in all_quads() if quad.box.overlaps(box)]
    if not found:
        raise UsageError(
            "no quad of the mosaic overlaps that box",
            remedy=f"The mosaic reaches from {SOUTHMOST} to {NORTHMOST + geo.QUAD_DEG} degrees.",
        )
    return found


def part_outside(box: geo.Box) -> str | None:
    """Describe the part of a box north or south of the mosaic; None where there is none."""
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
    """From "E-004_N-04,E176_N-04", in the mosaic's order. Raises UsageError."""
    known = {quad.name: quad for quad in all_quads()}
    found = set()
    for part in filter(None, (each.strip() for each in text.split(","))):
        if part not in known:
            raise UsageError(
                f"'{part}' is no quad of the mosaic",
                remedy="Quads are named by their south-west corner, every 4 degrees, with three "
                f"and two digits: {geo.quad_name(-4, -4)}, {geo.quad_name(136, 0)}.",
            )
        found.add(known[part])
    if not found:
        raise UsageError("no quad is named")
    return sorted(found)


def check_quad(raster: GeoTiff, quad: Quad, *, source: str) -> None:
    """Raises DataError unless `raster` is of bytes and its four edges are those of the quad, to
    half a pixel."""
    if raster.dtype != "uint8":
        raise DataError(f"{source}: pixels of {raster.dtype}, where the mosaic has uint8")
    side = geo.QUAD_DEG
    found = (raster.west, raster.south, raster.east, raster.north)
    named = (quad.west, quad.south, quad.west + side, quad.south + side)
    pixels = raster.pixel_deg * 2
    off = [abs(a - b) / pixel for a, b, pixel in zip(found, named, pixels, strict=True)]
    if max(off) > 0.5:
        edges = ", ".join(f"{edge:.4f}" for edge in found)
        raise DataError(
            f"{source}: named {quad.name}, but it reaches over {edges} (west, south, east, north)",
            remedy="Renamed, cropped, or written by another formula: its tiles would be misplaced.",
        )


_TIFF = (".tif", ".tiff")
_ZIP = ".zip"


@dataclass(frozen=True, slots=True)
class Input:
    """`path`: a GeoTIFF or a zip; None to fetch it."""

    quad: Quad
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be done, and why. `source`: a file, or the name of a quad."""

    source: str
    reason: str


def select_quads(box: geo.Box | None, named: Iterable[Quad]) -> list[Quad]:
    """Quads that `box` overlaps, and those named; in the mosaic's order."""
    return sorted({*(quads_in(box) if box is not None else ()), *named})


def find_files(
    paths: Sequence[Path], wanted: Iterable[Quad] | None = None
) -> tuple[list[Input], list[Problem]]:
    """GeoTIFFs and zips of the mosaic among `paths` and, at any depth, in the folders there; only
    those of `wanted` quads, where these are given.

    A file that is not named as a quad is a problem, and so is a wanted quad without a file. Of a
    quad's zip and GeoTIFF the zip is taken: it has a checksum. Raises DatasetNotFoundError when a
    path does not exist or there are no files, UsageError when a quad has two of one kind.
    """
    known = set(all_quads())
    only = None if wanted is None else set(wanted)
    found: dict[Quad, dict[str, Path]] = {}
    problems = []
    for path in dict.fromkeys(each for start in paths for each in _files(start)):
        corner = geo.parse_quad_name(path.name)
        quad = Quad(corner[1], corner[0]) if corner else None
        if quad is None or quad not in known:
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
        other = found.setdefault(quad, {}).setdefault(kind, path)
        if other != path:
            raise UsageError(
                f"two files of quad {quad.name}: {other} and {path}", remedy="Name one of them."
            )
    if not found and not problems:
        names = ", ".join(map(str, paths))
        raise DatasetNotFoundError(f"{names}: no GeoTIFF and no zip of the mosaic here")
    if only is not None:
        missing = sorted(only - found.keys())
        problems += [Problem(quad.name, "no file of this quad was found") for quad in missing]
    return [
        Input(quad, kinds.get(_ZIP, kinds.get(_TIFF[0])))
        for quad, kinds in sorted(found.items())
        if only is None or quad in only
    ], problems


def _files(start: Path) -> Iterator[Path]:
    if start.is_file():
        yield start
    elif start.is_dir():
        for entry in list_visible(start):
            if entry.is_dir() or entry.suffix.lower() in (*_TIFF, _ZIP):
                yield from _files(entry)
    else:
        raise DatasetNotFoundError(f"{start}: no such file or folder")
