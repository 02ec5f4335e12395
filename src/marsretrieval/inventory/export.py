"""Write an inventory: GIS layers of places, ground truth, negatives and a report."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from marsretrieval import __version__, geo
from marsretrieval.errors import MissingDependencyError, UsageError
from marsretrieval.inventory.audit import count_answers
from marsretrieval.inventory.files import InventoryError, InventoryFiles, statuses
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

_LAYERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".parquet": "GeoParquet"}
_SUFFIXES: dict[Content, tuple[str, ...]] = {
    "places": (*_LAYERS, ".csv"),
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


def content_of(path: Path, content: str | None = None) -> Content:
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
    suffix = path.suffix.lower()
    chosen: Content | None = None
    if content is not None:
        chosen = next((known for known in CONTENTS if known == content), None)
        if chosen is None:
            raise UsageError(f"no content '{content}'", remedy=f"Use {', '.join(CONTENTS)}.")
    elif suffix in (".md", ".html"):
        chosen = "report"
    elif suffix in _LAYERS:
        chosen = "places"
    else:
        stem = path.stem.lower()
        chosen = next((known for start, known in _STEMS if start in stem), None)
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
    if suffix in _LAYERS:
        _require_gis()
    check_output(path)
    return chosen


def write_inventory(
    files: InventoryFiles,
    path: Path,
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
    chosen = content_of(path, content)
    if chosen == "report":
        write_report(estimate_files(files), path, command=command)
        return chosen, 1
    if chosen in ("negatives", "marks"):
        rows = mark_records(files)
        if chosen == "negatives":
            rows = [row for row in rows if row["mark"] == "no"]
    else:
        rows = place_records(files)
    if not rows:
        what = {"negatives": "no tile is marked no", "marks": "no tile is marked"}
        raise InventoryError(
            f"{files.path}: {what.get(chosen, 'no tile is marked yes')}: nothing to export",
            remedy="Mark tiles first: marsretrieval inventory next, then mark.",
        )
    if path.suffix.lower() in _LAYERS:
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
                comments.append(f"{pluralize(missing, 'place')} without a position left out")
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
        known = [shape for shape in geo.to_shapely(outlines) if shape is not None]
        shape = shapely.union_all(known) if known else None
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


def _sample_weights(files: InventoryFiles) -> dict[str, tuple[int, float]]:
    """Return stratum and weight of the tiles that the latest audit sampled."""
    if not files.audits:
        return {}
    audit = files.audits[-1]
    tally = count_answers(audit, files.marks, files.audits)
    weights = [size / max(n, 1) for size, n in zip(tally.sizes, tally.sampled, strict=True)]
    return {
        slot.id: (slot.stratum, weights[slot.stratum])
        for slots in audit.pages
        for slot in slots
        if slot.kind == "sample" and slot.stratum is not None
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
    write_frame(frame, path, _LAYERS[suffix], **options)


def _require_gis() -> None:
    from importlib.util import find_spec

    for name in ("geopandas", "pyogrio"):
        if find_spec(name) is None:
            raise MissingDependencyError(name, "gis", needed_for="a GIS layer")


def describe(estimate: Mapping[str, Any]) -> str:
    """State an estimate in one sentence.

    Args:
        estimate: Result of `estimate_files`.

    Returns:
        The sentence.
    """
    landform, confirmed = estimate["landform"], estimate["recall"]["confirmed"]
    tiles, recall = estimate["tiles"], estimate["recall"]
    if estimate["audit"] is None and tiles["estimate"] is None:
        return (
            f"{pluralize(confirmed, 'tile')} of {estimate['population']:,} are confirmed to show "
            f"{landform}; without an audit their completeness is unknown."
        )
    if estimate["audit"] is None:
        return f"All {estimate['population']:,} tiles are marked: {confirmed:,} show {landform}."
    scope = (
        f"Among the first {estimate['domain']:,} tiles of the ranking and the tiles marked before"
    )
    if tiles["estimate"] is None:
        return (
            f"{scope}, {confirmed:,} are confirmed to show {landform}; the audit has not yet "
            "sampled every stratum, so that there is no estimate."
        )
    rest = estimate["elsewhere"]
    sentence = (
        f"{scope}, {_number(tiles['estimate'])} show {landform} "
        f"(95 % interval {_number(tiles['low'])} to {_number(tiles['high'])}), of which "
        f"{confirmed:,} are confirmed, {recall['estimate']:.0%} "
        f"({recall['low']:.0%} to {recall['high']:.0%})"
    )
    if not rest["tiles"]:
        return f"{sentence}; no other tiles are left."
    looked = f"{rest['yes']:,} of {rest['audited']:,} looked at do" if rest["audited"] else (
        "none was looked at"
    )  # fmt: skip
    return (
        f"{sentence}; of the other {rest['tiles']:,} tiles {looked}, so that at most "
        f"{_number(rest['high'])} do (95 %)."
    )


def write_report(estimate: Mapping[str, Any], path: Path, *, command: str | None = None) -> None:
    """Write the report of an estimate as Markdown or HTML, by the suffix of the file.

    Args:
        estimate: Result of `estimate_files`.
        path: File that ends in .md or .html.
        command: Command line that repeats the estimate.

    Raises:
        OutputError: If the file cannot be written.
    """
    sections = _sections(estimate, command)
    render = _to_html if path.suffix.lower() == ".html" else _to_markdown
    text = render(f"Inventory of {estimate['landform']}", describe(estimate), sections)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


Table = list[list[str]]


def _sections(estimate: Mapping[str, Any], command: str | None) -> list[tuple[str, str, Table]]:
    """Return title, text and table (first row: header) of each section."""
    audit = estimate["audit"]
    header = ["quantity", "estimate", "low", "high"]
    results = [header]
    for title, key in (("positive tiles", "tiles"), ("places", "places")):
        value = estimate[key]
        results.append([title, *(_number(value[name]) for name in header[1:])])
    recall = estimate["recall"]
    results.append(
        ["completeness of the confirmed tiles", *(_percent(recall[name]) for name in header[1:])]
    )
    if estimate["corrected"]:
        values = estimate["corrected"]
        results.append(
            ["positive tiles, corrected for misses", *(_number(values[n]) for n in header[1:])]
        )
    for title, key in (("own agreement", "agreement"), ("hit rate of controls", "hit_rate")):
        if estimate[key]:
            values = estimate[key]
            results.append(
                [f"{title} (n = {values['of']})", *(_percent(values[n]) for n in header[1:])]
            )
    results.append(["positive tiles elsewhere", "", "", _number(estimate["elsewhere"]["high"])])
    marked = estimate["marked"]
    counts = [
        ["count", "tiles"],
        ["store, with data", f"{estimate['population']:,}"],
        ["store, without data (not counted)", f"{estimate['without_data']:,}"],
        *([f"marked {name}", f"{marked[name]:,}"] for name in ("yes", "no", "unsure")),
        ["domain", f"{estimate['domain']:,}"],
        ["audited in the domain", f"{estimate['audited']:,}"],
        ["audited elsewhere", f"{estimate['elsewhere']['audited']:,}"],
    ]
    notes = []
    if estimate["places"]["assumed"]:
        notes.append(
            f"The place of {pluralize(estimate['places']['assumed'], 'positive tile')} has no "
            "stated size; it is taken to be the confirmed tiles that touch, so that the number of "
            "places may be too high."
        )
    if marked["unsure"]:
        notes.append("Unsure tiles count as no in the lower limits and as yes in the upper ones.")
    if estimate["new_since_audit"]:
        notes.append(
            f"{pluralize(estimate['new_since_audit'], 'tile')} came into the store after the audit "
            "and are in neither number."
        )
    sections: list[tuple[str, str, Table]] = [
        ("Results", " ".join(notes), results),
        ("Counts", "", counts),
    ]
    if audit:
        strata = [["stratum", "tiles", "audited", "yes", "unsure"]]
        for number, row in enumerate(audit["strata"], 1):
            keys = ("size", "audited", "yes", "unsure")
            strata.append([str(number), *(f"{row[key]:,}" for key in keys)])
        state = "complete" if audit["complete"] else f"not complete ({audit['state']})"
        sections.append(
            (
                "Audit",
                f"Audit {audit['number']}, {state}; seed {audit['seed']}, target half width "
                f"{audit['target']:.0%}, {pluralize(audit['pages'], 'page')}, "
                f"{audit['known']:,} positive tiles known before. Ranking {audit['ranking']}, "
                f"vector {audit['vector']}.",
                strata,
            )
        )
    formulas = [["quantity", "formula"], *([k, v] for k, v in estimate["formulas"].items())]
    sections.append(("Formulas", "", formulas))
    facts = [
        ["what", "value"],
        ["inventory", estimate["inventory"]],
        ["store", estimate["store"]],
        ["set hash", estimate["set_hash"]],
        ["model", estimate["model"]],
        ["texts", "; ".join(estimate["texts"]) or "none"],
        ["marsretrieval", __version__],
        *([f"audit: {k}", v] for k, v in (audit["versions"] if audit else {}).items()),
        ["written", datetime.now(UTC).isoformat(timespec="seconds")],
        ["command", command or f"marsretrieval inventory estimate {estimate['inventory']}"],
    ]
    sections.append(("Origin", "", facts))
    return sections


def _to_markdown(title: str, sentence: str, sections: Sequence[tuple[str, str, Table]]) -> str:
    lines = [f"# {title}", "", sentence, ""]
    for heading, text, table in sections:
        lines += [f"## {heading}", ""]
        if text:
            lines += [text, ""]
        cells = [[re.sub(r"([|\\`<>*_])", r"\\\1", cell) for cell in row] for row in table]
        lines += ["| " + " | ".join(cells[0]) + " |", "|" + "---|" * len(cells[0])]
        lines += ["| " + " | ".join(row) + " |" for row in cells[1:]]
        lines.append("")
    return "\n".join(lines)


def _to_html(title: str, sentence: str, sections: Sequence[tuple[str, str, Table]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>",
        "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;"
        "color:#222;background:#fff}table{border-collapse:collapse;margin:1rem 0}"
        "td,th{border:1px solid #bbb;padding:.25rem .6rem;text-align:left;"
        "overflow-wrap:anywhere}.result{font-size:1.15rem}"
        "@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}}",
        f'</style></head><body><h1>{escape(title)}</h1><p class="result">{escape(sentence)}</p>',
    ]
    for heading, text, table in sections:
        parts.append(f"<h2>{escape(heading)}</h2>")
        if text:
            parts.append(f"<p>{escape(text)}</p>")
        rows = "".join(row(cells, "td") for cells in table[1:])
        parts.append(f"<table><thead>{row(table[0], 'th')}</thead><tbody>{rows}</tbody></table>")
    return "\n".join([*parts, "</body></html>\n"])


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
