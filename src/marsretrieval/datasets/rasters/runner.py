"""Cut many rasters: skip finished ones, and report failures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marsretrieval import geo
from marsretrieval.datasets.listing import check_space, free_bytes, list_visible, only_alike
from marsretrieval.datasets.rasters.archive import (
    RasterManifest,
    TilePool,
    choose_names,
    finished_raster,
    list_manifests,
    pack_raster,
)
from marsretrieval.datasets.rasters.products import find_product
from marsretrieval.datasets.rasters.source import SUFFIXES, Raster, open_raster, source_files
from marsretrieval.datasets.rasters.spec import RasterSpec
from marsretrieval.datasets.rasters.stretch import compute_stretch
from marsretrieval.datasets.rasters.tiling import list_tiles
from marsretrieval.errors import DataError, DatasetNotFoundError, UsageError
from marsretrieval.io import output_folder
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.system import usable_cpus
from marsretrieval.text import format_metres, pluralize, suggest_path

# Expected size of a tile, per pixel and band.
_BYTES_PER_PIXEL = {"png": 0.5, "jpeg": 0.27}
_VARYING_SCALE = 1.1  # ratio of pixel sizes from which a note is due with --tile-m


@dataclass(frozen=True, slots=True)
class RasterProblem:
    """A raster that cannot be cut.

    Attributes:
        source: The file.
        reason: What is wrong, and the remedy.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class RasterPlan:
    """Work for one raster.

    Attributes:
        path: The raster.
        name: Name of its tar.
        crs: Name of its CRS.
        width: Columns.
        height: Rows.
        dtype: Data type.
        bands: Bands that are used.
        pixel_m: Width and height of its pixels on the ground, at its centre.
        stretch: Method and limits.
        tiles: Number of tiles that overlap it, with or without data.
        output_bytes: Expected size of the tar.
        product_id: Product id in the file name, or None.
        instrument: Camera of the product, or None.
        notes: What a user should know about the choice of bands and sizes.
    """

    path: Path
    name: str
    crs: str
    width: int
    height: int
    dtype: str
    bands: tuple[int, ...]
    pixel_m: tuple[float, float]
    stretch: dict[str, Any]
    tiles: int
    output_bytes: int
    product_id: str | None
    instrument: str | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        return {**asdict(self), "path": str(self.path), "bands": list(self.bands)}


@dataclass(frozen=True, slots=True)
class RastersPlan:
    """Work of `cut_rasters`.

    Attributes:
        todo: Rasters to cut.
        kept: Manifests of rasters that are finished.
        failed: Rasters that cannot be cut.
        skipped: Files that are parts of a VRT in the same run, with the VRT.
        free_bytes: Free disk space in the output folder.
    """

    todo: Sequence[RasterPlan]
    kept: Sequence[RasterManifest]
    failed: Sequence[RasterProblem]
    skipped: dict[str, str]
    free_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        return {
            "rasters": [plan.to_dict() for plan in self.todo],
            "kept": [manifest.name for manifest in self.kept],
            "tiles": sum(plan.tiles for plan in self.todo),
            "output_bytes": sum(plan.output_bytes for plan in self.todo),
            "free_bytes": self.free_bytes,
            "failed": [asdict(problem) for problem in self.failed],
            "skipped": self.skipped,
        }


@dataclass
class RastersReport:
    """Result of `cut_rasters`.

    Attributes:
        cut: Manifests of rasters cut by this run.
        kept: Manifests of rasters that were finished before.
        failed: Rasters that could not be cut.
        skipped: Files that are parts of a VRT in the same run, with the VRT.
        otherwise: Rasters in the same folder that were cut with other options.
        notes: Messages about single rasters.
        seconds: Duration of the run.
    """

    cut: list[RasterManifest] = field(default_factory=list)
    kept: list[RasterManifest] = field(default_factory=list)
    failed: list[RasterProblem] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    otherwise: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        manifests = [*self.cut, *self.kept]
        return {
            "complete": self.complete,
            "rasters": {
                "cut": [asdict(manifest) for manifest in self.cut],
                "kept": [manifest.name for manifest in self.kept],
            },
            "tiles": sum(manifest.tiles for manifest in manifests),
            "empty": sum(manifest.empty for manifest in manifests),
            "dropped": sum(manifest.dropped for manifest in manifests),
            "off_planet": sum(manifest.off_planet for manifest in manifests),
            "bytes": sum(manifest.tar_bytes for manifest in manifests),
            "failed": [asdict(problem) for problem in self.failed],
            "skipped": self.skipped,
            "otherwise": self.otherwise,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


def split_sources(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Tell quads of the CTX mosaic from own rasters, in files and, recursively, in folders.

    A TIFF or zip named as a quad (`MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif`, `E-004_N-04.zip`)
    belongs to the mosaic, as does every other zip. All other files are rasters.

    Args:
        paths: Files and folders. In folders, files with other extensions are ignored.

    Returns:
        Files of the mosaic, and rasters.

    Raises:
        DatasetNotFoundError: If a path does not exist, or there is no such file.
    """
    quads: list[Path] = []
    rasters: list[Path] = []
    for path in dict.fromkeys(file for start in paths for file in _files(Path(start))):
        suffix = path.suffix.lower()
        is_quad = suffix in (".tif", ".tiff") and geo.parse_quad_name(path.name) is not None
        (quads if is_quad or suffix == ".zip" else rasters).append(path)
    if not quads and not rasters:
        raise DatasetNotFoundError(
            f"{', '.join(map(str, paths))}: no raster ({', '.join(SUFFIXES)}) and no zip here"
        )
    return quads, rasters


def _files(start: Path) -> Iterator[Path]:
    if start.is_file():
        yield start
    elif start.is_dir():
        for entry in list_visible(start):
            if entry.is_dir() or entry.suffix.lower() in (*SUFFIXES, ".zip"):
                yield from _files(entry)
    else:
        raise DatasetNotFoundError(f"{start}: no such file or folder", remedy=suggest_path(start))


def plan_rasters(
    paths: Sequence[str | Path], spec: RasterSpec, out: str | Path, *, force: bool = False
) -> RastersPlan:
    """Plan the work of `cut_rasters`: open each raster and count its tiles.

    Args:
        paths: Rasters.
        spec: Tile options.
        out: Output folder, which need not exist.
        force: Replace rasters that were cut with other options.

    Returns:
        The plan.

    Raises:
        UsageError: If `out` holds rasters cut with other options, unless `force`.
        MissingDependencyError: If rasterio is not installed.
    """
    out = Path(out)
    manifests = list_manifests(out)
    _check_same_spec(out, manifests, spec, force=force)
    todo: list[RasterPlan] = []
    reusable: list[RasterManifest] = []
    failed: list[RasterProblem] = []
    rasters, skipped = _without_parts([Path(path) for path in paths])
    for path, name in choose_names(rasters, manifests).items():
        try:
            finished = finished_raster(out, name, spec, path)
            if finished is not None:
                reusable.append(finished)
                continue
            with open_raster(path, bands=spec.bands, nodata=spec.nodata) as raster:
                todo.append(_plan_raster(raster, name, spec))
        except DataError as error:
            failed.append(_problem(path, error))
    return RastersPlan(todo, reusable, failed, skipped, free_bytes(out))


def cut_rasters(
    paths: Sequence[str | Path],
    spec: RasterSpec,
    out: str | Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> RastersReport:
    """Cut rasters into `<out>/<name>.tar`.

    Finished rasters are skipped. If a raster fails, the failure is reported and the others are
    cut.

    Args:
        paths: Rasters.
        spec: Tile options.
        out: Output folder.
        threads: Number of threads that compress tiles; default: the number of usable CPUs.
        force: Replace rasters that were cut with other options.
        progress: Progress display.

    Returns:
        The report.

    Raises:
        OutputError: If `out` cannot be written or lacks disk space.
        UsageError: If `out` holds rasters cut with other options, unless `force`.
        MissingDependencyError: If rasterio is not installed.
    """
    started = time.monotonic()
    out = Path(out)
    _check_same_spec(out, list_manifests(out), spec, force=force)
    with (
        output_folder(out),
        only_alike(out, f"raster-{spec.hash[:16]}", "choose another folder with --out"),
    ):
        plan = plan_rasters(paths, spec, out, force=force)
        check_space(out, sum(entry.output_bytes for entry in plan.todo))
        report = RastersReport(kept=list(plan.kept), failed=list(plan.failed), skipped=plan.skipped)
        report.notes = [note for entry in plan.todo for note in entry.notes]
        workers = threads or usable_cpus()
        with (
            progress.start("cut", sum(entry.tiles for entry in plan.todo), "tiles") as bar,
            ThreadPoolExecutor(workers) as executor,
        ):
            pool = TilePool(executor, workers)
            for entry in plan.todo:
                failures = f"; {len(report.failed):,} failed" if report.failed else ""
                bar.note(f"{entry.name}{failures}")
                try:
                    report.cut.append(
                        pack_raster(entry.path, entry.name, spec, out, pool=pool, bar=bar)
                    )
                except DataError as error:
                    report.failed.append(_problem(entry.path, error))
        report.otherwise = [
            manifest.name for manifest in list_manifests(out) if manifest.spec_hash != spec.hash
        ]
    report.seconds = time.monotonic() - started
    return report


def _plan_raster(raster: Raster, name: str, spec: RasterSpec) -> RasterPlan:
    tiles = len(list_tiles(raster, spec))
    product = find_product(raster.path)
    notes = []
    if spec.bands is None and len(raster.bands) < raster.band_count:
        bands = ", ".join(map(str, raster.bands))
        notes.append(
            f"{raster.path}: band {bands} of {raster.band_count} is used; --bands chooses others"
        )
    low, high = raster.pixel_range_m
    if spec.tile_m is not None and high > low * _VARYING_SCALE:
        notes.append(
            f"{raster.path}: its pixels measure {format_metres(low)} to {format_metres(high)} on "
            f"the ground; tiles of {format_metres(spec.tile_m)} have that size at its centre only"
        )
    return RasterPlan(
        path=raster.path,
        name=name,
        crs=raster.crs_name,
        width=raster.width,
        height=raster.height,
        dtype=raster.dtype,
        bands=raster.bands,
        pixel_m=raster.pixel_m,
        stretch=compute_stretch(raster, spec.stretch).to_dict(),
        tiles=tiles,
        output_bytes=round(
            tiles * len(raster.bands) * spec.size**2 * _BYTES_PER_PIXEL[spec.format]
        ),
        product_id=product.product_id if product else None,
        instrument=product.instrument if product else None,
        notes=tuple(notes),
    )


def _problem(path: Path, error: DataError) -> RasterProblem:
    """Describe a failure in one line that names the file."""
    message = error.message.removeprefix(f"{path}: ").rstrip(".")
    return RasterProblem(str(path), f"{message}. {error.remedy}" if error.remedy else message)


def _check_same_spec(
    out: Path, manifests: Sequence[RasterManifest], spec: RasterSpec, *, force: bool
) -> None:
    conflicts = [manifest.name for manifest in manifests if manifest.spec_hash != spec.hash]
    if conflicts and not force:
        raise UsageError(
            f"{out}: holds tiles of {pluralize(len(conflicts), 'raster')} cut with other options, "
            f"such as {conflicts[0]}",
            remedy="Choose another --out, or --force to cut over them.",
        )


def _without_parts(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Leave out files that a VRT of the same run consists of: they would be cut twice."""
    owners: dict[Path, Path] = {}
    for path in paths:
        if path.suffix.lower() == ".vrt":
            try:
                parts = source_files(path)
            except DataError:
                continue  # reported when the VRT is opened
            owners |= {part.resolve(): path for part in parts if part.resolve() != path.resolve()}
    skipped = {
        str(path): f"part of {owners[path.resolve()]}" for path in paths if path.resolve() in owners
    }
    return [path for path in paths if str(path) not in skipped], skipped
