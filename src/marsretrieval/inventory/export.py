"""Write an inventory: GIS layers of places, ground truth, negatives and a report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError, UsageError
from marsretrieval.inventory.audit import count_answers
from marsretrieval.inventory.files import InventoryError, InventoryFiles, statuses
from marsretrieval.inventory.report import describe, write_report
from marsretrieval.inventory.summary import estimate_files, place_sizes
from marsretrieval.io import atomic_path, check_output
from marsretrieval.search import rows_of
from marsretrieval.search.index.find import known_of
from marsretrieval.text import pluralize, table_cell

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.embeddings import EmbeddingStore

Content = Literal["places", "ground-truth", "negatives", "marks", "report"]
CONTENTS: tuple[Content, ...] = ("places", "ground-truth", "negatives", "marks", "report")

LAYERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".parquet": "GeoParquet"}
_SUFFIXES: dict[Content, tuple[str, ...]] = {
    "places": (*LAYERS, ".csv"),
    "ground-truth": (".csv",),
    "negatives": (".csv",),
    "marks": (".csv",),
    "report": (".md", ".html"),
}
_STEMS: tuple[tuple[str, Content], ...] = (
    ("negative", "negatives"),
    ("ground", "ground-truth"),
    ("place", "places"),
    ("mark", "marks"),
)


def content_of(path: str | Path, content: str | None = None) -> Content:
    """Decide what a file is to hold, by its name unless it is given.

    Args:
        path: The output file.
        content: One of `CONTENTS`; None: by the name of the file.

    Returns:
        The content.

    Raises:
        UsageError: If it cannot be decided, or the content has no such format.
        MissingDependencyError: If a GIS format needs the extra `gis`.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    chosen: Content | None = None
    if content is not None:
        chosen = next((name for name in CONTENTS if name == content), None)
        if chosen is None:
            raise UsageError(f"no content '{content}'", remedy=f"Use {', '.join(CONTENTS)}.")
    elif suffix in (".md", ".html"):
        chosen = "report"
    elif suffix in LAYERS:
        chosen = "places"
    else:
        stem = path.stem.lower()
        chosen = next((name for start, name in _STEMS if start in stem), None)
        if chosen is None:
            raise UsageError(
                f"{path}: the name does not say what the file is to hold",
                remedy=f"Add --what {', '.join(CONTENTS[:-1])} or {CONTENTS[-1]}.",
            )
    if suffix not in _SUFFIXES[chosen]:
        raise UsageError(
            f"{path}: no format for {chosen} in '{suffix}'",
            remedy=f"Use a name that ends in {', '.join(_SUFFIXES[chosen])}.",
        )
    if suffix in LAYERS:
        _require_gis()
    check_output(path)
    return chosen


def write_inventory(
    files: InventoryFiles,
    path: str | Path,
    *,
    content: str | None = None,
    store: Callable[[], EmbeddingStore] | None = None,
    command: str | None = None,
) -> tuple[Content, int]:
    """Write an inventory to a file.

    Args:
        files: The opened inventory.
        path: The output file.
        content: One of `CONTENTS`; None: by the name of the file.
        store: Function that opens the store; needed for GIS layers, which have footprints.
        command: Command line for the report.

    Returns:
        What was written, and its number of rows.

    Raises:
        UsageError: If the name does not fit.
        InventoryError: If there is nothing to write.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    chosen = content_of(path, content)
    if chosen == "report":
        write_report(estimate_files(files), path, command=command)
        return chosen, 1
    if chosen in ("negatives", "marks"):
        rows = mark_records(files)
        if chosen == "negatives":
            rows = [row for row in rows if row["mark"] == "no"]
    elif chosen == "ground-truth":
        rows = ground_truth_records(files)
    else:
        rows = place_records(files)
    if not rows:
        what = {"negatives": "no tile is marked no", "marks": "no tile is marked"}
        raise InventoryError(
            f"{files.path}: {what.get(chosen, 'no tile is marked yes')}: nothing to export",
            remedy="Mark tiles first: marsretrieval inventory next, then mark.",
        )
    if path.suffix.lower() in LAYERS:
        if store is None:
            raise UsageError("GIS layers need the store")
        _write_layer(places_frame(files, store()), path)
    else:
        comments = _ground_truth_comments(files) if chosen == "ground-truth" else []
        if chosen == "ground-truth":
            missing = sum(row["lon"] is None for row in rows)
            rows = [row for row in rows if row["lon"] is not None]
            if not rows:
                raise InventoryError(
                    f"{files.path}: no confirmed tile has a position",
                    remedy="Embed tiles with positions; ground truth consists of points.",
                )
            if missing:
                comments.append(f"{pluralize(missing, 'tile')} without a position left out")
        _write_csv(rows, path, comments)
    return chosen, len(rows)


def mark_records(files: InventoryFiles) -> list[dict[str, Any]]:
    """Return all marked tiles as table rows, in the order of their last marks.

    Args:
        files: The opened inventory.

    Returns:
        Rows with id, lon, lat, mark, count, place, place_tiles, marked_at, found_by, audit,
        stratum, weight (tiles that a sampled tile stands for), rank, score and note.
    """
    current = statuses(files.marks, files.audits)
    sizes = place_sizes(files)
    sampled = _sample_weights(files)
    rows = []
    for name, mark in current.items():
        stratum, weight = sampled.get(name, (None, 1.0))
        is_yes = mark.mark == "yes"
        rows.append(
            {
                "id": name,
                "lon": mark.lon,
                "lat": mark.lat,
                "mark": mark.mark,
                "count": mark.count,
                "place": sizes.group(name) if is_yes else None,
                "place_tiles": sizes.of(name) if is_yes else None,
                "marked_at": mark.time,
                "found_by": mark.how,
                "audit": mark.audit,
                "stratum": None if stratum is None else stratum + 1,
                "weight": round(weight, 6),
                "rank": mark.rank,
                "score": mark.score,
                "note": mark.note,
            }
        )
    return rows


def ground_truth_records(files: InventoryFiles) -> list[dict[str, Any]]:
    """Return the confirmed tiles as points of a catalogue.

    One row per tile, because a place may be wider than the radius within which a tile counts as
    found; `place` joins the tiles of a place.

    Args:
        files: The opened inventory.

    Returns:
        Rows with lon, lat, id, place, place_tiles, count, found_by, audit, weight, confirmed_at,
        model and note.
    """
    model = str(files.header.store.encoder.get("id"))
    names = ("lon", "lat", "id", "place", "place_tiles", "count", "found_by", "audit", "weight")
    return [
        {
            **{name: row[name] for name in names},
            "confirmed_at": row["marked_at"],
            "model": model,
            "note": row["note"],
        }
        for row in mark_records(files)
        if row["mark"] == "yes"
    ]


def place_records(files: InventoryFiles) -> list[dict[str, Any]]:
    """Return the confirmed places as table rows.

    Args:
        files: The opened inventory.

    Returns:
        One row per place, in the order in which they were found, at the confirmed tile nearest to
        the mean of its tiles: lon, lat, id, tiles (confirmed), place_tiles (given or confirmed),
        count, found_by, audit, weight, confirmed_at, model, ids, note.
    """
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in mark_records(files):
        if row["mark"] == "yes":
            groups.setdefault(row["place"], []).append(row)
    model = str(files.header.store.encoder.get("id"))
    records = []
    for members in groups.values():
        centre = members[_central(members)]
        counts = [row["count"] for row in members if row["count"] is not None]
        audits = [row["audit"] for row in members if row["audit"] is not None]
        records.append(
            {
                "lon": centre["lon"],
                "lat": centre["lat"],
                "id": centre["id"],
                "tiles": len(members),
                "place_tiles": centre["place_tiles"],
                "count": sum(counts) if counts else None,
                "found_by": members[0]["found_by"],
                "audit": audits[0] if audits else None,
                "weight": min(row["weight"] for row in members),
                "confirmed_at": members[0]["marked_at"],
                "model": model,
                "ids": ";".join(row["id"] for row in members),
                "note": "; ".join(row["note"] for row in members if row["note"]) or None,
            }
        )
    return records


def places_frame(files: InventoryFiles, store: EmbeddingStore) -> GeoDataFrame:
    """Return the confirmed places with the union of their tiles' footprints as geometry.

    Args:
        files: The opened inventory.
        store: Its store.

    Returns:
        A GeoDataFrame with the columns of `place_records`, CRS IAU_2015:49900;
        `attrs["marsretrieval"]` is the estimate.

    Raises:
        MissingDependencyError: If geopandas is not installed (extra `gis`).
    """
    _require_gis()
    import geopandas
    import pandas
    import pyproj
    import shapely

    records = place_records(files)
    names = [record["ids"].split(";") for record in records]
    rows = rows_of(store, [name for group in names for name in group])
    columns = known_of(store).take(rows) if len(rows) else None
    shapes: list[Any] = []
    start = 0
    for group in names:
        assert columns is not None
        outlines = [
            geo.outline(
                float(columns.lon[index]),
                float(columns.lat[index]),
                float(columns.width_deg[index]),
                float(columns.height_deg[index]),
                domain=180,
            )
            for index in range(start, start + len(group))
        ]
        start += len(group)
        outlined = [shape for shape in geo.to_shapely(outlines) if shape is not None]
        shape = shapely.union_all(outlined) if outlined else None
        is_single = shape is not None and shape.geom_type == "Polygon"
        shapes.append(shapely.MultiPolygon([shape]) if is_single else shape)
    table = pandas.DataFrame(records, columns=[*_place_columns()])
    frame = geopandas.GeoDataFrame(
        table.astype(dict.fromkeys(("tiles", "place_tiles", "count", "audit"), "Int64")),
        geometry=shapes,
        crs=pyproj.CRS.from_json_dict(geo.MARS_CRS),
    )
    frame.attrs["marsretrieval"] = estimate_files(files)
    return frame


def _place_columns() -> tuple[str, ...]:
    return (
        "lon", "lat", "id", "tiles", "place_tiles", "count", "found_by", "audit", "weight",
        "confirmed_at", "model", "ids", "note",
    )  # fmt: skip


def _central(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of the row nearest to the mean position of all."""
    lon = np.array([np.nan if row["lon"] is None else row["lon"] for row in rows])
    lat = np.array([np.nan if row["lat"] is None else row["lat"] for row in rows])
    if not np.isfinite(lon + lat).any():
        return 0
    xyz = geo.unit_vectors(lon, lat)
    distance = ((xyz - np.nanmean(xyz, axis=0)) ** 2).sum(axis=1)
    return int(np.nanargmin(distance))


def _sample_weights(files: InventoryFiles) -> dict[str, tuple[int | None, float]]:
    """Return stratum (None elsewhere) and weight of the tiles that the latest audit sampled."""
    if not files.audits:
        return {}
    audit = files.audits[-1]
    tally = count_answers(audit, files.marks, files.audits)
    weights = [size / max(n, 1) for size, n in zip(tally.sizes, tally.sampled, strict=True)]
    elsewhere = audit.rest / max(tally.rest_sampled, 1)
    return {
        slot.id: (slot.stratum, elsewhere if slot.stratum is None else weights[slot.stratum])
        for slots in audit.pages
        for slot in slots
        if slot.kind == "elsewhere" or (slot.kind == "sample" and slot.stratum is not None)
    }


def _ground_truth_comments(files: InventoryFiles) -> list[str]:
    estimate = estimate_files(files)
    return [
        describe(estimate),
        f"found with {estimate['model']}, which favours that model when it is scored on these "
        "points (pool bias)",
    ]


def _write_csv(rows: Sequence[Mapping[str, Any]], path: Path, comments: Sequence[str]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        for comment in comments:
            file.write("# " + " ".join(comment.split()) + "\n")
        table = csv.writer(file)
        table.writerow(rows[0])
        for row in rows:
            table.writerow([table_cell(v) if isinstance(v, str) else v for v in row.values()])


def _write_layer(frame: GeoDataFrame, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with atomic_path(path) as temporary:
            frame.to_parquet(temporary, index=False, compression="zstd")
        return
    if suffix == ".geojson":
        records = frame.drop(columns="geometry").astype(object)
        records = records.where(records.notna(), None).to_dict("records")
        collection = {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": geo.MARS_CRS_URN}},
            "marsretrieval": frame.attrs["marsretrieval"],
            "features": [
                {
                    "type": "Feature",
                    "geometry": None if shape is None else shape.__geo_interface__,
                    "properties": record,
                }
                for shape, record in zip(frame.geometry, records, strict=True)
            ],
        }
        with atomic_path(path) as temporary:
            temporary.write_text(
                json.dumps(collection, ensure_ascii=False, allow_nan=False), encoding="utf-8"
            )
        return
    from marsretrieval.search.export import write_frame

    options: dict[str, Any] = {}
    if suffix == ".gpkg":
        estimate = json.dumps(frame.attrs["marsretrieval"], ensure_ascii=False)
        options = {"layer": path.stem, "dataset_metadata": {"marsretrieval": estimate}}
    write_frame(frame, path, LAYERS[suffix], **options)


def _require_gis() -> None:
    from importlib.util import find_spec

    for name in ("geopandas", "pyogrio"):
        if find_spec(name) is None:
            raise MissingDependencyError(name, "gis", needed_for="a GIS layer")
