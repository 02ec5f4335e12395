"""Which quads are to be cut, and where each comes from: a local file, or the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from marsretrieval import geo
from marsretrieval.datasets._listing import visible
from marsretrieval.datasets.ctx._mosaic import Quad, all_quads, quads_in
from marsretrieval.errors import DatasetNotFoundError, UsageError

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
        for entry in visible(start):
            if entry.is_dir() or entry.suffix.lower() in (*_TIFF, _ZIP):
                yield from _files(entry)
    else:
        raise DatasetNotFoundError(f"{start}: no such file or folder")
