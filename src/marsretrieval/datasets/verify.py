"""Verify the datasets in a folder: hash every file and decode every image.

The resulting inventory lists counts and problems. Its set hash equals the one in results that
score the whole dataset.
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
from marsretrieval.datasets.ctx import QuadManifest, all_quads, read_manifest
from marsretrieval.datasets.download import MAX_MISSING, DownloadRecord, find_source, read_record
from marsretrieval.datasets.ground_truth import (
    catalogue_files,
    choose_columns,
    landform_name,
    read_points,
)
from marsretrieval.datasets.inventory import (
    DatasetInventory,
    Inventory,
    check_captions,
    check_images,
    check_labels,
    check_near_duplicates,
    check_tiles,
)
from marsretrieval.datasets.listing import list_visible
from marsretrieval.datasets.open import is_dataset_file, open_images
from marsretrieval.datasets.positions import PositionColumns
from marsretrieval.datasets.rasters import list_manifests
from marsretrieval.datasets.scan import merge, scan
from marsretrieval.datasets.synthetic import PlanetRecord, find_planet
from marsretrieval.errors import (
    DataError,
    DatasetNotFoundError,
    MissingDependencyError,
    TableError,
    UsageError,
)
from marsretrieval.io import sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.system import usable_cpus
from marsretrieval.text import confined

_DATASET_FOLDERS = {
    "Mars-VL-Pairs": "paired",
    "Mars-Landforms": "landform",
    "Mars-Global-Geolocalization": "geolocalization",
}
_ORIGIN_FIELDS = ("repository", "revision", "variant", "created")
_PLANET_FIELDS: tuple[Literal["version", "seed", "size"], ...] = ("version", "seed", "size")


def verify(
    folder: str | Path,
    *,
    tasks: Collection[str] = (),
    columns: PositionColumns | None = None,
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> Inventory:
    """Check the datasets in a folder.

    Args:
        folder: Folder with the benchmark's datasets, or a dataset itself (a folder or file).
        tasks: Names of datasets or tasks to check; empty: all. For a folder that is a dataset
            itself, its type; empty: detect it.
        columns: Columns and layer of the point catalogues; None: detect them by their names.
        workers: Processes that hash and decode; None: the number of usable CPUs.
        progress: Receives the progress.

    Returns:
        Counts and problems. Damaged data is reported there and does not raise an error.

    Raises:
        DatasetNotFoundError: If there is no dataset.
        UnknownNameError: If a task is unknown.
        UsageError: If `columns` are given and no dataset has catalogues.
        TableError: If a layer is given, and no catalogue may have several.
    """
    folder = Path(folder)
    datasets = [find_source(name).dataset for name in tasks]
    selected = list(_find_datasets(folder, datasets))
    if columns is not None and all(dataset != "geolocalization" for _, dataset in selected):
        raise UsageError(
            f"{folder}: no data of geolocalization, which the columns of a catalogue are for",
            remedy="Leave --lon-column, --lat-column, --lon-west and --layer out.",
        )
    inventories = [
        _verify_one(path, dataset, columns, workers, progress) for path, dataset in selected
    ]
    return Inventory(str(folder), inventories)


def _find_datasets(folder: Path, requested: list[str]) -> Iterator[tuple[Path, str]]:
    if is_dataset_file(folder):
        yield from ((folder, dataset) for dataset in requested or [_detect_dataset(folder)])
        return
    if not folder.is_dir():
        problem = "a file, not a folder" if folder.exists() else "no such folder"
        raise DatasetNotFoundError(f"{folder}: {problem}", remedy="Name the folder of the data.")
    subfolders = {
        dataset: folder / name
        for name, dataset in _DATASET_FOLDERS.items()
        if (folder / name).is_dir()
    }
    if not subfolders:
        yield from ((folder, dataset) for dataset in requested or [_detect_dataset(folder)])
        return
    for dataset in requested or subfolders:
        if dataset not in subfolders:
            raise DatasetNotFoundError(
                f"{folder}: no data of {dataset} (subfolders: {', '.join(subfolders)})",
                remedy=f"Fetch it: marsretrieval data download {dataset} --out {folder}",
            )
        yield subfolders[dataset], dataset


def _detect_dataset(folder: Path) -> str:
    """Detect the type of a folder from its name, record, subfolders or first image."""
    if folder.resolve().name in _DATASET_FOLDERS:
        return _DATASET_FOLDERS[folder.resolve().name]
    record = read_record(folder)
    if record is not None:
        return record.dataset
    if (folder / "ground_truth").is_dir() or (folder / "tiles").is_dir():
        return "geolocalization"
    first = _first_record(open_images(folder))
    if first is None:
        return "images"
    if first.caption:
        return "paired"
    if first.label:
        return "landform"
    has_position = first.lon is not None or any(
        warning.kind == "position" for warning in first.warnings
    )
    return "tiles" if has_position else "images"


def _first_record(source: ImageSource) -> Record | None:
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if isinstance(item, Record):
                return item
    return None


def _verify_one(
    folder: Path,
    dataset: str,
    columns: PositionColumns | None,
    workers: int | None,
    progress: Progress,
) -> DatasetInventory:
    inventory = DatasetInventory(dataset, str(folder))
    _check_provenance(folder, inventory, workers or usable_cpus(), progress)
    if dataset == "geolocalization":
        _check_points(folder, inventory, columns)
        _check_examples(folder, inventory)
        if (folder / "tiles").is_dir():
            _check_set(folder / "tiles", "tiles", inventory, workers, progress)
        else:
            inventory.note(
                "no-tiles", [f"{folder / 'tiles'}: make them with marsretrieval data tiles"]
            )
    else:
        _check_set(folder, dataset, inventory, workers, progress)
    return inventory


def _check_set(
    folder: Path, kind: str, inventory: DatasetInventory, workers: int | None, progress: Progress
) -> None:
    likeness = kind in ("paired", "landform")
    if kind == "tiles":
        _check_manifests(folder, inventory, workers or usable_cpus(), progress)
    try:
        sources = _open_sources(folder, inventory)
    except DataError as error:  # no images, or an unknown layout
        inventory.error("unreadable-dataset", [error.message])
        return
    scans = []
    for source in sources:
        partial = scan(source, likeness=likeness, workers=workers, progress=progress)
        if len(sources) > 1:  # row numbers as ids are unique per source only
            ids = pc.binary_join_element_wise(f"{source.name}:", partial.items["id"], "")
            partial.items = partial.items.set_column(0, "id", ids)
        scans.append(partial)
    result = merge(scans)
    check_images(result, inventory)
    if kind == "paired":
        check_captions(result, inventory)
    elif kind == "landform":
        check_labels(result, inventory)
    elif kind == "tiles":
        check_tiles(result, inventory)
    if likeness:
        check_near_duplicates(result, inventory)
    inventory.set_hash = set_hash(_scored_items(kind, result.items))


def _open_sources(folder: Path, inventory: DatasetInventory) -> list[ImageSource]:
    """Open all images as one source, or each readable Parquet file if some are damaged."""
    source = open_images(folder)
    try:
        source.shards()
    except DataError as error:
        readable, damaged = [], []
        for path in [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]:
            single = open_images(path)
            try:
                single.shards()
            except DataError as file_error:
                damaged.append(file_error.message)
            else:
                readable.append(single)
        inventory.error("unreadable-file", damaged or [error.message])
        return readable
    return [source]


def _scored_items(kind: str, items: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Yield ids and hashes of the items that a task scores, as in the set hash of results."""
    column = {"paired": "caption", "landform": "label"}.get(kind)
    for batch in items.to_batches():
        ids, contents = batch["id"].to_pylist(), batch["content"].to_pylist()
        if column is None:
            yield from zip(ids, contents, strict=True)
            continue
        for key, content, text in zip(ids, contents, batch[column].to_pylist(), strict=True):
            if text and text.strip():
                yield key, annotated_hash(content, text)


def _check_points(
    folder: Path, inventory: DatasetInventory, columns: PositionColumns | None
) -> None:
    tables: list[Path] = []
    ignored: list[str] = []
    try:
        files = catalogue_files(folder / "ground_truth")
        tables = files.tables
        ignored = [f"{item.id}: {item.reason}" for item in files.ignored]
    except DatasetNotFoundError as error:
        inventory.error("no-ground-truth", [error.message])
    counts, unreadable, duplicates = {}, [], []
    notes: list[str] = []
    for path, choice in choose_columns(tables, columns).items():
        try:
            points = read_points(path, columns=choice)
        except (TableError, DatasetNotFoundError, MissingDependencyError) as error:
            unreadable.append(error.message)
            continue
        notes += points.notes
        counts[landform_name(path)] = len(points.lon)
        if points.duplicates:
            duplicates.append(f"{path.name}: {points.duplicates}")
    inventory.counts["points"] = counts
    inventory.error("bad-table", unreadable)
    inventory.note("double-point", duplicates)
    inventory.note("catalogue-not-read", ignored)
    inventory.note("catalogue-rows", notes)


def _check_examples(folder: Path, inventory: DatasetInventory) -> None:
    root = folder / "image_queries"
    folders = [path for path in list_visible(root) if path.is_dir()] if root.is_dir() else []
    counts: dict[str, int] = {}
    empty: list[str] = []
    unreadable: list[str] = []
    for path in folders:
        try:
            result = scan(open_images(path), likeness=False, workers=1)
        except DataError as error:
            empty.append(error.message)
            continue
        counts[path.name] = result.items.num_rows
        unreadable += [f"{item.source}: {item.reason}" for item in result.bad]
    inventory.counts["examples"] = counts
    inventory.error("bad-examples", empty)
    inventory.error("unreadable-example", unreadable)
    points = inventory.counts.get("points", {})
    inventory.note("landform-without-examples", sorted(points.keys() - counts.keys()))
    inventory.note("examples-without-points", sorted(counts.keys() - points.keys()))


def _check_provenance(
    folder: Path, inventory: DatasetInventory, workers: int, progress: Progress
) -> None:
    """Check against ``download.json`` or, for a synthetic planet, ``planet.json``, if present."""
    try:
        record = read_record(folder)
        if record is not None:
            inventory.origin = {key: getattr(record, key) for key in _ORIGIN_FIELDS}
            _check_download(folder, record, inventory, workers, progress)
            return
        planet = find_planet(folder)
        if planet is not None:
            inventory.origin = {
                "synthetic": True,
                **{key: planet[1][key] for key in _PLANET_FIELDS},
            }
            files = _planet_files(*planet, folder.absolute())
            _check_files(folder, files, "file", inventory, workers, progress)
    except DataError as error:
        inventory.error("damaged-record", [error.message])


def _planet_files(path: Path, planet: PlanetRecord, folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of the planet's files below `folder`."""
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
    inventory: DatasetInventory,
    workers: int,
    progress: Progress,
) -> None:
    """Compare files with their expected size and SHA-256; `kind` is the noun in the problems."""

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
            return "altered"  # the reader reports the reason

    states = []
    with (
        progress.start("hash", len(files), f"{kind}s") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for result in pool.map(state, files):
            states.append(result)
            bar.advance()
    for problem in ("missing", "altered"):
        cases = (
            name
            for name, result_state in zip(files, states, strict=True)
            if result_state == problem
        )
        inventory.error(f"{problem}-{kind}", cases)


def _check_download(
    folder: Path,
    record: DownloadRecord,
    inventory: DatasetInventory,
    workers: int,
    progress: Progress,
) -> None:
    if not record.complete:
        command = f"marsretrieval data download {record.dataset} --out {folder.parent}"
        inventory.error("unfinished-download", [f"{folder}: run it again: {command}"])
        return
    files = {file.path: (file.size, file.sha256) for file in record.files}
    _check_files(folder, files, "file", inventory, workers, progress)
    missing = record.missing
    rows = record.counts.get("rows")
    if rows is not None:
        inventory.counts["rows_published"] = rows
    report = inventory.error if len(missing) > MAX_MISSING * (rows or 0) else inventory.note
    report("image-not-had", missing)


def _check_manifests(
    folder: Path, inventory: DatasetInventory, workers: int, progress: Progress
) -> None:
    """Hash the tar of each quad, and report failed and mixed tiles from the manifests.

    Folders without manifests are not checked: tiles may come from other tools.
    """
    paths = sorted(folder.glob("E*_N*.json"))
    names = {quad.name for quad in all_quads()} if paths else set()
    manifests: list[QuadManifest] = []
    damaged = []
    for path in paths:
        if path.stem in names:
            try:
                manifests.append(read_manifest(path))
            except DataError as error:
                damaged.append(error.message)
    rasters = list_manifests(folder)
    if not manifests and not damaged and not rasters:
        return
    inventory.error("damaged-manifest", damaged)
    tars = {manifest.tar: (manifest.tar_bytes, manifest.tar_sha256) for manifest in manifests}
    tars |= {raster.tar: (raster.tar_bytes, raster.tar_sha256) for raster in rasters}
    _check_files(folder, tars, "tar", inventory, workers, progress)
    failed = (manifest for manifest in manifests if manifest.failed)
    inventory.error(
        "failed-tile",
        (
            f"{manifest.quad}: {name}: {why}"
            for manifest in failed
            for name, why in manifest.failed.items()
        ),
    )
    inventory.counts["empty_tiles"] = sum(len(manifest.empty) for manifest in manifests)
    if rasters:
        inventory.counts["skipped_tiles"] = sum(
            raster.empty + raster.dropped + raster.off_planet for raster in rasters
        )
    inventory.counts["dropped_tiles"] = sum(len(manifest.dropped) for manifest in manifests)
    specs = Counter(manifest.spec_hash for manifest in manifests)
    for common_spec, _ in specs.most_common(1):
        spec = next(manifest.spec for manifest in manifests if manifest.spec_hash == common_spec)
        inventory.origin = {**inventory.origin, "tiles": spec}
        inventory.error(
            "cut-otherwise",
            (manifest.quad for manifest in manifests if manifest.spec_hash != common_spec),
        )
    inventory.error(
        "tar-without-manifest",
        (path.name for path in sorted(folder.glob("E*_N*.tar"))
         if path.stem in names and path.name not in tars),
    )  # fmt: skip
