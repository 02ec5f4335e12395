"""Heat maps: every tile at its pixel in the CRS of Mars, or an error with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from marsretrieval import geo
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.search import Heatmap, check_heatmap, check_heatmap_path, heatmap_of
from tests.search.places import FOUR, Place, hits_of, make_store


def grid(west: float, south: float, columns: int, rows: int, side: float = 0.2) -> list[Place]:
    return [
        (round(west + (column + 0.5) * side, 9), round(south + (row + 0.5) * side, 9), side)
        for row in range(rows)
        for column in range(columns)
    ]


def scored(store: EmbeddingStore) -> np.ndarray:
    return np.arange(store.rows, dtype=np.float32) / 100


def test_one_pixel_per_tile(tmp_path: Path) -> None:
    positions = grid(10.0, -4.0, 3, 2)
    del positions[4]  # the middle of the upper row
    store = make_store(tmp_path / "store", positions)
    heat = heatmap_of(store, scored(store))
    expected = [[0.03, np.nan, 0.04], [0.0, 0.01, 0.02]]
    np.testing.assert_array_equal(heat.values, np.array(expected, np.float32))
    assert (heat.west, heat.north, heat.cell_lon, heat.cell_lat) == (10.0, -3.6, 0.2, 0.2)
    assert (heat.east, heat.south) == pytest.approx((10.6, -4.0))
    assert heat.tiles == 5


@pytest.mark.parametrize(("domain", "columns"), [(180, 1800), (360, 4)])
def test_over_the_antimeridian(tmp_path: Path, domain: int, columns: int) -> None:
    store = make_store(tmp_path / "store", [*grid(179.6, 0, 2, 1), *grid(-180, 0, 2, 1)])
    heat = heatmap_of(store, scored(store), domain=domain)
    assert heat.values.shape == (1, columns)
    row = heat.values[0]
    reordered = [*row[-2:], *row[:2]] if domain == 180 else row.tolist()
    np.testing.assert_allclose(reordered, [0, 0.01, 0.02, 0.03], atol=1e-6)
    assert heat.west == (-180 if domain == 180 else 179.6)


def test_a_tile_that_straddles_the_seam(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [(180.0, 0.1, 0.2), (-179.8, 0.1, 0.2)])
    heat = heatmap_of(store, scored(store))
    assert (heat.west, heat.values.shape) == (-180.1, (1, 2))


def test_only_the_region(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", grid(0, 0, 10, 10))
    heat = heatmap_of(store, scored(store), region=geo.Box(0.4, 0.4, 0.8, 1.0))
    assert heat.values.shape == (3, 2) and heat.tiles == 6
    with pytest.raises(UsageError, match="no tile lies in the region"):
        heatmap_of(store, scored(store), region=geo.Box(50, 50, 60, 60))


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ([(1.0, 1.0, None), (2.0, 1.0, None)], "extent of all tiles is unknown"),
        ([(None, None, None)], "known position"),
        ([(0.0, 0.0, 0.01), (179.0, 80.0, 0.01)], None),
        ([(0.0, 0.0, 0.001), (179.0, 80.0, 0.001)], None),
    ],
)
def test_heatmap_errors_name_the_reason(
    tmp_path: Path, positions: list[Place], reason: str | None
) -> None:
    store = make_store(tmp_path / "store", positions)
    if reason is None:
        check_heatmap(store)
        assert heatmap_of(store, scored(store)).tiles == 2
        return
    with pytest.raises(UsageError, match=reason):
        check_heatmap(store)
    with pytest.raises(UsageError, match=reason):
        heatmap_of(store, scored(store))


def test_custom_cell_size(tmp_path: Path) -> None:
    positions = [(0.1, 0.1, 0.2), (0.4, 0.4, 0.1), (-0.1, 0.9, None), (None, None, None)]
    store = make_store(tmp_path / "store", positions)
    heat = heatmap_of(store, np.array([0.5, 0.2, -0.3, 0.9]), cell=0.5)
    expected = np.array([[-0.3, np.nan], [np.nan, 0.5]], np.float32)
    np.testing.assert_array_equal(heat.values, expected)
    assert (heat.west, heat.north) == (-0.5, 1.0)
    with pytest.raises(UsageError, match="above 0"):
        heatmap_of(store, np.zeros(4), cell=0)
    with pytest.raises(UsageError, match="pixels"):
        heatmap_of(store, np.zeros(4), cell=1e-5)


def painted(heat: Heatmap, lon: float, lat: float) -> float:
    column = int((lon - heat.west) / heat.cell_lon)
    row = int((heat.north - lat) / heat.cell_lat)
    return float(heat.values[row, column])


def test_footprints_of_any_size_are_painted_whole(tmp_path: Path) -> None:
    positions: list[Place] = [(1.0, 1.0, 0.4), (1.3, 1.1, 0.4), (3.05, 1.0, 0.1), (2.0, -1.0, 1.0)]
    heat = heatmap_of(make_store(tmp_path / "store", positions), np.array([0.1, 0.3, 0.2, 0.4]))
    assert heat.tiles == 4 and heat.notes() == []
    rng = np.random.default_rng(0)
    for lon, lat in zip(rng.uniform(0.8, 3.1, 4000), rng.uniform(-1.5, 1.3, 4000), strict=True):
        # Away from edges by a pixel, where a pixel belongs to one side or the other.
        inside = [
            max(abs(lon - x), abs(lat - y)) - side / 2  # type: ignore[operator]
            for x, y, side in positions
        ]
        if min(np.abs(inside)) < heat.cell_lon:
            continue
        scores = [score for score, d in zip((0.1, 0.3, 0.2, 0.4), inside, strict=True) if d < 0]
        value = painted(heat, lon, lat)
        assert value == pytest.approx(max(scores)) if scores else np.isnan(value)


def test_painted_pixels_end_at_the_poles(tmp_path: Path) -> None:
    positions: list[Place] = [(16.0, 74.0, 32.0), (16.0, -74.0, 32.0), (60.0, 0.0, 45.0)]
    store = make_store(tmp_path / "store", positions)
    heat = heatmap_of(store, np.array([0.5, 0.2, 0.1]))
    assert (heat.south, heat.north) == (-90, 90)
    assert heat.cell_lat == pytest.approx(90 / 22)
    assert painted(heat, 16.0, 89.9) == np.float32(0.5)
    assert painted(heat, 16.0, -89.9) == np.float32(0.2)


@pytest.mark.parametrize(("lat", "limit"), [(89.0, "91"), (-89.0, "-91")])
def test_a_given_pixel_across_a_pole_is_refused(tmp_path: Path, lat: float, limit: str) -> None:
    store = make_store(tmp_path / "store", [(0.0, lat, 2.0)])
    with pytest.raises(UsageError, match=f"7 degrees end at latitude {limit}, beyond the pole"):
        heatmap_of(store, np.array([0.5]), cell=7)
    heat = heatmap_of(store, np.array([0.5]), cell=0.5)
    assert (heat.south, heat.north) == (lat - 1, lat + 1)


@pytest.mark.parametrize("domain", [180, 360])
def test_a_painted_footprint_across_the_seam(tmp_path: Path, domain: int) -> None:
    seam = 180.0 if domain == 180 else 0.0
    store = make_store(tmp_path / "store", [(seam, 0.5, 1.0), (20.0, -30.0, 0.3)])
    heat = heatmap_of(store, np.array([0.5, 0.2]), domain=domain)
    start = -180 if domain == 180 else 0
    assert heat.west == start and heat.east == pytest.approx(start + 360)
    row = heat.values[np.isfinite(heat.values).sum(axis=1).argmax()]
    assert np.isfinite(row).sum() * heat.cell_lon == pytest.approx(1.0, abs=2 * heat.cell_lon)
    assert row[0] == row[-1] == np.float32(0.5)
    assert heat.draw().axes.images


def test_tiles_smaller_than_a_pixel_and_without_extent_are_counted(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [(0.0, 0.0, 0.0001), (170.0, 80.0, 0.002), FOUR[2]])
    heat = heatmap_of(store, np.array([0.1, 0.2, 0.3]))
    assert heat.values.size < 1.01 * 2**25 and heat.tiles == 3
    small, unsized = heat.notes()
    assert small.startswith("2 tiles smaller") and unsized.startswith("1 tile of unknown extent")


def test_the_style_of_a_geotiff(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", grid(0, 0, 5, 5))
    heat = heatmap_of(store, scored(store))
    tif, style = heat.write(tmp_path / "heat.tif")
    assert (tif.name, style.name) == ("heat.tif", "heat.qml")
    renderer = ElementTree.parse(style).getroot().find("pipe/rasterrenderer")
    assert renderer is not None and renderer.get("type") == "singlebandpseudocolor"
    stops = [float(item.get("value", "")) for item in renderer.iter("item")]
    assert stops == sorted(stops) and stops[-1] == pytest.approx(0.24)
    style.write_text("<qgis>mine</qgis>")
    assert heat.write(tmp_path / "heat.tif") == [tif] and "mine" in style.read_text()


def test_geotiff(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    store = make_store(tmp_path / "store", grid(-60, 76, 20, 20))
    heat = heatmap_of(store, scored(store), about={"text": "polygons"})
    heat.write(tmp_path / "heat.tif")
    assert sorted(path.name for path in tmp_path.iterdir() if "heat" in path.name) == [
        "heat.qml", "heat.tif",
    ]  # fmt: skip
    with rasterio.open(tmp_path / "heat.tif") as file:
        np.testing.assert_array_equal(file.read(1), heat.values)
        assert file.dtypes == ("float32",) and np.isnan(file.nodata)
        assert file.profile["compress"] == "deflate" and file.profile["tiled"]
        assert tuple(file.bounds) == pytest.approx((-60, 76, -56, 80))
        crs = file.crs.to_dict(projjson=True)
        text = json.dumps(crs)
        assert "3396190" in text and "WGS" not in text and file.crs.is_geographic
        assert file.crs.to_epsg() is None
        assert json.loads(file.tags()["MARSRETRIEVAL"])["text"] == "polygons"
        for row, location in enumerate(grid(-60, 76, 20, 20)):
            (value,) = next(file.sample([location[:2]]))
            assert value == np.float32(row / 100)


@pytest.mark.parametrize("domain", [180, 360])
def test_pictures(tmp_path: Path, domain: int) -> None:
    store = make_store(tmp_path / "store", [*grid(176, -2, 20, 5), *grid(-180, -2, 20, 5)])
    heat = heatmap_of(store, scored(store), domain=domain, about={"text": "yardangs"})
    chart = heat.draw(hits_of(store, domain, k=3))
    assert chart.box.width < 20 and chart.shows([176.1, -176.1], [-1, -1]).all()
    (image,) = chart.axes.images
    covered = ~image.get_array().mask.all(axis=0)
    assert covered.mean() == pytest.approx(8 / chart.box.width, abs=0.01)
    heat.write(tmp_path / "heat.png", hits=hits_of(store, domain, k=3), style="dark")
    assert min(Image.open(tmp_path / "heat.png").size) > 400
    heat.write(tmp_path / "heat.svg")
    text = (tmp_path / "heat.svg").read_text()
    assert "yardangs" in text and "cosine similarity of 200 tiles" in text and "100 km" in text


def test_names_and_missing_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", grid(0, 0, 2, 2))
    heat = heatmap_of(store, scored(store))
    with pytest.raises(UsageError, match=r"Use \.tif"):
        heat.write(tmp_path / "heat.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        heat.write(tmp_path / "file" / "heat.tif")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"marsretrieval\[geotiff\]"):
        check_heatmap_path(Path("heat.tif"))
    with pytest.raises(MissingDependencyError, match=r"marsretrieval\[gis\]"):
        check_heatmap_path(Path("heat.png"))


def test_full_disk_preserves_the_earlier_raster(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    store = make_store(tmp_path / "store", grid(0.0, 0.0, 12, 12))
    heat = heatmap_of(store, scored(store))
    path = tmp_path / "x.tif"
    heat.write(path)
    earlier = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for size in (0, 100, len(earlier) - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            with pytest.raises(OutputError, match=r"x\.tif: cannot be written"):
                heat.write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == earlier
    assert sorted(name.name for name in tmp_path.iterdir()) == ["store", "x.qml", "x.tif"]
