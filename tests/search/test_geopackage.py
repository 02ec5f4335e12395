"""Layers, styles and areas of a GeoPackage of hits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from marsretrieval import geo
from marsretrieval.search import write_hits
from tests.search.places import FOUR, Place, hits_of, make_store

pyogrio = pytest.importorskip("pyogrio")

TWO_PLACES: list[Place] = [
    (10.1, 50.1, 0.2),
    (10.3, 50.1, 0.2),
    (10.3, 50.3, 0.2),
    (30.0, 0.0, 0.2),
]


def box_km2(west: float, south: float, east: float, north: float) -> float:
    radius = geo.MARS_RADIUS_M / 1000
    heights = np.sin(np.radians(north)) - np.sin(np.radians(south))
    return float(radius**2 * np.radians(east - west) * heights)


def test_points_and_places_beside_footprints(tmp_path: Path) -> None:
    hits = hits_of(make_store(tmp_path / "store", TWO_PLACES))
    path = tmp_path / "hits.gpkg"
    assert write_hits(hits, path) == [path]
    layers = dict(pyogrio.list_layers(path).tolist())
    assert layers == {
        "hits": "MultiPolygon", "points": "Point", "places": "MultiPolygon", "layer_styles": None,
    }  # fmt: skip
    assert not list(tmp_path.glob("*.aux.xml"))
    frame = pyogrio.read_dataframe(path, layer="hits")
    for lon, lat, area in zip(frame["lon"], frame["lat"], frame["area_km2"], strict=True):
        assert area == pytest.approx(box_km2(lon - 0.1, lat - 0.1, lon + 0.1, lat + 0.1), rel=1e-6)
    points = pyogrio.read_dataframe(path, layer="points")
    assert points["id"].tolist() == hits.ids and points.crs == frame.crs
    assert list(zip(points.geometry.x, points.geometry.y, strict=True)) == [
        (hit.lon, hit.lat) for hit in hits
    ]
    layer = pyogrio.read_dataframe(path, layer="places")
    assert layer["place"].tolist() == [1, 2] and sorted(layer["n_hits"]) == [1, 3]
    big = layer[layer["n_hits"] == 3].iloc[0]
    in_it = frame[frame["lat"] > 40]
    assert big["score"] == in_it["score"].max() and big["best_id"] == in_it["id"].iloc[0]
    assert big["area_km2"] == pytest.approx(in_it["area_km2"].sum(), rel=1e-6)
    assert big.geometry.area == pytest.approx(0.12, abs=1e-6)


def test_places_of_merged_hits_hold_all_their_tiles(tmp_path: Path) -> None:
    hits = hits_of(make_store(tmp_path / "store", TWO_PLACES)).merge(5)
    write_hits(hits, tmp_path / "hits.gpkg")
    layer = pyogrio.read_dataframe(tmp_path / "hits.gpkg", layer="places")
    assert layer["n_hits"].tolist() == hits.tiles and sorted(hits.tiles or []) == [1, 3]
    big = layer[layer["n_hits"] == 3].iloc[0]
    assert big.geometry.area == pytest.approx(0.12, abs=1e-6)
    again = hits.merge(180)
    assert again.members is not None and [len(shapes) for shapes in again.members] == [4]


def test_every_layer_has_a_style_in_the_file(tmp_path: Path) -> None:
    hits = hits_of(make_store(tmp_path / "store", TWO_PLACES))
    write_hits(hits, tmp_path / "points.gpkg")
    with closing(sqlite3.connect(tmp_path / "points.gpkg")) as file:
        rows = file.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
        columns = dict(file.execute("SELECT table_name, column_name FROM gpkg_geometry_columns"))
    assert {name: column for name, column, *_ in rows} == columns
    assert set(columns) == {"hits", "points", "places"}
    kinds = {"hits": "fill", "points": "marker", "places": "fill"}
    for name, _, default, text in rows:
        symbols = ElementTree.fromstring(text).findall("renderer-v2/symbols/symbol")
        assert default == 1 and {symbol.get("type") for symbol in symbols} == {kinds[name]}


def test_points_only_have_one_layer(tmp_path: Path) -> None:
    hits = hits_of(make_store(tmp_path / "store", [FOUR[2], (10.0, 20.0, None)]))
    write_hits(hits, tmp_path / "hits.gpkg")
    names = [name for name, _ in pyogrio.list_layers(tmp_path / "hits.gpkg")]
    assert names == ["hits", "layer_styles"]
    assert pyogrio.read_dataframe(tmp_path / "hits.gpkg", layer="hits")["area_km2"].isna().all()
