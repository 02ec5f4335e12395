"""Problems of a set of images, captions, labels and positions."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marsretrieval import geo
from marsretrieval.datasets.base import Skipped
from marsretrieval.datasets.inventory import DatasetInventory
from marsretrieval.datasets.scan import Scan, near_pairs

# Rows of the published table that show the same picture in two sizes, with captions of their own.
_KNOWN_PAIRS = frozenset({(460, 907), (1446, 2098)})
_QUADS = (360 // geo.QUAD_DEG) * 40  # 88 S to 88 N is mapped; the benchmark takes 80 S to 80 N
_TOLERANCE_DEG = 1e-6
_ROUNDING = 1e-6  # of a quad: smaller than a single tile
_MAX_COMPARED = 50_000


def check_images(scan: Scan, inventory: DatasetInventory) -> None:
    """Readable, no id twice, the same bytes under one id only."""
    items = scan.items
    inventory.counts["images"] = items.num_rows
    inventory.counts["unreadable"] = len(scan.bad)
    inventory.counts["distinct"] = pc.count_distinct(items["content"]).as_py()
    for side in ("width", "height"):
        inventory.counts[side] = _spread(items[side].to_numpy())
    repeated = [bad for bad in scan.bad if _repeats_key(bad)]
    unreadable = [bad for bad in scan.bad if not _repeats_key(bad)]
    inventory.error("unreadable-image", (f"{bad.source}: {bad.reason}" for bad in unreadable))
    inventory.error("empty-shard", scan.empty)
    for kind in ("annotation", "position"):
        warnings = [warning for warning in scan.warnings if warning.kind == kind]
        inventory.error(f"wrong-{kind}", (f"{item.source}: {item.reason}" for item in warnings))
    cases = [
        f"{rows[0]['id']}: {', '.join(row['source'] for row in rows[:3])}"
        for rows in _duplicates(items, ["id"])
    ]
    inventory.error("double-id", [*cases, *(f"{bad.id}: {bad.source}" for bad in repeated)])


def check_captions(scan: Scan, inventory: DatasetInventory) -> None:
    """Every image has a caption, and no two the same: else more than one answer is right."""
    captions = scan.items["caption"].to_pylist()
    lengths = [len(caption) for caption in captions if caption and caption.strip()]
    inventory.counts["pairs"] = len(lengths)
    inventory.counts["caption_length"] = _spread(np.array(lengths))
    words = [" ".join(caption.split()).casefold() if caption else None for caption in captions]
    keys = pa.array([text or None for text in words], pa.string())
    inventory.error("no-caption", scan.items["source"].filter(pc.is_null(keys)).to_pylist())
    captioned = scan.items.append_column("words", keys)
    inventory.error("double-caption", map(_ids, _duplicates(captioned, ["words"])))
    inventory.error("double-image", map(_ids, _duplicates(scan.items, ["content"])))


def check_labels(scan: Scan, inventory: DatasetInventory) -> None:
    """Every image has a label, and equal images the same one."""
    labels = scan.items["label"].to_pylist()
    inventory.counts["classes"] = dict(sorted(Counter(filter(None, labels)).items()))
    unlabelled = pa.array([not label for label in labels], pa.bool_())
    inventory.error("no-label", scan.items["source"].filter(unlabelled).to_pylist())
    conflicts: list[str] = []
    copies: list[str] = []
    for rows in _duplicates(scan.items, ["content"]):
        if len({row["label"] for row in rows}) > 1:
            conflicts.append(", ".join(f"{row['id']} ({row['label']})" for row in rows))
        else:
            copies.append(_ids(rows))
    inventory.error("double-image-of-two-classes", conflicts)
    inventory.note("double-image", copies)


def check_likeness(scan: Scan, inventory: DatasetInventory) -> None:
    """Pictures that are the same but for size or compression: all are compared with all."""
    hashed = scan.items.filter(pc.is_valid(scan.items["likeness"]))
    count = hashed.num_rows
    if count > _MAX_COMPARED:
        inventory.note("likeness-not-checked", [f"{count:,} images, more than {_MAX_COMPARED:,}"])
    if not 2 <= count <= _MAX_COMPARED:
        return
    words = np.frombuffer(b"".join(hashed["likeness"].to_pylist()), dtype=np.uint64)
    ids, contents = hashed["id"].to_pylist(), hashed["content"].to_pylist()
    numbers = _published_rows(Path(inventory.folder) / "pairs.csv")
    cases = []
    for left, right in near_pairs(words.reshape(count, -1)):
        if contents[left] == contents[right]:
            continue
        pair = tuple(sorted(numbers.get(ids[row], -1) for row in (left, right)))
        known = f" (rows {pair[0]} and {pair[1]}: known)" if pair in _KNOWN_PAIRS else ""
        cases.append(f"{ids[left]}, {ids[right]}{known}")
    inventory.note("near-double-image", cases)


def check_tiles(scan: Scan, inventory: DatasetInventory) -> None:
    """Every tile lies on the planet, no two at one place; which quads are covered."""
    lon, lat, width, height = (
        scan.items[name].to_numpy() for name in ("lon", "lat", "width_deg", "height_deg")
    )
    on_planet = (
        (lon >= -180 - _TOLERANCE_DEG)
        & (lon <= 360 + _TOLERANCE_DEG)
        & (np.abs(lat) <= 90 + _TOLERANCE_DEG)
    )
    astray = pa.array(~on_planet)
    inventory.error("no-position", scan.items["source"].filter(astray).to_pylist())
    lon = geo.wrap_lon(np.where(on_planet, lon, 0))
    lat = np.where(on_planet, lat, 0)
    keys = {
        "lon_key": pa.array(np.rint(lon * 1e6).astype(np.int64), mask=~on_planet),
        "lat_key": pa.array(np.rint(lat * 1e6).astype(np.int64), mask=~on_planet),
        "width_key": pa.array(width, from_pandas=True),  # NaN becomes null
    }
    tiles = scan.items
    for name, values in keys.items():
        tiles = tiles.append_column(name, values)
    inventory.error("double-tile", map(_ids, _duplicates(tiles, list(keys))))
    copies = map(_ids, _duplicates(scan.items, ["content"]))
    count = inventory.counts["images"] - inventory.counts["distinct"]
    inventory.note("double-image", copies, count=count)
    lon, lat, width, height = (values[on_planet] for values in (lon, lat, width, height))
    _check_quads(lon, lat, width, height, inventory)


def _check_quads(
    lon: npt.NDArray[np.float64],
    lat: npt.NDArray[np.float64],
    width: npt.NDArray[np.float64],
    height: npt.NDArray[np.float64],
    inventory: DatasetInventory,
) -> None:
    """Compare the area of the tiles in a quad with its own: they may be wider than high."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = geo.QUAD_DEG / height
        divides_quad = (height > 0) & (parts >= 1) & (np.abs(parts - np.rint(parts)) < 1e-3)
        area = np.where(np.isnan(width), 0, width) * height
    tiles = pa.table(
        {
            "west": np.floor(lon / geo.QUAD_DEG).astype(np.int64) * geo.QUAD_DEG,
            "south": np.floor(lat / geo.QUAD_DEG).astype(np.int64) * geo.QUAD_DEG,
            "share": area / geo.QUAD_DEG**2,
        }
    ).filter(pa.array(divides_quad))
    quads = tiles.group_by(["west", "south"]).aggregate([("share", "sum"), ("share", "count")])
    covered = {
        geo.quad_name(row["west"], row["south"]): (row["share_sum"], row["share_count"])
        for row in quads.to_pylist()
    }
    if not covered:
        return
    partial = sorted(quad for quad, (share, _) in covered.items() if share < 1 - _ROUNDING)
    surplus = sorted(quad for quad, (share, _) in covered.items() if share > 1 + _ROUNDING)
    inventory.counts["quads"] = {
        "whole": len(covered) - len(partial) - len(surplus),
        "partial": len(partial),
        "missing": max(0, _QUADS - len(covered)),
        "of": _QUADS,
    }

    def describe(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            share, count = covered[name]
            yield f"{name}: {count} tiles on {100 * share:.4g} %"

    inventory.note("partial-quad", describe(partial))
    inventory.error("surplus-quad", describe(surplus))
    if len(covered) < _QUADS:
        inventory.note(
            "missing-quad",
            [f"{len(covered):,} of {_QUADS:,} have tiles"],
            count=_QUADS - len(covered),
        )


def _duplicates(items: pa.Table, keys: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Group the rows with equal keys, where there are several.

    Args:
        items: Images, with the columns id, source, label and `keys`.
        keys: Names of the columns to group by. Rows where the first is null belong to no group.

    Yields:
        Id, source and label of the rows of a group. Rows are in the order of the table, groups
        in the order of their first rows.
    """
    rows = items.select(keys).append_column("row", pa.array(np.arange(items.num_rows)))
    rows = rows.filter(pc.is_valid(rows[keys[0]]))
    # Threads would mix the rows of a group.
    groups = rows.group_by(keys, use_threads=False).aggregate([("row", "list")])["row_list"]
    groups = groups.filter(pc.greater(pc.list_value_length(groups), 1))
    groups = groups.take(pc.sort_indices(pc.list_element(groups, 0))).combine_chunks()
    lengths = pc.list_value_length(groups).to_pylist()
    members = items.select(["id", "source", "label"]).take(pc.list_flatten(groups)).to_pylist()
    start = 0
    for length in lengths:
        yield members[start : start + length]
        start += length


def _spread(values: npt.NDArray[np.number[Any]]) -> dict[str, Any]:
    if not len(values):
        values = np.zeros(1, dtype=np.int64)
    mean = round(float(values.mean()), 1)
    return {"min": int(values.min()), "mean": mean, "max": int(values.max())}


def _repeats_key(bad: Skipped) -> bool:
    return "same key" in bad.reason  # as the reader of tars words it


def _ids(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(row["id"] for row in rows[:5]) + (", ..." if len(rows) > 5 else "")


def _published_rows(path: Path) -> Mapping[str, int]:
    """Row of an id in the published table, where the download wrote that down."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: int(row["row"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        return {}  # absent; or damaged, which the checks of the download record report
