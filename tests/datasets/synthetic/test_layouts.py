"""Written files, read with general libraries and with the package's readers."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from marsretrieval import geo
from marsretrieval.datasets import (
    Record,
    open_images,
    read_ground_truth,
    read_image_queries,
)
from marsretrieval.datasets.geotiff import open_geotiff
from marsretrieval.datasets.synthetic import BENCHMARK
from marsretrieval.datasets.verify import verify
from marsretrieval.io import read_json, sha256_file

GEO = "Mars-Global-Geolocalization"


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        entries = {}
        for member in tar:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            file = tar.extractfile(member)
            assert file is not None
            entries[member.name] = file.read()
        return entries


def grey(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pairs_are_a_webdataset(tiny_planet: Path) -> None:
    contents = members(tiny_planet / "Mars-VL-Pairs" / "000000.tar")
    keys = sorted({name.split(".")[0] for name in contents})
    assert len(keys) == 40
    captions = set()
    for key in keys:
        record = json.loads(contents[f"{key}.json"])
        assert set(record) == {"key", "image_url", "ori_caption", "refined_caption"}
        assert record["key"] == key
        assert record["image_url"].startswith("synthetic://")
        assert len(record["refined_caption"]) > len(record["ori_caption"]) * 0.8
        captions |= {record["ori_caption"], record["refined_caption"]}
        Image.open(io.BytesIO(contents[f"{key}.jpg"])).load()
    assert len(captions) == 80
    pictures = [Image.open(io.BytesIO(contents[f"{key}.jpg"])) for key in keys]
    assert len({picture.size for picture in pictures}) > 20
    assert {picture.mode for picture in pictures} == {"L", "RGB"}


def test_landforms_are_parquet_of_the_hub(tiny_planet: Path) -> None:
    files = sorted((tiny_planet / "Mars-Landforms" / "data").iterdir())
    assert [file.name for file in files] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    rows = []
    for file in files:
        table = pq.read_table(file)
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        rows += table.to_pylist()
    names = features["label"]["names"]
    assert names == sorted([*BENCHMARK, "impact_crater"])
    assert features["image"] == {"_type": "Image"}
    counts = np.bincount([row["label"] for row in rows], minlength=len(names))
    assert counts.sum() == 48
    assert counts.min() >= 2
    assert len(set(counts)) > 2, "classes are of unequal size"
    assert len({row["image_id"] for row in rows}) == 48
    assert not any(name in row["image_id"] for row in rows for name in names)
    assert grey(rows[0]["image"]["bytes"]).ndim == 2


def test_quads_have_the_expected_positions(tiny_planet: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    files = sorted((tiny_planet / "ctx").iterdir())
    assert [file.name for file in files] == [
        "MurrayLab_CTX_V01_E-180_N-04_Mosaic.tif",
        "MurrayLab_CTX_V01_E176_N-04_Mosaic.tif",
    ]
    for file, west in zip(files, (-180, 176), strict=True):
        with rasterio.open(file) as raw:
            left, bottom, right, top = raw.bounds
            assert (raw.dtypes, raw.count, raw.compression) == (("uint8",), 1, None)
            assert "Mars" in raw.crs.to_wkt()
            assert "169.894447" in raw.crs.to_wkt(), "oblate, as the real one says"
        radius = geo.MARS_RADIUS_M
        assert left == pytest.approx(radius * np.radians(west), abs=1e-3)
        assert right == pytest.approx(radius * np.radians(west + 4), abs=1e-3)
        assert (bottom, top) == pytest.approx((radius * np.radians(-4), 0), abs=1e-3)
        with open_geotiff(file) as raster:
            edges = (raster.west, raster.south, raster.east, raster.north)
            assert edges == pytest.approx((west, -4, west + 4, 0))


def test_tiles_are_windows_of_the_quads(tiny_planet: Path) -> None:
    for file in sorted((tiny_planet / "ctx").iterdir()):
        corner = geo.parse_quad_name(file.name)
        assert corner is not None
        quad = geo.quad_name(*corner)
        with open_geotiff(file) as raster:
            pixels = raster.read()
        contents = members(tiny_planet / GEO / "tiles" / f"{quad}.tar")
        names = sorted({name.split(".")[0] for name in contents})
        assert len(names) == 400
        for name in names:
            record = json.loads(contents[f"{name}.json"])
            west, south, east, north = record["bounds"]
            assert geo.tile_name(west, south) == name
            assert geo.parse_tile_name(f"{name}.png") == (west, south)
            assert (east, north) == pytest.approx((west + 0.2, south + 0.2))
            assert record["center"] == list(geo.tile_centre(name) or ())
            assert (record["quad"], record["synthetic"]) == (quad, True)
            row, column = round((corner[1] + 4 - north) * 320), round((west - corner[0]) * 320)
            window = pixels[row : row + 64, column : column + 64]
            assert np.array_equal(grey(contents[f"{name}.png"]), window)
            assert record["valid"] == pytest.approx((window > 0).mean(), abs=1e-6)


def test_ground_truth_lists_the_planted_features(tiny_planet: Path) -> None:
    record = read_json(tiny_planet / "planet.json")
    points = read_ground_truth(tiny_planet / GEO / "ground_truth")
    assert set(points) == set(BENCHMARK)
    for name, catalogue in points.items():
        planted = [item for item in record["features"] if item["class"] == name]
        assert catalogue.lon.tolist() == [item["lon"] for item in planted]
        assert catalogue.lat.tolist() == [item["lat"] for item in planted]
        with (tiny_planet / GEO / "ground_truth" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["diameter_km"]) for row in rows] == [item["size_km"] for item in planted]
        assert {geo.quad_name(*at) for at in zip(catalogue.lon, catalogue.lat, strict=True)} <= set(
            record["quads"]
        )
    lon = np.concatenate([catalogue.lon for catalogue in points.values()])
    assert lon.min() < -175
    assert lon.max() > 175


def test_example_images_are_not_of_this_planet(tiny_planet: Path) -> None:
    examples = read_image_queries(tiny_planet / GEO / "image_queries")
    assert set(examples) == set(BENCHMARK)
    tiles = {
        data
        for tar in (tiny_planet / GEO / "tiles").iterdir()
        for name, data in members(tar).items()
        if name.endswith(".png")
    }
    for source in examples.values():
        records = [item for shard in source.shards() for item in source.read(shard)]
        assert len(records) == 5
        for record in records:
            assert isinstance(record, Record)
            assert record.data not in tiles
            assert grey(record.data).shape == (64, 64)


def test_readers_read_the_whole_planet(tiny_planet: Path) -> None:
    for folder, kind, count in (
        ("Mars-VL-Pairs", "webdataset", 40),
        ("Mars-Landforms", "parquet", 48),
        (f"{GEO}/tiles", "webdataset", 800),
    ):
        source = open_images(tiny_planet / folder)
        records = [item for shard in source.shards() for item in source.read(shard)]
        assert source.kind == kind
        assert all(isinstance(record, Record) for record in records)
        assert len({record.id for record in records}) == len(records) == count
    assert all(record.lon is not None and record.width_deg for record in records)


def test_verification_reports_no_problems(tiny_planet: Path) -> None:
    inventory = verify(tiny_planet, workers=1)
    assert [dataset.dataset for dataset in inventory.datasets]
    assert inventory.ok()


def test_folder_describes_its_synthetic_contents(tiny_planet: Path) -> None:
    record = read_json(tiny_planet / "planet.json")
    assert record["synthetic"] is True
    assert "SYNTHETIC" in (tiny_planet / "README.txt").read_text()
    files = {path for path in tiny_planet.rglob("*") if path.is_file()}
    assert {tiny_planet / name for name in record["files"]} == files - {tiny_planet / "planet.json"}
    for name, expected in record["files"].items():
        assert sha256_file(tiny_planet / name) == expected["sha256"]
    assert record["counts"] == {
        "pairs": 40,
        "landform_images": 48,
        "tiles": 800,
        "features": len(record["features"]),
    }
