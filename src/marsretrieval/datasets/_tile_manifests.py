"""Tiles that were cut from the mosaic: are the tars those that the manifests tell of."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marsretrieval.datasets.ctx import QuadManifest, all_quads, read_manifest
from marsretrieval.datasets.inventory import DatasetInventory
from marsretrieval.errors import DataError
from marsretrieval.files import sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress


def check_manifests(
    folder: Path, told: DatasetInventory, *, workers: int, progress: Progress = NO_PROGRESS
) -> None:
    """Hash each quad's tar, and tell what its manifest says was not cut. Nothing is asked of a
    folder without manifests: tiles may come from elsewhere."""
    names = {quad.name for quad in all_quads()}
    found: list[QuadManifest] = []
    damaged = []
    for path in sorted(folder.glob("E*_N*.json")):
        if path.stem in names:
            try:
                found.append(read_manifest(path))
            except DataError as error:
                damaged.append(error.message)
    if not found and not damaged:
        return
    told.error("damaged-manifest", damaged)
    _check_tars(folder, found, told, workers, progress)
    failed = (manifest for manifest in found if manifest.failed)
    told.error(
        "failed-tile",
        (f"{each.quad}: {name}: {why}" for each in failed for name, why in each.failed.items()),
    )
    told.counts["empty_tiles"] = sum(len(each.empty) for each in found)
    told.counts["dropped_tiles"] = sum(len(each.dropped) for each in found)
    specs = Counter(manifest.spec_hash for manifest in found)
    for usual, _ in specs.most_common(1):
        spec = next(each.spec for each in found if each.spec_hash == usual)
        told.origin = {**told.origin, "tiles": spec}
        told.error("cut-otherwise", (each.quad for each in found if each.spec_hash != usual))
    tars = {each.tar for each in found}
    told.error(
        "tar-without-manifest",
        (path.name for path in sorted(folder.glob("E*_N*.tar"))
         if path.stem in names and path.name not in tars),
    )  # fmt: skip


def _check_tars(
    folder: Path,
    manifests: list[QuadManifest],
    told: DatasetInventory,
    workers: int,
    progress: Progress,
) -> None:
    missing, altered = [], []

    def state(manifest: QuadManifest) -> str:
        path = folder / manifest.tar
        try:
            if path.stat().st_size != manifest.tar_bytes:
                return "altered"
            return "whole" if sha256_file(path) == manifest.tar_sha256 else "altered"
        except FileNotFoundError:
            return "missing"
        except OSError:
            return "altered"  # why, the reader says

    with (
        progress.start("hash", len(manifests), "tars") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for manifest, found in zip(manifests, pool.map(state, manifests), strict=True):
            bar.advance()
            if found == "missing":
                missing.append(manifest.tar)
            elif found == "altered":
                altered.append(manifest.tar)
    told.error("missing-tar", missing)
    told.error("altered-tar", altered)
