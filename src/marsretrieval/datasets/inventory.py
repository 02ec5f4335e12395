"""Results of a verification (counts, set hashes, problems), and the checks that find problems."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marsretrieval import geo
from marsretrieval.datasets.base import RepeatedKey
from marsretrieval.datasets.scan import ScanResult, near_pairs
from marsretrieval.text import pluralize

_MAX_EXAMPLES = 20
# Rows of the published table that show one image in two sizes with different captions.
_KNOWN_PAIRS = frozenset({(460, 907), (1446, 2098)})
_QUAD_COUNT = (360 // geo.QUAD_DEG) * 40  # 80 S to 80 N; the mosaic covers 88 S to 88 N
_TOLERANCE_DEG = 1e-6
_AREA_TOLERANCE = 1e-6  # fraction of a quad, less than one tile
_MAX_COMPARED_IMAGES = 50_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem with its number of cases.

    Attributes:
        kind: Name of the kind, such as `double-id`.
        severity: `error` if the data is damaged or metrics computed on it would be wrong; `note`
            for information that also applies to the published datasets (near-duplicates).
        count: Number of cases.
        examples: Descriptions of the first cases.
    """

    kind: str
    severity: Literal["error", "note"]
    count: int
    examples: tuple[str, ...]


@dataclass(slots=True)
class DatasetInventory:
    """Counts and problems of one dataset.

    Attributes:
        dataset: paired, landform, geolocalization, tiles or images.
        folder: Folder of the dataset.
        origin: Provenance: repository and revision, synthetic planet, or tile specification.
        counts: Counts by name.
        set_hash: The set hash of a result that scores the whole dataset.
        problems: Problems, one entry per kind.
    """

    dataset: str
    folder: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    set_hash: str | None = None
    problems: list[Problem] = field(default_factory=list)

    def error(self, kind: str, cases: Iterable[str]) -> None:
        """Add an error unless there are no cases.

        Args:
            kind: Name of the kind of problem.
            cases: Description of each case.
        """
        self._add(kind, "error", cases, None)

    def note(self, kind: str, cases: Iterable[str], *, count: int | None = None) -> None:
        """Add a note unless there are no cases.

        Args:
            kind: Name of the kind of problem.
            cases: Description of each case.
            count: Number to report; None: the number of `cases`.
        """
        self._add(kind, "note", cases, count)

    def _add(
        self, kind: str, severity: Literal["error", "note"], cases: Iterable[str], count: int | None
    ) -> None:
        remaining = iter(cases)
        examples = tuple(islice(remaining, _MAX_EXAMPLES))
        if examples:
            total = len(examples) + sum(1 for _ in remaining) if count is None else count
            self.problems.append(Problem(kind, severity, total, examples))


@dataclass(frozen=True, slots=True)
class Inventory:
    """Result of a verification.

    Attributes:
        folder: The verified folder.
        datasets: Inventory of each dataset in it.
        schema_version: Version of the JSON layout.
    """

    folder: str
    datasets: list[DatasetInventory]
    schema_version: int = 1

    def ok(self, *, strict: bool = False) -> bool:
        """Check that there are no errors.

        Args:
            strict: Count notes as errors.

        Returns:
            True if there are none.
        """
        return not any(
            strict or problem.severity == "error"
            for dataset in self.datasets
            for problem in dataset.problems
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the inventory as JSON-compatible data."""
        return {"ok": self.ok(), **asdict(self)}


def check_images(scan: ScanResult, inventory: DatasetInventory) -> None:
    """Check that images are readable and ids are unique.

    Args:
        scan: Decoded images of the dataset.
        inventory: Receives the counts and problems.
    """
    items = scan.items
    inventory.counts["images"] = items.num_rows
    inventory.counts["unreadable"] = len(scan.bad)
    inventory.counts["distinct"] = pc.count_distinct(items["content"]).as_py()
    for side in ("width", "height"):
        inventory.counts[side] = _value_range(items[side].to_numpy())
    repeated = [skipped for skipped in scan.bad if isinstance(skipped, RepeatedKey)]
    unreadable = [skipped for skipped in scan.bad if not isinstance(skipped, RepeatedKey)]
    inventory.error(
        "unreadable-image", (f"{skipped.source}: {skipped.reason}" for skipped in unreadable)
    )
    inventory.error("empty-shard", scan.empty)
    for kind in ("annotation", "position"):
        warnings = [warning for warning in scan.warnings if warning.kind == kind]
        inventory.error(f"wrong-{kind}", (f"{item.source}: {item.reason}" for item in warnings))
    cases = [
        f"{rows[0]['id']}: {', '.join(row['source'] for row in rows[:3])}"
        for rows in _group_duplicates(items, ["id"])
    ]
    inventory.error(
        "double-id", [*cases, *(f"{skipped.id}: {skipped.source}" for skipped in repeated)]
    )


def check_captions(scan: ScanResult, inventory: DatasetInventory) -> None:
    """Check that each image has a caption and that no image or caption occurs twice.

    Duplicates would give a query more than one correct answer.

    Args:
        scan: Decoded images of the dataset.
        inventory: Receives the counts and problems.
    """
    captions = scan.items["caption"].to_pylist()
    lengths = [len(caption) for caption in captions if caption and caption.strip()]
    inventory.counts["pairs"] = len(lengths)
    inventory.counts["caption_length"] = _value_range(np.array(lengths))
    normalized = [" ".join(caption.split()).casefold() if caption else None for caption in captions]
    keys = pa.array([text or None for text in normalized], pa.string())
    inventory.error("no-caption", scan.items["source"].filter(pc.is_null(keys)).to_pylist())
    captioned = scan.items.append_column("words", keys)
    inventory.error("double-caption", map(_join_ids, _group_duplicates(captioned, ["words"])))
    inventory.error("double-image", map(_join_ids, _group_duplicates(scan.items, ["content"])))


def check_labels(scan: ScanResult, inventory: DatasetInventory) -> None:
    """Check that each image has a label and that identical images have the same one.

    Args:
        scan: Decoded images of the dataset.
        inventory: Receives the counts and problems.
    """
    labels = scan.items["label"].to_pylist()
    inventory.counts["classes"] = dict(sorted(Counter(filter(None, labels)).items()))
    unlabelled = pa.array([not label for label in labels], pa.bool_())
    inventory.error("no-label", scan.items["source"].filter(unlabelled).to_pylist())
    conflicts: list[str] = []
    duplicates: list[str] = []
    for rows in _group_duplicates(scan.items, ["content"]):
        if len({row["label"] for row in rows}) > 1:
            conflicts.append(", ".join(f"{row['id']} ({row['label']})" for row in rows))
        else:
            duplicates.append(_join_ids(rows))
    inventory.error("double-image-of-two-classes", conflicts)
    inventory.note("double-image", duplicates)


def check_near_duplicates(scan: ScanResult, inventory: DatasetInventory) -> None:
    """Compare all pairs of images for copies of another size or compression.

    Args:
        scan: Decoded images with difference hashes.
        inventory: Receives the problems; its folder may hold the `pairs.csv` of the download.
    """
    hashed = scan.items.filter(pc.is_valid(scan.items["likeness"]))
    count = hashed.num_rows
    if count > _MAX_COMPARED_IMAGES:
        inventory.note(
            "likeness-not-checked", [f"{count:,} images, more than {_MAX_COMPARED_IMAGES:,}"]
        )
    if not 2 <= count <= _MAX_COMPARED_IMAGES:
        return
    hashes = np.frombuffer(b"".join(hashed["likeness"].to_pylist()), dtype=np.uint64)
    ids, contents = hashed["id"].to_pylist(), hashed["content"].to_pylist()
    numbers = _read_published_rows(Path(inventory.folder) / "pairs.csv")
    cases = []
    for first, second in near_pairs(hashes.reshape(count, -1)):
        if contents[first] == contents[second]:
            continue
        pair = tuple(sorted(numbers.get(ids[row], -1) for row in (first, second)))
        remark = f" (rows {pair[0]} and {pair[1]}: known)" if pair in _KNOWN_PAIRS else ""
        cases.append(f"{ids[first]}, {ids[second]}{remark}")
    inventory.note("near-double-image", cases)


def check_tiles(scan: ScanResult, inventory: DatasetInventory) -> None:
    """Check tile positions and duplicates, and how much of each quad the tiles cover.

    Args:
        scan: Decoded tiles.
        inventory: Receives the counts and problems.
    """
    lon, lat, width, height = (
        scan.items[name].to_numpy() for name in ("lon", "lat", "width_deg", "height_deg")
    )
    on_planet = (
        (lon >= -180 - _TOLERANCE_DEG)
        & (lon <= 360 + _TOLERANCE_DEG)
        & (np.abs(lat) <= 90 + _TOLERANCE_DEG)
    )
    off_planet = pa.array(~on_planet)
    inventory.error("no-position", scan.items["source"].filter(off_planet).to_pylist())
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
    inventory.error("double-tile", map(_join_ids, _group_duplicates(tiles, list(keys))))
    duplicates = map(_join_ids, _group_duplicates(scan.items, ["content"]))
    count = inventory.counts["images"] - inventory.counts["distinct"]
    inventory.note("double-image", duplicates, count=count)
    lon, lat, width, height = (values[on_planet] for values in (lon, lat, width, height))
    _check_quads(lon, lat, width, height, inventory)


def _check_quads(
    lon: npt.NDArray[np.float64],
    lat: npt.NDArray[np.float64],
    width: npt.NDArray[np.float64],
    height: npt.NDArray[np.float64],
    inventory: DatasetInventory,
) -> None:
    """Compare the summed area of a quad's tiles with the area of the quad, in square degrees."""
    with np.errstate(divide="ignore", invalid="ignore"):
        tiles_per_side = geo.QUAD_DEG / height
        divides_quad = (
            (height > 0)
            & (tiles_per_side >= 1)
            & (np.abs(tiles_per_side - np.rint(tiles_per_side)) < 1e-3)
        )
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
    partial = sorted(quad for quad, (share, _) in covered.items() if share < 1 - _AREA_TOLERANCE)
    surplus = sorted(quad for quad, (share, _) in covered.items() if share > 1 + _AREA_TOLERANCE)
    inventory.counts["quads"] = {
        "whole": len(covered) - len(partial) - len(surplus),
        "partial": len(partial),
        "missing": max(0, _QUAD_COUNT - len(covered)),
        "of": _QUAD_COUNT,
    }

    def describe(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            share, count = covered[name]
            yield f"{name}: {pluralize(count, 'tile')} on {100 * share:.4g} %"

    inventory.note("partial-quad", describe(partial))
    inventory.error("surplus-quad", describe(surplus))
    if len(covered) < _QUAD_COUNT:
        inventory.note(
            "missing-quad",
            [f"{len(covered):,} of {_QUAD_COUNT:,} have tiles"],
            count=_QUAD_COUNT - len(covered),
        )


def _group_duplicates(items: pa.Table, keys: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Group the rows with equal keys; groups of one row are left out.

    Args:
        items: Images, with the columns id, source, label and `keys`.
        keys: Names of the columns to group by. Rows where the first is null belong to no group.

    Yields:
        Id, source and label of the rows of a group. Rows are in the order of the table, groups
        in the order of their first rows.
    """
    rows = items.select(keys).append_column("row", pa.array(np.arange(items.num_rows)))
    rows = rows.filter(pc.is_valid(rows[keys[0]]))
    # Threads would change the order of the rows in a group.
    groups = rows.group_by(keys, use_threads=False).aggregate([("row", "list")])["row_list"]
    groups = groups.filter(pc.greater(pc.list_value_length(groups), 1))
    groups = groups.take(pc.sort_indices(pc.list_element(groups, 0))).combine_chunks()
    lengths = pc.list_value_length(groups).to_pylist()
    members = items.select(["id", "source", "label"]).take(pc.list_flatten(groups)).to_pylist()
    start = 0
    for length in lengths:
        yield members[start : start + length]
        start += length


def _value_range(values: npt.NDArray[np.number[Any]]) -> dict[str, Any]:
    if not len(values):
        values = np.zeros(1, dtype=np.int64)
    mean = round(float(values.mean()), 1)
    return {"min": int(values.min()), "mean": mean, "max": int(values.max())}


def _join_ids(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(row["id"] for row in rows[:5]) + (", ..." if len(rows) > 5 else "")


def _read_published_rows(path: Path) -> Mapping[str, int]:
    """Map ids to rows of the published table, as recorded by the download."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: int(row["row"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        return {}  # missing, or damaged: reported by the checks of the download record
