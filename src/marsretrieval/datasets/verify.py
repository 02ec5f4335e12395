"""Is the data what it should be: every file hashed, every image decoded, every problem named.

`verify` finds the benchmark's datasets below a folder (or takes the folder as one of them) and
returns an inventory whose set hash is the one that results over the whole set carry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from marsretrieval.datasets.base import ImageSource, Record, annotated_hash, set_hash
from marsretrieval.datasets.checks import (
    check_captions,
    check_images,
    check_labels,
    check_likeness,
    check_tiles,
)
from marsretrieval.datasets.ctx import QuadManifest, all_quads, read_manifest
from marsretrieval.datasets.download import MAX_MISSING, DownloadRecord, find_source, read_record
from marsretrieval.datasets.ground_truth import catalogue_files, read_points
from marsretrieval.datasets.inventory import DatasetInventory, Inventory
from marsretrieval.datasets.listing import visible
from marsretrieval.datasets.open import open_images
from marsretrieval.datasets.scan import merge, scan
from marsretrieval.datasets.synthetic import PlanetRecord, find_planet
from marsretrieval.errors import (
    DataError,
    DatasetNotFoundError,
    MissingDependencyError,
    TableError,
)
from marsretrieval.io import confined, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.system import usable_cpus

_FOLDERS = {
    "Mars-VL-Pairs": "paired",
    "Mars-Landforms": "landform",
    "Mars-Global-Geolocalization": "geolocalization",
}
_KEPT = ("repository", "revision", "variant", "created")
_PLANET: tuple[Literal["version", "seed", "size"], ...] = ("version", "seed", "size")


def verify(
    folder: Path,
    *,
    tasks: Collection[str] = (),
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> Inventory:
    """Check the datasets in `folder`, or those of `tasks` only.

    tasks: names of datasets or tasks; for a folder that is a dataset itself, what it is.
    workers: processes that hash and decode (default: the CPUs there are).
    Raises DatasetNotFoundError when there is no dataset, UnknownNameError for a task. What is
    damaged does not raise: it is a problem of the inventory.
    """
    wanted = [find_source(name).dataset for name in tasks]
    found = [
        _verify_one(place, dataset, workers, progress)
        for place, dataset in _datasets(folder, wanted)
    ]
    return Inventory(str(folder), found)


def _datasets(folder: Path, wanted: list[str]) -> Iterator[tuple[Path, str]]:
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise DatasetNotFoundError(f"{folder}: {what}", remedy="Name the folder of the data.")
    below = {
        dataset: folder / name for name, dataset in _FOLDERS.items() if (folder / name).is_dir()
    }
    if not below:
        yield from ((folder, dataset) for dataset in wanted or [_kind(folder)])
        return
    for dataset in wanted or below:
        if dataset not in below:
            raise DatasetNotFoundError(
                f"{folder}: no data of {dataset} (there is {', '.join(below)})",
                remedy=f"Fetch it: marsretrieval data download {dataset} --out {folder}",
            )
        yield below[dataset], dataset


def _kind(folder: Path) -> str:
    """What a folder is by its name, its record, its sub-folders, or its first image."""
    if folder.resolve().name in _FOLDERS:
        return _FOLDERS[folder.resolve().name]
    record = read_record(folder)
    if record is not None:
        return record.dataset
    if (folder / "ground_truth").is_dir() or (folder / "tiles").is_dir():
        return "geolocalization"
    first = _first(open_images(folder))
    if first is None:
        return "images"
    if first.caption:
        return "paired"
    if first.label:
        return "landform"
    placed = first.lon is not None or any(warning.kind == "position" for warning in first.warnings)
    return "tiles" if placed else "images"


def _first(source: ImageSource) -> Record | None:
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if isinstance(item, Record):
                return item
    return None


def _verify_one(
    folder: Path, dataset: str, workers: int | None, progress: Progress
) -> DatasetInventory:
    told = DatasetInventory(dataset, str(folder))
    _check_provenance(folder, told, workers or usable_cpus(), progress)
    if dataset == "geolocalization":
        _check_points(folder, told)
        _check_examples(folder, told)
        if (folder / "tiles").is_dir():
            _check_set(folder / "tiles", "tiles", told, workers, progress)
        else:
            told.note("no-tiles", [f"{folder / 'tiles'}: make them with marsretrieval data tiles"])
    else:
        _check_set(folder, dataset, told, workers, progress)
    return told


def _check_set(
    place: Path, kind: str, told: DatasetInventory, workers: int | None, progress: Progress
) -> None:
    likeness = kind in ("paired", "landform")
    if kind == "tiles":
        _check_manifests(place, told, workers or usable_cpus(), progress)
    try:
        parts = _sources(place, told)
    except DataError as error:  # no images at all, or a layout that nobody knows
        told.error("unreadable-dataset", [error.message])
        return
    scans = []
    for source in parts:
        part = scan(source, likeness=likeness, workers=workers, progress=progress)
        if len(parts) > 1:  # ids may be row numbers, unique in the whole only
            ids = pc.binary_join_element_wise(f"{source.name}:", part.items["id"], "")
            part.items = part.items.set_column(0, "id", ids)
        scans.append(part)
    found = merge(scans)
    check_images(found, told)
    if kind == "paired":
        check_captions(found, told)
    elif kind == "landform":
        check_labels(found, told)
    elif kind == "tiles":
        check_tiles(found, told)
    if likeness:
        check_likeness(found, told)
    told.set_hash = set_hash(_scored(kind, found.items))


def _sources(place: Path, told: DatasetInventory) -> list[ImageSource]:
    """The whole; or, where a Parquet file is beyond reading, the others one by one."""
    source = open_images(place)
    try:
        source.shards()
    except DataError as error:
        sound, damaged = [], []
        for path in [*place.glob("*.parquet"), *place.glob("data/*.parquet")]:
            alone = open_images(path)
            try:
                alone.shards()
            except DataError as damage:
                damaged.append(damage.message)
            else:
                sound.append(alone)
        told.error("unreadable-file", damaged or [error.message])
        return sound
    return [source]


def _scored(kind: str, items: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Ids and hashes of the items that a task scores: results carry the hash of those alone."""
    column = {"paired": "caption", "landform": "label"}.get(kind)
    for batch in items.to_batches():
        ids, contents = batch["id"].to_pylist(), batch["content"].to_pylist()
        if column is None:
            yield from zip(ids, contents, strict=True)
            continue
        for key, content, text in zip(ids, contents, batch[column].to_pylist(), strict=True):
            if text and text.strip():
                yield key, annotated_hash(content, text)


def _check_points(folder: Path, told: DatasetInventory) -> None:
    tables: list[Path] = []
    ignored: list[str] = []
    try:
        files = catalogue_files(folder / "ground_truth")
        tables = files.tables
        ignored = [f"{item.id}: {item.reason}" for item in files.ignored]
    except DatasetNotFoundError as error:
        told.error("no-ground-truth", [error.message])
    counts, bad, doubles = {}, [], []
    notes: list[str] = []
    for path in tables:
        try:
            points = read_points(path)
        except (TableError, DatasetNotFoundError, MissingDependencyError) as error:
            bad.append(error.message)
            continue
        notes += points.notes
        counts[path.stem] = len(points.lon)
        if points.duplicates:
            doubles.append(f"{path.name}: {points.duplicates}")
    told.counts["points"] = counts
    told.error("bad-table", bad)
    told.note("double-point", doubles)
    told.note("catalogue-not-read", ignored)
    told.note("catalogue-rows", notes)


def _check_examples(folder: Path, told: DatasetInventory) -> None:
    place = folder / "image_queries"
    folders = [path for path in visible(place) if path.is_dir()] if place.is_dir() else []
    counts: dict[str, int] = {}
    empty: list[str] = []
    bad: list[str] = []
    for path in folders:
        try:
            found = scan(open_images(path), likeness=False, workers=1)
        except DataError as error:
            empty.append(error.message)
            continue
        counts[path.name] = found.items.num_rows
        bad += [f"{each.source}: {each.reason}" for each in found.bad]
    told.counts["examples"] = counts
    told.error("bad-examples", empty)
    told.error("unreadable-example", bad)
    points = told.counts.get("points", {})
    told.note("landform-without-examples", sorted(points.keys() - counts.keys()))
    told.note("examples-without-points", sorted(counts.keys() - points.keys()))


def _check_provenance(
    folder: Path, told: DatasetInventory, workers: int, progress: Progress
) -> None:
    """By ``download.json`` of a download or ``planet.json`` of a synthetic planet, if any."""
    try:
        record = read_record(folder)
        if record is not None:
            told.origin = {key: getattr(record, key) for key in _KEPT}
            _check_download(folder, record, told, workers, progress)
            return
        planet = find_planet(folder)
        if planet is not None:
            told.origin = {"synthetic": True, **{key: planet[1][key] for key in _PLANET}}
            files = _planet_files(*planet, folder.absolute())
            _check_files(folder, files, "file", told, workers, progress)
    except DataError as error:
        told.error("damaged-record", [error.message])


def _planet_files(path: Path, planet: PlanetRecord, folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of the files of `folder`, which may be one dataset of the planet."""
    files = {}
    for name, file in planet["files"].items():
        full = confined(path.parent, name, source=path)
        if full.is_relative_to(folder):
            files[full.relative_to(folder).as_posix()] = (file["bytes"], file["sha256"])
    return files


def _check_files(
    folder: Path,
    files: Mapping[str, tuple[int, str]],
    kind: str,
    told: DatasetInventory,
    workers: int,
    progress: Progress,
) -> None:
    """Compare files, by name, with their size and SHA-256; `kind` is the word in problems."""

    def state(name: str) -> str:
        path = folder / name
        size, sha256 = files[name]
        try:
            if path.stat().st_size != size:
                return "altered"
            return "whole" if sha256_file(path) == sha256 else "altered"
        except FileNotFoundError:
            return "missing"
        except OSError:
            return "altered"  # why, the reader says

    states = []
    with (
        progress.start("hash", len(files), f"{kind}s") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for result in pool.map(state, files):
            states.append(result)
            bar.advance()
    for problem in ("missing", "altered"):
        cases = (name for name, found in zip(files, states, strict=True) if found == problem)
        told.error(f"{problem}-{kind}", cases)


def _check_download(
    folder: Path,
    record: DownloadRecord,
    told: DatasetInventory,
    workers: int,
    progress: Progress,
) -> None:
    if not record.complete:
        again = f"marsretrieval data download {record.dataset} --out {folder.parent}"
        told.error("unfinished-download", [f"{folder}: run it again: {again}"])
        return
    files = {file.path: (file.size, file.sha256) for file in record.files}
    _check_files(folder, files, "file", told, workers, progress)
    gone = record.missing
    rows = record.counts.get("rows")
    if rows is not None:
        told.counts["rows_published"] = rows
    add = told.error if len(gone) > MAX_MISSING * (rows or 0) else told.note
    add("image-not-had", gone)


def _check_manifests(
    folder: Path, told: DatasetInventory, workers: int, progress: Progress
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
    tars = {each.tar: (each.tar_bytes, each.tar_sha256) for each in found}
    _check_files(folder, tars, "tar", told, workers, progress)
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
    told.error(
        "tar-without-manifest",
        (path.name for path in sorted(folder.glob("E*_N*.tar"))
         if path.stem in names and path.name not in tars),
    )  # fmt: skip
