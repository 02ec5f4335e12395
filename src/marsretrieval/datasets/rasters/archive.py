"""WebDataset tar of the tiles of a raster, and its manifest."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.ctx.tiling import encode, encoder_name
from marsretrieval.datasets.rasters.products import find_product
from marsretrieval.datasets.rasters.source import Raster, open_raster, raster_fingerprint
from marsretrieval.datasets.rasters.spec import RasterSpec
from marsretrieval.datasets.rasters.stretch import Stretch, compute_stretch
from marsretrieval.datasets.rasters.tiling import RasterTile, TilePixels, list_tiles, read_tile
from marsretrieval.datasets.tile_archive import (
    finished_manifest,
    read_tile_manifest,
    replace_tar,
    write_tile_manifest,
)
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import DataError, MarsRetrievalError
from marsretrieval.io import Int64
from marsretrieval.progress import ProgressTask

_SCHEMA_VERSION = 1
_KIND = "raster tiles"
_MAX_NAME = 60  # with the tile's own key it stays below the 100 bytes of a tar member's name
_LOOKAHEAD = 4  # tiles per thread between reading and writing
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class TilePool:
    """Threads that stretch and compress tiles.

    Attributes:
        executor: The pool.
        threads: Its number of threads.
    """

    executor: Executor
    threads: int


@dataclass(frozen=True)
class RasterManifest:
    """Contents and provenance of the tar of a raster: `<name>.json` beside `<name>.tar`.

    Attributes:
        name: Name of the tar without extension; first part of the ids of its tiles.
        spec: Tile options.
        spec_hash: Hash of the options.
        source: Absolute path of the raster.
        source_fingerprint: Fingerprint of its files.
        crs: Name of the raster's CRS.
        width: Columns of the raster.
        height: Rows of the raster.
        dtype: Data type of the raster.
        bands: Bands that were used.
        pixel_m: Width and height of a pixel of the raster on the ground, at its centre.
        stretch: Method and limits that map values to 8 bits.
        product_id: Product id in the file name, or None.
        instrument: Camera of the product, or None.
        tar: File name of the tar.
        tar_bytes: Size of the tar.
        tar_sha256: Checksum of the tar.
        encoder: Library that compressed the images.
        tiles: Number of images in the tar.
        empty: Number of tiles without any valid pixel, which are skipped.
        dropped: Number of tiles skipped because too small a share of their pixels is valid.
        off_planet: Number of tiles with valid pixels that are skipped because a part of them lies
            off the planet, such as at the limb of a sinusoidal map.
        kind: Marks the file as a manifest of this form.
        schema_version: Version of this form.
    """

    name: str
    spec: dict[str, Any]
    spec_hash: str
    source: str
    source_fingerprint: str
    crs: str
    width: Int64
    height: Int64
    dtype: str
    bands: list[int]
    pixel_m: list[float]
    stretch: dict[str, Any]
    product_id: str | None
    instrument: str | None
    tar: str
    tar_bytes: Int64
    tar_sha256: str
    encoder: str
    tiles: Int64
    empty: Int64 = 0
    dropped: Int64 = 0
    off_planet: Int64 = 0
    kind: str = _KIND
    schema_version: int = field(default=_SCHEMA_VERSION)


def read_raster_manifest(path: str | Path) -> RasterManifest:
    """Read the manifest of a raster's tiles.

    Args:
        path: The JSON file.

    Returns:
        The manifest.

    Raises:
        DataError: If it is missing, damaged, of another version or of another kind.
    """
    return read_tile_manifest(
        Path(path),
        RasterManifest,
        description=_KIND,
        kind=_KIND,
        schema_version=_SCHEMA_VERSION,
    )


def list_manifests(out: str | Path) -> list[RasterManifest]:
    """Read the manifests of raster tiles in a folder.

    Args:
        out: The folder, which need not exist.

    Returns:
        Manifests in the order of their names; other JSON files are ignored.
    """
    manifests = []
    for path in sorted(Path(out).glob("*.json")):
        if path.with_suffix(".tar").exists():  # not the annotation of an image
            with suppress(DataError):
                manifests.append(read_raster_manifest(path))
    return manifests


def choose_names(paths: Sequence[Path], manifests: Iterable[RasterManifest]) -> dict[Path, str]:
    """Choose a name for each raster: its file name, with a hash of its path where two are alike.

    Characters other than letters, digits, `_` and `-` become `_`, since the key of a tile ends at
    the first dot. A raster that is in the folder already keeps its name.

    Args:
        paths: Rasters to cut.
        manifests: Manifests of the output folder.

    Returns:
        Name by path.
    """
    existing = list(manifests)
    name_by_source = {manifest.source: manifest.name for manifest in existing}
    taken = {manifest.name.lower() for manifest in existing}
    stems = Counter(_clean(path.stem).lower() for path in paths)
    names = {}
    for path in paths:
        previous = name_by_source.get(str(path.absolute())) or _moved(path, existing)
        stem = _clean(path.stem)
        is_double = stems[stem.lower()] > 1 or stem.lower() in taken
        is_quad = geo.parse_quad_name(stem) is not None  # readers take such tars for quads
        if previous:
            names[path] = previous
        elif is_double or is_quad or stem != path.stem:
            code = hashlib.sha256(str(path.absolute()).encode(errors="replace")).hexdigest()[:8]
            prefix = "raster-" if is_quad else ""
            names[path] = f"{prefix}{stem.replace('E', 'e') if is_quad else stem}-{code}"
        else:
            names[path] = stem
    return names


def _moved(path: Path, manifests: Iterable[RasterManifest]) -> str | None:
    """Return the name of a raster that was moved with its modification time since it was cut."""
    for manifest in manifests:
        if Path(manifest.source).name == path.name and not Path(manifest.source).exists():
            with suppress(MarsRetrievalError):
                if manifest.source_fingerprint == raster_fingerprint(path):
                    return manifest.name
    return None


def _clean(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:_MAX_NAME] or "raster"


def finished_raster(out: Path, name: str, spec: RasterSpec, path: Path) -> RasterManifest | None:
    """Return the manifest of a raster that does not need to be cut again.

    Args:
        out: Output folder.
        name: Name of the raster there.
        spec: Tile options of the current run.
        path: The raster.

    Returns:
        The manifest if it has the same options and fingerprint, and its tar the recorded size;
        else None.

    Raises:
        DataError: If a file cannot be read for a reason other than damage.
    """
    return finished_manifest(
        out / f"{name}.json", read_raster_manifest, spec.hash, lambda: raster_fingerprint(path)
    )


def pack_raster(
    path: Path, name: str, spec: RasterSpec, out: Path, *, pool: TilePool, bar: ProgressTask
) -> RasterManifest:
    """Cut a raster into `<out>/<name>.tar`, then write its manifest.

    Both files get their final names only when they are complete.

    Args:
        path: The raster.
        name: Name of the tar and of the tiles.
        spec: Tile options.
        out: Output folder.
        pool: Executor that stretches and compresses the tiles.
        bar: Progress bar, advanced by one per tile.

    Returns:
        The manifest.

    Raises:
        DataError: If the raster is unusable, has no valid pixel or changes meanwhile.
        OutputError: If the tar cannot be written.
    """
    fingerprint = raster_fingerprint(path)
    stats = _Stats()
    with open_raster(path, bands=spec.bands, nodata=spec.nodata) as raster:
        stretch = compute_stretch(raster, spec.stretch)
        tiles = list_tiles(raster, spec)
        describe = _Describer(path, name, stretch)
        with replace_tar(out / f"{name}.tar") as (temporary, tar):
            write_tar(temporary, _members(raster, tiles, spec, describe, stats, pool, bar))
            if not stats.tiles:
                raise DataError(
                    f"{path}: no tile has valid pixels ({stats.empty:,} without any, "
                    f"{stats.dropped:,} below --min-valid, {stats.off_planet:,} off the planet)",
                    remedy="Check its no-data value (gdalinfo) and --min-valid.",
                )
            if raster_fingerprint(path) != fingerprint:
                raise DataError(
                    f"{path}: changed while it was read, its tiles are not kept",
                    remedy="Wait until the file is complete, then run the command again.",
                )
        manifest = RasterManifest(
            name=name,
            spec=spec.to_dict(),
            spec_hash=spec.hash,
            source=str(path.absolute()),
            source_fingerprint=fingerprint,
            crs=raster.crs_name,
            width=raster.width,
            height=raster.height,
            dtype=raster.dtype,
            bands=list(raster.bands),
            pixel_m=[round(side, 6) for side in raster.pixel_m],
            stretch=stretch.to_dict(),
            product_id=describe.product_id,
            instrument=describe.instrument,
            tar=tar.name,
            tar_bytes=tar.bytes,
            tar_sha256=tar.sha256,
            encoder=encoder_name(spec.format) if len(raster.bands) == 1 else "Pillow",
            tiles=stats.tiles,
            empty=stats.empty,
            dropped=stats.dropped,
            off_planet=stats.off_planet,
        )
    write_tile_manifest(out, manifest)
    return manifest


@dataclass(slots=True)
class _Stats:
    tiles: int = 0
    empty: int = 0
    dropped: int = 0
    off_planet: int = 0


class _Describer:
    """Writes the JSON of tiles."""

    def __init__(self, path: Path, name: str, stretch: Stretch) -> None:
        product = find_product(path)
        self.name = name
        self.product_id = product.product_id if product else None
        self.instrument = product.instrument if product else None
        self._source = path.name
        self.stretch = stretch

    def describe(
        self, tile: RasterTile, pixels: TilePixels, place: geo.Placement, share: float
    ) -> bytes:
        ring = [list(corner) for corner in place.corners]
        value: dict[str, Any] = {
            "id": f"{self.name}_{tile.key}",
            "lon": place.lon,
            "lat": place.lat,
            "width_deg": place.width_deg,
            "height_deg": place.height_deg,
            "footprint": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "valid": round(share, 6),
            "pixel_m": [round(side, 6) for side in pixels.pixel_m],
            "source": self._source,
            "product_id": self.product_id,
            "instrument": self.instrument,
            "row": tile.row,
            "column": tile.column,
            "window": None if tile.window is None else list(tile.window),
            "stretch": self.stretch.to_dict(),
        }
        absent = [key for key, part in value.items() if part is None]
        for key in absent:
            del value[key]
        return json.dumps(value).encode()


def _members(
    raster: Raster,
    tiles: Sequence[RasterTile],
    spec: RasterSpec,
    describer: _Describer,
    stats: _Stats,
    pool: TilePool,
    bar: ProgressTask,
) -> Iterator[tuple[str, bytes]]:
    """Read tiles in order while the pool encodes the ones before."""
    pending: deque[tuple[str, bytes, Future[bytes]]] = deque()
    limit = _LOOKAHEAD * pool.threads
    for tile in tiles:
        pixels = read_tile(raster, tile, spec)
        bar.advance()
        share = float(pixels.valid.mean())
        if share == 0:
            stats.empty += 1
            continue
        if share < spec.min_valid:
            stats.dropped += 1
            continue
        if pixels.placement is None:
            stats.off_planet += 1
            continue
        stats.tiles += 1
        annotation = describer.describe(tile, pixels, pixels.placement, share)
        key = f"{describer.name}_{tile.key}"
        pending.append(
            (
                key,
                annotation,
                pool.executor.submit(_encode_tile, pixels, describer.stretch, spec.format),
            )
        )
        if len(pending) > limit:
            yield from _take(pending.popleft(), spec)
    while pending:
        yield from _take(pending.popleft(), spec)


def _take(entry: tuple[str, bytes, Future[bytes]], spec: RasterSpec) -> Iterator[tuple[str, bytes]]:
    key, annotation, future = entry
    yield f"{key}.{spec.extension}", future.result()
    yield f"{key}.json", annotation


def _encode_tile(pixels: TilePixels, stretch: Stretch, kind: str) -> bytes:
    image: npt.NDArray[np.uint8] = stretch.apply(pixels.values, pixels.valid)
    if image.ndim == 2:
        return encode(image, kind)
    from PIL import Image

    out = io.BytesIO()
    if kind == "png":
        Image.fromarray(image).save(out, "PNG", compress_level=1)
    else:
        Image.fromarray(image).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()
