"""WebDataset tar of one quad's tiles, and its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marsretrieval.datasets import tile_archive
from marsretrieval.datasets.ctx.grid import TileSpec, tile_rows
from marsretrieval.datasets.ctx.mosaic import Quad
from marsretrieval.datasets.ctx.quad import open_quad
from marsretrieval.datasets.ctx.tiling import CutTile, cut, encoder_name
from marsretrieval.datasets.listing import file_fingerprint
from marsretrieval.datasets.tile_archive import (
    read_tile_manifest,
    replace_tar,
    write_tile_manifest,
)
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import DataError
from marsretrieval.io import Int64
from marsretrieval.progress import ProgressTask
from marsretrieval.text import pluralize

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class QuadManifest:
    """Contents and provenance of a quad's tar: `<quad>.json` beside `<quad>.tar`.

    Attributes:
        quad: Name of the quad.
        spec: The tile specification.
        spec_hash: Hash of the specification.
        source: Name of the file that the tiles were cut from.
        source_fingerprint: Fingerprint of that file.
        tar: File name of the tar.
        tar_bytes: Size of the tar.
        tar_sha256: Checksum of the tar.
        encoder: Library that compressed the images.
        tiles: Number of images in the tar.
        empty: Tiles without any data, in the tar or dropped.
        dropped: Tiles left out because too small a share of their pixels has data.
        failed: Tiles that could not be cut, with the reason. The next run cuts such a quad again.
        schema_version: Version of this format.
    """

    quad: str
    spec: dict[str, Any]
    spec_hash: str
    source: str
    source_fingerprint: str
    tar: str
    tar_bytes: Int64
    tar_sha256: str
    encoder: str
    tiles: Int64
    empty: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    schema_version: int = _SCHEMA_VERSION

    @property
    def complete(self) -> bool:
        """Whether no tile has failed."""
        return not self.failed


def read_manifest(path: str | Path) -> QuadManifest:
    """Read a quad's manifest.

    Args:
        path: The JSON file.

    Returns:
        The manifest.

    Raises:
        DataError: If it is missing, damaged or of another version.
    """
    return read_tile_manifest(
        Path(path), QuadManifest, description="tiles", schema_version=_SCHEMA_VERSION
    )


def finished_manifest(
    out: Path, quad: Quad, spec: TileSpec, source: Path | None = None
) -> QuadManifest | None:
    """Return the manifest of a quad that does not need to be cut again.

    A quad is finished if its manifest has the same spec and no failed tile, its tar has the
    recorded size, and `source`, if given, has the recorded fingerprint.

    Args:
        out: Output folder.
        quad: The quad.
        spec: Tile specification of the current run.
        source: File that the quad would be cut from; None if it would be downloaded.

    Returns:
        The manifest, or None if the quad has to be cut.

    Raises:
        DataError: If a file cannot be read for a reason other than damage.
    """
    manifest = tile_archive.finished_manifest(
        out / f"{quad.name}.json",
        read_manifest,
        spec.hash,
        None if source is None else lambda: file_fingerprint(source),
    )
    return manifest if manifest is not None and manifest.complete else None


def otherwise_cut(out: Path, spec: TileSpec) -> list[str]:
    """List the quads in a folder that were cut with another spec.

    Readers would mix their tiles with those of the current spec.

    Args:
        out: Output folder.
        spec: Tile specification of the current run.

    Returns:
        Names of the quads, sorted.
    """
    quad_names = []
    for path in sorted(out.glob("E*_N*.json")):
        with suppress(DataError):
            manifest = read_manifest(path)
            if manifest.spec_hash != spec.hash:
                quad_names.append(manifest.quad)
    return quad_names


def pack_quad(
    source: Path,
    quad: Quad,
    spec: TileSpec,
    out: Path,
    *,
    scratch: Path,
    pool: Executor,
    bar: ProgressTask,
) -> QuadManifest:
    """Cut the GeoTIFF or zip of a quad into `<out>/<quad>.tar`, then write its manifest.

    Both files get their final names only when they are complete. An older manifest is deleted
    before its tar is replaced.

    Args:
        source: GeoTIFF or zip.
        quad: The quad that `source` is expected to hold.
        spec: Tile specification.
        out: Output folder.
        scratch: Folder for unpacked zips.
        pool: Executor that cuts the tiles.
        bar: Progress bar, advanced per tile.

    Returns:
        The manifest as written.

    Raises:
        DataError: If no tile can be cut, or fewer than in an existing complete tar.
        OutputError: If the tar cannot be written.
    """
    stats = _TileStats()
    rows = tile_rows(quad, spec)
    with (
        open_quad(source, quad, scratch) as file,
        replace_tar(out / f"{quad.name}.tar") as (temporary, tar),
    ):
        write_tar(temporary, _members(cut(file, rows, spec, pool), quad, spec, stats, bar))
        if not stats.tiles and stats.failed:
            raise DataError(
                f"{source}: no tile could be cut: {next(iter(stats.failed.values()))}",
                remedy="Download or copy the quad again.",
            )
        if stats.failed and finished_manifest(out, quad, spec) is not None:
            raise DataError(
                f"{source}: {pluralize(len(stats.failed), 'tile')} could not be cut, such as "
                f"{next(iter(stats.failed.items()))}; the earlier complete tar is kept"
            )
    quad_manifest = QuadManifest(
        quad=quad.name,
        spec=dict(spec.to_dict()),
        spec_hash=spec.hash,
        source=source.name,
        source_fingerprint=file_fingerprint(source),
        tar=tar.name,
        tar_bytes=tar.bytes,
        tar_sha256=tar.sha256,
        encoder=encoder_name(spec.format),
        tiles=stats.tiles,
        empty=stats.empty,
        dropped=stats.dropped,
        failed=stats.failed,
    )
    write_tile_manifest(out, quad_manifest)
    return quad_manifest


@dataclass(slots=True)
class _TileStats:
    """Counts and names of the tiles written so far."""

    tiles: int = 0
    empty: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def _members(
    tiles: Iterator[CutTile], quad: Quad, spec: TileSpec, stats: _TileStats, bar: ProgressTask
) -> Iterator[tuple[str, bytes]]:
    for cut_tile in tiles:
        bar.advance()
        name = cut_tile.tile.name
        if cut_tile.failed is not None:
            stats.failed[name] = cut_tile.failed
            continue
        if cut_tile.valid == 0:
            stats.empty.append(name)
        if cut_tile.valid < spec.drop_below:
            stats.dropped.append(name)
            continue
        stats.tiles += 1
        yield f"{name}.{spec.extension}", cut_tile.data
        yield f"{name}.json", _annotation(cut_tile, quad)


def _annotation(cut_tile: CutTile, quad: Quad) -> bytes:
    tile = cut_tile.tile
    value = {
        "bounds": [tile.west, tile.south, tile.east, tile.north],
        "center": [round((tile.west + tile.east) / 2, 9), round((tile.south + tile.north) / 2, 9)],
        "valid": round(cut_tile.valid, 6),
        "quad": quad.name,
    }
    return json.dumps(value).encode()
