"""Hits as tables and maps."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from marsretrieval import geo
from marsretrieval.errors import OutputError, UsageError
from marsretrieval.search import Hits, exact_topk, write_hits
from tests.fakes import FakeEncoder
from tests.search.places import FOUR, hits_of, make_store


@pytest.fixture
def hits(tmp_path: Path) -> Hits:
    return hits_in(tmp_path, 180)


def hits_in(folder: Path, domain: int) -> Hits:
    return hits_of(make_store(folder / "store", FOUR), domain)


def in_order(hits: Hits, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert [row["id"] for row in rows] == hits.ids
    return sorted(rows, key=lambda row: row["id"])


def test_ranks_scores_and_positions(hits: Hits) -> None:
    rows = list(hits.records())
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    positions = [(row["lon"], row["lat"]) for row in in_order(hits, rows)]
    assert positions == [(-180.0, 10.0), (0.0, -10.0), (-59.9, 45.1), (None, None)]


@pytest.mark.parametrize(
    ("domain", "longitudes", "kinds"),
    [
        (180, [-180.0, 0.0, -59.9, None], ["MultiPolygon", "Polygon", "Point", None]),
        (360, [180.0, 0.0, 300.1, None], ["Polygon", "MultiPolygon", "Point", None]),
    ],
)
def test_geojson(tmp_path: Path, domain: int, longitudes: list[Any], kinds: list[Any]) -> None:
    hits = hits_in(tmp_path, domain)
    write_hits(hits, tmp_path / "hits.geojson")
    collection = json.loads((tmp_path / "hits.geojson").read_text())
    assert collection["crs"]["properties"]["name"] == "urn:ogc:def:crs:IAU:2015:49900"
    assert collection["marsretrieval"]["text"] == "pitted cones"
    features = sorted(collection["features"], key=lambda feature: feature["id"])
    assert [item["properties"]["lon"] for item in features] == longitudes
    shapes = [item["geometry"] for item in features]
    assert [shape and shape["type"] for shape in shapes] == kinds
    low = -180 if domain == 180 else 0
    for shape in shapes[:2]:
        rings = shape["coordinates"] if shape["type"] == "Polygon" else [
            ring for polygon in shape["coordinates"] for ring in polygon
        ]  # fmt: skip
        for ring in rings:
            assert ring[0] == ring[-1] and all(low <= lon <= low + 360 for lon, _ in ring)


def test_csv(hits: Hits, tmp_path: Path) -> None:
    write_hits(hits, tmp_path / "hits.csv")
    with (tmp_path / "hits.csv").open(newline="") as file:
        rows = in_order(hits, list(csv.DictReader(file)))
    assert rows[0]["footprint"] == (
        "MULTIPOLYGON (((179.9 9.9, 180 9.9, 180 10.1, 179.9 10.1, 179.9 9.9)), "
        "((-180 9.9, -179.9 9.9, -179.9 10.1, -180 10.1, -180 9.9)))"
    )
    assert rows[2]["footprint"] == "POINT (-59.9 45.1)"
    assert (rows[3]["lon"], rows[3]["lat"], rows[3]["footprint"]) == ("", "", "")
    assert rows[0]["source"] == "000000.tar:tile-000000.png"


def test_parquet(hits: Hits, tmp_path: Path) -> None:
    write_hits(hits, tmp_path / "hits.parquet")
    table = pq.read_table(tmp_path / "hits.parquet")
    np.testing.assert_array_equal(table.column("score").to_numpy(), hits.scores)
    geometry = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert geometry["geometry_types"] == ["MultiPolygon", "Point", "Polygon"]
    assert geometry["bbox"] == [-180, -10.1, 180, 45.1]
    assert json.loads(table.schema.metadata[b"marsretrieval"])["text"] == "pitted cones"
    assert table.column("geometry").null_count == 1


def test_no_hits_make_empty_files(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", FOUR)
    query = FakeEncoder().encode_texts(["x"])
    none = Hits.from_ranking(store, exact_topk(store, query, 4, region=geo.Box(50, 50, 51, 51)))
    for name in ("a.csv", "a.geojson", "a.parquet"):
        write_hits(none, tmp_path / name)
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_the_reference_system_is_that_of_proj() -> None:
    rasterio_crs = pytest.importorskip("rasterio.crs")
    expected = rasterio_crs.CRS.from_string("IAU_2015:49900")
    theirs = expected.to_dict(projjson=True)
    theirs.pop("remarks", None)
    assert theirs == geo.MARS_CRS
    assert rasterio_crs.CRS.from_user_input(geo.MARS_CRS_URN) == expected
    assert rasterio_crs.CRS.from_user_input(json.dumps(geo.MARS_CRS)) == expected


def test_invalid_names_and_positions(hits: Hits, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format"):
        write_hits(hits, tmp_path / "hits.xyz")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_hits(hits, tmp_path / "file" / "hits.csv")
