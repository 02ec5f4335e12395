"""A quad's tiles in one WebDataset tar, and the manifest that alone says that it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marsretrieval.datasets.ctx.grid import TileSpec, tile_rows
from marsretrieval.datasets.ctx.mosaic import Quad
from marsretrieval.datasets.ctx.quad import open_quad
from marsretrieval.datasets.ctx.tiling import CutTile, cut, encoder_name
from marsretrieval.datasets.listing import file_fingerprint
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import DataError
from marsretrieval.io import (
    Int64,
    atomic_path,
    confined,
    from_json,
    is_damage,
    read_json,
    sha256_file,
    write_json,
)
from marsretrieval.progress import ProgressTask

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class QuadManifest:
    """What a quad's tar holds, and of what it was made. `<quad>.json` beside `<quad>.tar`.

    spec, spec_hash: the request. source, source_fingerprint: the file it was cut from.
    tiles: images in the tar. empty: tiles without any data, in the tar or dropped.
    dropped: left out because they asked for less than the share of data demanded.
    failed: tiles that could not be cut, with the reason; such a quad is cut again next time.
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
        return not self.failed


def read_manifest(path: Path) -> QuadManifest:
    """Raises DataError when it is missing, damaged or of another version."""
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != _SCHEMA_VERSION:
        raise DataError(f"{path}: not a manifest of tiles of this version")
    manifest = from_json(QuadManifest, value, source=path)
    confined(path.parent, manifest.tar, nested=False, source=path)
    return manifest


def finished_manifest(
    out: Path, quad: Quad, spec: TileSpec, source: Path | None = None
) -> QuadManifest | None:
    """The manifest of a quad that need not be cut: same spec, no failed tile, its tar of the size
    written, and cut from `source` as it is now, where there is one."""
    try:
        found = read_manifest(out / f"{quad.name}.json")
        same = (
            found.spec_hash == spec.hash
            and found.complete
            and found.tar_bytes == (out / f"{quad.name}.tar").stat().st_size
            and (source is None or found.source_fingerprint == file_fingerprint(source))
        )
    except (DataError, OSError) as error:
        if is_damage(error):
            return None
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{out / quad.name}.tar: cannot be read ({error.strerror or error})",
            remedy="Check the disk, the rights and the limits of this process (ulimit -n).",
        ) from error
    return found if same else None


def otherwise_cut(out: Path, spec: TileSpec) -> list[str]:
    """Quads in a folder that were cut by another spec: readers would mix them with the others."""
    found = []
    for path in sorted(out.glob("E*_N*.json")):
        with suppress(DataError):
            manifest = read_manifest(path)
            if manifest.spec_hash != spec.hash:
                found.append(manifest.quad)
    return found


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

    Until both are whole nothing has its final name, and an older manifest is gone before its tar
    is replaced. Raises DataError when nothing can be cut, OutputError when it cannot be written.
    """
    tar = out / f"{quad.name}.tar"
    manifest = out / f"{quad.name}.json"
    told = _Told()
    rows = tile_rows(quad, spec)
    with open_quad(source, quad, scratch) as file, atomic_path(tar) as temporary:
        write_tar(temporary, _members(cut(file, rows, spec, pool), quad, spec, told, bar))
        if not told.tiles and told.failed:
            raise DataError(f"{source}: no tile could be cut: {next(iter(told.failed.values()))}")
        if told.failed and finished_manifest(out, quad, spec) is not None:
            raise DataError(
                f"{source}: {len(told.failed)} tiles could not be cut, such as "
                f"{next(iter(told.failed.items()))}; the complete tar from before is kept"
            )
        tar_bytes, tar_sha256 = temporary.stat().st_size, sha256_file(temporary)
        manifest.unlink(missing_ok=True)
    made = QuadManifest(
        quad=quad.name,
        spec=dict(spec.to_dict()),
        spec_hash=spec.hash,
        source=source.name,
        source_fingerprint=file_fingerprint(source),
        tar=tar.name,
        tar_bytes=tar_bytes,
        tar_sha256=tar_sha256,
        encoder=encoder_name(spec.format),
        tiles=told.tiles,
        empty=told.empty,
        dropped=told.dropped,
        failed=told.failed,
    )
    write_json(manifest, asdict(made))
    return made


@dataclass(slots=True)
class _Told:
    """What is learnt of the tiles while they pass by."""

    tiles: int = 0
    empty: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def _members(
    tiles: Iterator[CutTile], quad: Quad, spec: TileSpec, told: _Told, bar: ProgressTask
) -> Iterator[tuple[str, bytes]]:
    for each in tiles:
        bar.advance()
        name = each.tile.name
        if each.failed is not None:
            told.failed[name] = each.failed
            continue
        if each.valid == 0:
            told.empty.append(name)
        if each.valid < spec.drop_below:
            told.dropped.append(name)
            continue
        told.tiles += 1
        yield f"{name}.{spec.extension}", each.data
        yield f"{name}.json", _annotation(each, quad)


def _annotation(each: CutTile, quad: Quad) -> bytes:
    tile = each.tile
    value = {
        "bounds": [tile.west, tile.south, tile.east, tile.north],
        "center": [round((tile.west + tile.east) / 2, 9), round((tile.south + tile.north) / 2, 9)],
        "valid": round(each.valid, 6),
        "quad": quad.name,
    }
    return json.dumps(value).encode()
