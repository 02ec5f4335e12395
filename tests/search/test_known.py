"""Hits beside a catalogue of known features: nearest name, distance, known or new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from marsretrieval.datasets import Points, read_points
from marsretrieval.errors import UsageError
from marsretrieval.search import Hits, compare_with_catalogue, write_hits
from marsretrieval.search.hits import describe_known, describe_nearest

RADIUS_KM = 3396.19


def hits_at(lon: Any, lat: Any) -> Hits:
    count = len(lon)
    return Hits(
        scores=np.linspace(1, 0, count, dtype=np.float32),
        ids=[f"t{number}" for number in range(count)],
        lon=list(lon),
        lat=list(lat),
        sources=["a.tar"] * count,
        shapes=[
            None if x is None or y is None else (float(x), float(y))
            for x, y in zip(lon, lat, strict=True)
        ],
    )


def points_at(lon: Any, lat: Any, names: tuple[str, ...] = ()) -> Points:
    names = names or tuple(f"p{number}" for number in range(len(lon)))
    return Points(np.asarray(lon, np.float64), np.asarray(lat, np.float64), names=names)


def haversine_km(lon1: Any, lat1: Any, lon2: Any, lat2: Any) -> Any:
    lon1, lat1, lon2, lat2 = (np.radians(value) for value in (lon1, lat1, lon2, lat2))
    half = np.sin((lat2 - lat1) / 2) ** 2
    half = half + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * RADIUS_KM * np.arcsin(np.sqrt(half))


def test_the_nearest_feature_is_that_of_brute_force() -> None:
    random = np.random.default_rng(7)
    lon, lat = random.uniform(-180, 180, 400), np.degrees(np.arcsin(random.uniform(-1, 1, 400)))
    edges = [(180.0, 0.0), (-179.99, 3.0), (179.99, -3.0), (0.0, 90.0), (77.0, -90.0), (5.0, 89.9)]
    lon, lat = np.append(lon, [x for x, _ in edges]), np.append(lat, [y for _, y in edges])
    to_lon = np.append(random.uniform(0, 360, 300), [179.95, -179.9, 180.0, 185.0, 12.0])
    to_lat = np.append(random.uniform(-90, 90, 300), [0.1, 3.1, -2.9, 89.95, -89.99])
    result = compare_with_catalogue(hits_at(lon.tolist(), lat.tolist()), points_at(to_lon, to_lat),
                                    km=60)  # fmt: skip
    distance = haversine_km(lon[:, None], lat[:, None], to_lon[None], to_lat[None])
    assert result.nearest_km == pytest.approx(distance.min(axis=1), abs=1e-3)
    assert result.nearest_name == [f"p{number}" for number in distance.argmin(axis=1)]
    assert result.known == (distance.min(axis=1) <= 60).tolist()
    assert result.about["against"]["known"] == int((distance.min(axis=1) <= 60).sum()) > 10


def test_a_hit_on_a_feature_and_one_without_a_position() -> None:
    hits = hits_at([10.0, None, 40.0], [20.0, None, -5.0])
    catalogue = points_at([370.0, 10.0, 40.1], [20.0, 20.0, -5.0], ("first", "second", "third"))
    result = compare_with_catalogue(hits, catalogue)
    assert result.nearest_name == ["first", None, "third"]
    assert result.nearest_km == [0, None, pytest.approx(RADIUS_KM * np.radians(0.1) * np.cos(
        np.radians(5)), abs=1e-3)]  # fmt: skip
    assert result.known == [True, None, True]
    line = "2 of 3 hits are known (within 10 km of the catalogue), 0 new, 1 without a position"
    assert describe_known(result) == line
    assert describe_nearest(result[1]) == "" and "first" in describe_nearest(result[0])
    assert describe_known(hits) == "" and describe_nearest(hits[0]) == ""
    far = compare_with_catalogue(hits, catalogue, km=1)
    assert far.known == [True, None, False]
    for km in (0, -1, float("nan"), 20_000):
        with pytest.raises(UsageError, match="known hits within"):
            compare_with_catalogue(hits, catalogue, km=km)


def test_merged_hits_keep_the_feature_of_the_best_tile() -> None:
    hits = hits_at([10.0, 10.1, 40.0], [0.0, 0.0, 0.0])
    catalogue = points_at([10.1, 41.0], [0.0, 0.0])
    merged = compare_with_catalogue(hits, catalogue).merge(1)
    assert merged.nearest_name == ["p0", "p1"] and merged.known == [True, False]
    assert "1 of 2 places is known" in describe_known(merged)


@pytest.mark.parametrize("suffix", [".csv", ".geojson", ".parquet", ".gpkg", ".fgb", ".shp"])
def test_files_have_the_three_columns(suffix: str, tmp_path: Path) -> None:
    catalogue = tmp_path / "known.csv"
    catalogue.write_text("name,lon,lat\nGale,137.4,-4.6\n")
    hits = hits_at([137.4, 0.0], [-4.6, 0.0])
    result = compare_with_catalogue(hits, read_points(catalogue))
    path = tmp_path / f"hits{suffix}"
    write_hits(result, path)
    name = "nearest" if suffix == ".shp" else "nearest_name"
    if suffix == ".parquet":
        table = pq.read_table(path)
        rows = table.select([name, "nearest_km", "known"]).to_pylist()
        about = json.loads(table.schema.metadata[b"marsretrieval"])["against"]
        assert (about["known"], about["new"], about["file"]) == (1, 1, str(catalogue))
    else:
        geopandas = pytest.importorskip("geopandas")
        rows = geopandas.read_file(path).sort_values("rank").to_dict("records")
    distance = float(haversine_km(137.4, -4.6, 0, 0))
    assert [row[name] for row in rows] == ["Gale", "Gale"]
    assert [float(row["nearest_km"]) for row in rows] == pytest.approx([0, distance], abs=1e-3)
    assert [str(row["known"]) for row in rows] == ["True", "False"]
