"""Hits in GIS formats: positions, CRS, outlines, styles."""

from __future__ import annotations

import json
import sqlite3
import sys
import zipfile
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from marsretrieval import geo
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.search import FORMATS, Hits, check_hits_path, exact_topk, write_hits
from tests.fakes import FakeEncoder
from tests.search.places import FOUR, hits_of, make_store

geopandas = pytest.importorskip("geopandas")

LAYERS = [item.suffix for item in FORMATS if item.is_layer and item.suffix != ".json"]
MIXED = [suffix for suffix in LAYERS if ".shp" not in suffix]  # points beside outlines
OUTLINES = [*FOUR[:2], FOUR[3]]


@pytest.fixture(scope="module")
def outlines(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return make_store(tmp_path_factory.mktemp("outlines") / "store", OUTLINES)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return make_store(tmp_path_factory.mktemp("four") / "store", FOUR)


def read(path: Path) -> Any:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer=0)


def is_mars(crs: Any) -> bool:
    sphere = crs.ellipsoid
    return (
        crs.is_geographic
        and sphere.semi_major_metre == sphere.semi_minor_metre == geo.MARS_RADIUS_M
        and crs.to_epsg() is None
    )


@pytest.mark.parametrize("suffix", LAYERS)
@pytest.mark.parametrize("domain", [180, 360])
def test_layers_round_trip(
    tmp_path: Path, outlines: EmbeddingStore, suffix: str, domain: int
) -> None:
    hits = hits_of(outlines, domain)
    path = tmp_path / "out" / f"hits{suffix}"
    beside = {".gpkg": [], ".geojson": ["hits.qml"], ".parquet": ["hits.qml"]}
    names = beside.get(suffix, ["hits.qml", f"hits{suffix}.json"])
    assert write_hits(hits, path) == [path, *(tmp_path / "out" / name for name in names)]
    frame = read(path)
    assert is_mars(frame.crs)
    assert frame["rank"].tolist() == [1, 2, 3] and frame["id"].tolist() == hits.ids
    np.testing.assert_allclose(frame["score"], hits.scores, atol=1e-7)
    assert list(frame.columns) == [
        *(["rank", "score", "id", "lon", "lat", "quad", "source", "area_km2"]), "geometry",
    ]  # fmt: skip
    nowhere = frame[frame["id"] == "tile-000002"].iloc[0]
    assert nowhere.geometry is None and np.isnan(nowhere["lon"])
    shapes = frame.set_index("id").geometry
    bounds = {name: shape.bounds for name, shape in shapes.items() if shape is not None}
    assert all(shape.area == pytest.approx(0.04) for shape in shapes if shape is not None)
    cut, uncut = ("tile-000000", "tile-000001")[:: 1 if domain == 180 else -1]
    low = -180 if domain == 180 else 0
    assert bounds[cut][0] == low and bounds[cut][2] == low + 360
    assert len(shapes[cut].geoms) == 2
    assert bounds[uncut][2] - bounds[uncut][0] == pytest.approx(0.2)
    assert not [item.name for item in path.parent.iterdir() if item.name.startswith(".")]


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp"])
def test_layers_need_no_pandas_and_empty_ones_keep_their_types(
    tmp_path: Path, outlines: EmbeddingStore, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyogrio

    for name in ("geopandas", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    hits = hits_of(outlines)
    kinds = []
    for name, selection in (("some", hits), ("none", hits.take([]))):
        write_hits(selection, tmp_path / f"{name}{suffix}")
        info = pyogrio.read_info(tmp_path / f"{name}{suffix}")
        kinds.append(dict(zip(info["fields"], info["ogr_types"], strict=True)))
    assert kinds[0] == kinds[1] and kinds[1]["id"] == "OFTString"


def test_uppercase_name_is_preserved(tmp_path: Path, outlines: EmbeddingStore) -> None:
    hits = hits_of(outlines)
    for name in ("HITS.SHP", "Hits.GPKG"):
        written, *others = write_hits(hits, tmp_path / "out" / name)
        assert written.exists() and written.name == name and all(map(Path.exists, others))
        assert len(read(written)) == 3
    assert not (tmp_path / "out" / "HITS.shp").exists()


def test_geopackage_records_the_query(tmp_path: Path, outlines: EmbeddingStore) -> None:
    import pyogrio

    about = {"text": "dunes", "like": ["a", "b"], "dataset": {"name": "made up"}, "mix": None}
    hits = replace(hits_of(outlines), about=about)
    write_hits(hits, tmp_path / "hits.gpkg")
    with closing(sqlite3.connect(tmp_path / "hits.gpkg")) as file:
        (definition, *others) = file.execute(
            "SELECT definition FROM gpkg_spatial_ref_sys JOIN gpkg_contents USING (srs_id) "
            "WHERE organization = 'IAU_2015' AND organization_coordsys_id = 49900"
        ).fetchall()
    assert len(others) == 2  # the layers of points and places
    (definition,) = definition
    assert definition.endswith('AUTHORITY["IAU_2015","49900"]]')
    metadata = pyogrio.read_info(tmp_path / "hits.gpkg", layer="hits")["dataset_metadata"]
    (text,) = metadata.values()
    record = json.loads(text)["marsretrieval"]
    assert record["text"] == "dunes" and record["like"] == ["a", "b"]
    assert record["dataset"] == {"name": "made up"}


@pytest.mark.parametrize("suffix", MIXED)
def test_points_beside_outlines(tmp_path: Path, four: EmbeddingStore, suffix: str) -> None:
    hits = hits_of(four)
    write_hits(hits, tmp_path / f"hits{suffix}")
    frame = read(tmp_path / f"hits{suffix}")
    point = frame[frame["id"] == "tile-000002"].geometry.iloc[0]
    assert (point.geom_type, point.x, point.y) == ("Point", -59.9, 45.1)


@pytest.mark.parametrize("suffix", LAYERS)
def test_empty_and_points_only(tmp_path: Path, suffix: str) -> None:
    store = make_store(tmp_path / "store", [FOUR[2], (10.0, 20.0, None)])
    query = FakeEncoder().encode_texts(["x"])
    none = Hits.from_ranking(store, exact_topk(store, query, 4, region=geo.Box(50, 50, 51, 51)))
    write_hits(none, tmp_path / f"none{suffix}")
    frame = read(tmp_path / f"none{suffix}")
    assert len(frame) == 0 and is_mars(frame.crs)
    write_hits(hits_of(store), tmp_path / f"points{suffix}")
    frame = read(tmp_path / f"points{suffix}")
    assert set(frame.geom_type) == {"Point"}
    assert frame.total_bounds.tolist() == [-59.9, 20.0, 10.0, 45.1]


def test_clusters_have_their_number_of_tiles(tmp_path: Path, outlines: EmbeddingStore) -> None:
    hits = hits_of(outlines).merge(30)
    for suffix in LAYERS:
        write_hits(hits, tmp_path / f"hits{suffix}")
        assert read(tmp_path / f"hits{suffix}")["tiles"].tolist() == [1, 1, 1]


def test_shapefile_limits_are_reported(tmp_path: Path, four: EmbeddingStore) -> None:
    with pytest.raises(UsageError, match="one kind of geometry"):
        write_hits(hits_of(four), tmp_path / "hits.shp")
    long = make_store(tmp_path / "long", [(1.0, 1.0, 0.2)], ["ä" * 130])
    with pytest.raises(UsageError, match="the id of hit 1 is longer than the 254 bytes"):
        write_hits(hits_of(long), tmp_path / "hits.shp")
    assert not list(tmp_path.glob("hits*"))
    write_hits(hits_of(long), tmp_path / "hits.gpkg")
    assert read(tmp_path / "hits.gpkg")["id"].tolist() == ["ä" * 130]


def test_an_earlier_file_is_replaced_as_a_whole(tmp_path: Path, outlines: EmbeddingStore) -> None:
    hits = hits_of(outlines)
    for suffix in (".gpkg", ".shp", ".shp.zip", ".fgb"):
        for written in (hits, hits.merge(180)):
            write_hits(written, tmp_path / f"hits{suffix}")
        assert len(read(tmp_path / f"hits{suffix}")) == 2
    with zipfile.ZipFile(tmp_path / "hits.shp.zip") as archive:
        assert {"hits.shp", "hits.shx", "hits.dbf", "hits.prj"} <= set(archive.namelist())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_hits(hits, tmp_path / "file" / "hits.gpkg")


def test_a_geodataframe(tmp_path: Path, four: EmbeddingStore) -> None:
    from marsretrieval.search.export import to_geodataframe

    frame = to_geodataframe(hits_of(four))
    assert is_mars(frame.crs) and frame.crs.to_authority() == ("IAU_2015", "49900")
    assert frame.attrs["marsretrieval"]["text"] == "pitted cones"
    assert frame["score"].dtype == np.float32 and frame["rank"].tolist() == [1, 2, 3, 4]


def test_the_style_has_a_colour_for_every_score(tmp_path: Path) -> None:
    positions = [(float(lon), 0.1, 0.2) for lon in range(40)]
    hits = hits_of(make_store(tmp_path / "store", positions))
    write_hits(hits, tmp_path / "hits.fgb")
    scores = read(tmp_path / "hits.fgb")["score"]
    text = (tmp_path / "hits.qml").read_text()
    assert text.startswith("<!DOCTYPE qgis")
    root = ElementTree.fromstring(text)
    assert root.tag == "qgis" and root.attrib["version"].startswith("3.")
    renderer = root.find("renderer-v2")
    assert renderer is not None and renderer.attrib["attr"] == "score"
    ranges = renderer.findall("ranges/range")
    symbols = {item.attrib["name"]: item for item in renderer.findall("symbols/symbol")}
    assert {item.attrib["symbol"] for item in ranges} == set(symbols)
    assert {symbol.attrib["type"] for symbol in symbols.values()} == {"fill"}
    bounds = [(float(item.attrib["lower"]), float(item.attrib["upper"])) for item in ranges]
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    counts = [int(((scores >= low) & (scores <= high)).sum()) for low, high in bounds]
    assert bounds[0][0] < scores.min() and bounds[-1][1] > scores.max()
    assert all(7 <= count <= 9 for count in counts)
    label = root.find("labeling/settings/text-style")
    assert label is not None and label.attrib["fieldName"] == "rank"


def test_styles_of_few_scores_and_of_points(tmp_path: Path) -> None:
    one = hits_of(make_store(tmp_path / "one", [(1.0, 1.0, None)]))
    write_hits(one, tmp_path / "one.geojson")
    root = ElementTree.fromstring((tmp_path / "one.qml").read_text())
    (symbol,) = root.findall("renderer-v2/symbols/symbol")
    assert symbol.attrib["type"] == "marker"
    write_hits(one.merge(1), tmp_path / "one.geojson")


def test_user_style_is_preserved(tmp_path: Path, outlines: EmbeddingStore) -> None:
    hits = hits_of(outlines)
    path = tmp_path / "hits.qml"
    path.write_text("<qgis>mine</qgis>")
    assert write_hits(hits, tmp_path / "hits.geojson") == [tmp_path / "hits.geojson"]
    assert path.read_text() == "<qgis>mine</qgis>"


@pytest.mark.parametrize("style", ["light", "dark"])
def test_pictures(tmp_path: Path, four: EmbeddingStore, style: str) -> None:
    hits = hits_of(four)
    write_hits(hits, tmp_path / "hits.png", style=style)
    assert min(Image.open(tmp_path / "hits.png").size) > 600
    write_hits(hits.merge(1), tmp_path / "hits.svg", style=style)
    text = (tmp_path / "hits.svg").read_text()
    assert "pitted cones" in text and "4 places of 4 tiles, 1 without a position" in text
    none = hits_of(make_store(tmp_path / "nowhere", [FOUR[3]]))
    write_hits(none, tmp_path / "none.png", style=style)
    assert (tmp_path / "none.png").stat().st_size


def test_csv_has_the_columns_that_jmars_reads(tmp_path: Path, four: EmbeddingStore) -> None:
    write_hits(hits_of(four), tmp_path / "hits.csv")
    head = (tmp_path / "hits.csv").read_text().splitlines()[0].split(",")
    assert head == ["rank", "score", "id", "lon", "lat", "quad", "source", "area_km2", "footprint"]


def test_missing_libraries_and_unknown_names(
    tmp_path: Path, outlines: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("hits", "hits.kml", ".gpkg", "hits.zip"):
        with pytest.raises(UsageError, match=r"\.gpkg, \.fgb, \.shp\.zip"):
            check_hits_path(tmp_path / name)
    hits = hits_of(outlines)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'marsretrieval\[gis\]'"):
        check_hits_path(Path("hits.GPKG"))
    check_hits_path(Path("hits.csv"))
    monkeypatch.setitem(sys.modules, "geopandas", None)
    from marsretrieval.search.export import to_geodataframe

    with pytest.raises(MissingDependencyError, match="a GeoDataFrame needs geopandas"):
        to_geodataframe(hits)


def test_geojson_records_mars_and_the_query(tmp_path: Path, four: EmbeddingStore) -> None:
    write_hits(hits_of(four), tmp_path / "hits.geojson")
    record = json.loads((tmp_path / "hits.geojson").read_text())
    assert record["crs"]["properties"]["name"] == "urn:ogc:def:crs:IAU:2015:49900"
    assert record["marsretrieval"]["query"] == "pitted cones"
