"""What may be wrong with a set of images, captions, labels and positions."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from marsretrieval import geo
from marsretrieval.datasets._inventory import DatasetInventory
from marsretrieval.datasets._items import Item, Items
from marsretrieval.datasets._likeness import near_pairs
from marsretrieval.datasets._protocol import Skipped
from marsretrieval.datasets._scan import Scan

__all__ = ["check_captions", "check_images", "check_labels", "check_likeness", "check_tiles"]

# Rows of the published table that show the same picture in two sizes, with captions of their own.
_KNOWN_PAIRS = frozenset({(460, 907), (1446, 2098)})
_QUADS = (360 // geo.QUAD_DEG) * 40  # 88 S to 88 N is mapped; the benchmark takes 80 S to 80 N
_TOLERANCE_DEG = 1e-6
_ROUNDING = 1e-6  # of a quad: smaller than a single tile
_MANY = 50_000


def check_images(found: Scan, told: DatasetInventory) -> None:
    """Readable, no id twice, the same bytes under one id only."""
    told.counts["images"] = len(found.items)
    told.counts["unreadable"] = len(found.bad)
    copies = _groups(found.items, lambda item: item.content)
    told.counts["distinct"] = len(found.items) - sum(len(each) - 1 for each in copies.values())
    sizes = found.items.sizes() if len(found.items) else np.zeros((1, 2))
    for axis, name in enumerate(("width", "height")):
        side = sizes[:, axis]
        told.counts[name] = {
            "min": int(side.min()), "mean": round(float(side.mean()), 1), "max": int(side.max()),
        }  # fmt: skip
    again = [bad for bad in found.bad if _said_before(bad)]
    unreadable = [bad for bad in found.bad if not _said_before(bad)]
    told.error("unreadable-image", (f"{bad.source}: {bad.reason}" for bad in unreadable))
    told.error("empty-shard", found.empty)
    for kind in ("annotation", "position"):
        told.error(
            f"wrong-{kind}",
            (
                f"{warning.source}: {warning.reason}"
                for warning in found.warnings
                if warning.kind == kind
            ),
        )
    doubles = _groups(found.items, lambda item: item.id)
    cases = [f"{key}: {_sources(items)}" for key, items in doubles.items()]
    told.error("double-id", [*cases, *(f"{bad.id}: {bad.source}" for bad in again)])


def check_captions(found: Scan, told: DatasetInventory) -> None:
    """Every image has a caption, and no two the same: else more than one answer is right."""
    lengths = np.array([len(item.caption or "") for item in found.items if _captioned(item)] or [0])
    told.counts["pairs"] = sum(map(_captioned, found.items))
    told.counts["caption_length"] = {
        "min": int(lengths.min()),
        "mean": round(float(lengths.mean()), 1),
        "max": int(lengths.max()),
    }
    told.error("no-caption", (item.source for item in found.items if not _captioned(item)))
    same = _groups(found.items, _words)
    told.error("double-caption", (_ids(items) for items in same.values()))
    copies = _groups(found.items, lambda item: item.content)
    told.error("double-image", (_ids(items) for items in copies.values()))


def check_labels(found: Scan, told: DatasetInventory) -> None:
    """Every image has a label, and equal images the same one."""
    classes = Counter(item.label for item in found.items if item.label)
    told.counts["classes"] = dict(sorted(classes.items()))
    told.error("no-label", (item.source for item in found.items if not item.label))
    copies = _groups(found.items, lambda item: item.content)
    conflicts = {key for key, items in copies.items() if len({item.label for item in items}) > 1}
    told.error(
        "double-image-of-two-classes",
        (", ".join(f"{each.id} ({each.label})" for each in copies[key])
         for key in copies if key in conflicts),
    )  # fmt: skip
    told.note("double-image", (_ids(copies[key]) for key in copies if key not in conflicts))


def check_likeness(found: Scan, told: DatasetInventory) -> None:
    """Pictures that are the same but for size or compression: all are compared with all."""
    count = sum(item.likeness is not None for item in found.items)
    if count > _MANY:
        told.note("likeness-not-checked", [f"{count:,} images, more than {_MANY:,}"])
    if not 2 <= count <= _MANY:
        return
    hashed = [item for item in found.items if item.likeness is not None]
    pairs = near_pairs(np.stack([item.likeness for item in hashed if item.likeness is not None]))
    rows = _rows(Path(told.folder) / "pairs.csv")
    cases = []
    for left, right in pairs:
        one, other = hashed[left], hashed[right]
        if one.content == other.content:
            continue
        numbers = tuple(sorted((rows.get(one.id, -1), rows.get(other.id, -1))))
        known = f" (rows {numbers[0]} and {numbers[1]}: known)" if numbers in _KNOWN_PAIRS else ""
        cases.append(f"{one.id}, {other.id}{known}")
    told.note("near-double-image", cases)


def check_tiles(found: Scan, told: DatasetInventory) -> None:
    """Every tile lies on the planet, no two at one place; which quads are covered."""
    astray = (item.source for item in found.items if not _on_planet(item.position))
    told.error("no-position", astray)
    places = _groups(found.items, _place)
    told.error("double-tile", (_ids(items) for items in places.values()))
    copies = _groups(found.items, lambda item: item.content)
    count = sum(len(items) - 1 for items in copies.values())
    told.note("double-image", (_ids(items) for items in copies.values()), count=count)
    _check_quads(found.items, told)


def _check_quads(tiles: Iterable[Item], told: DatasetInventory) -> None:
    """By the area of the tiles in each: they may be wider than high."""
    counts: Counter[str] = Counter()
    shares: defaultdict[str, float] = defaultdict(float)
    for item in tiles:
        if item.position is None or not _on_planet(item.position) or not _divides_quad(item):
            continue
        quad = geo.quad_name(*item.position)
        counts[quad] += 1
        shares[quad] += float(item.width_deg or 0) * float(item.height_deg or 0) / geo.QUAD_DEG**2
    if not counts:
        return
    partial = sorted(quad for quad, share in shares.items() if share < 1 - _ROUNDING)
    surplus = sorted(quad for quad, share in shares.items() if share > 1 + _ROUNDING)
    told.counts["quads"] = {
        "whole": len(counts) - len(partial) - len(surplus),
        "partial": len(partial),
        "missing": max(0, _QUADS - len(counts)),
        "of": _QUADS,
    }

    def covered(quads: Iterable[str]) -> Iterator[str]:
        return (f"{each}: {counts[each]} tiles on {100 * shares[each]:.4g} %" for each in quads)

    told.note("partial-quad", covered(partial))
    told.error("surplus-quad", covered(surplus))
    if len(counts) < _QUADS:
        told.note(
            "missing-quad",
            [f"{len(counts):,} of {_QUADS:,} have tiles"],
            count=_QUADS - len(counts),
        )


def _said_before(bad: Skipped) -> bool:
    return "same key" in bad.reason  # so the reader of tars names it


def _divides_quad(item: Item) -> bool:
    if not item.height_deg or item.height_deg <= 0:
        return False
    parts = geo.QUAD_DEG / item.height_deg
    return parts >= 1 and abs(parts - round(parts)) < 1e-3


def _captioned(item: Item) -> bool:
    return bool(item.caption and item.caption.strip())


def _on_planet(position: tuple[float, float] | None) -> bool:
    return (
        position is not None
        and bool(np.isfinite(position).all())
        and -180 - _TOLERANCE_DEG <= position[0] <= 360 + _TOLERANCE_DEG
        and abs(position[1]) <= 90 + _TOLERANCE_DEG
    )


def _words(item: Item) -> str | None:
    return " ".join(str(item.caption).split()).casefold() if _captioned(item) else None


def _place(item: Item) -> tuple[float, float, float | None] | None:
    if item.position is None or not _on_planet(item.position):
        return None
    lon = float(geo.wrap_lon(item.position[0]))
    return round(lon, 6), round(item.position[1], 6), item.width_deg


def _groups(items: Items, key: Callable[[Item], Hashable | None]) -> dict[Hashable, list[Item]]:
    """Those that share a key, other than None, with another.

    In two passes, so that only those are held: by the hash of the key, then by the key itself.
    """
    hashes = np.fromiter((hash(key(item)) for item in items), dtype=np.int64, count=len(items))
    ordered = np.sort(hashes)
    shared = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()) - {hash(None)}
    if not shared:
        return {}
    found: defaultdict[Hashable, list[Item]] = defaultdict(list)
    for item, code in zip(items, hashes.tolist(), strict=True):
        if code in shared:
            found[key(item)].append(item)
    found.pop(None, None)
    return {name: group for name, group in found.items() if len(group) > 1}


def _ids(items: Sequence[Item]) -> str:
    return ", ".join(item.id for item in items[:5]) + (", ..." if len(items) > 5 else "")


def _sources(items: Sequence[Item]) -> str:
    return ", ".join(item.source for item in items[:3])


def _rows(path: Path) -> Mapping[str, int]:
    """Row of each id in the published table, where the download wrote that down."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: int(row["row"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        return {}  # absent; or damaged, which the record of the download tells
