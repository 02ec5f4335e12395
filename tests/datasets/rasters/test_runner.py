"""Cutting rasters: output, names, resuming, changed files and failures."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.datasets import open_images
from marsretrieval.datasets.rasters import (
    RasterSpec,
    cut_rasters,
    plan_rasters,
    read_raster_manifest,
    split_sources,
)
from marsretrieval.errors import DataError, DatasetNotFoundError, UsageError
from tests.datasets.layouts import read_all

GREY = np.random.default_rng(0).integers(1, 255, (128, 192)).astype(np.uint8)
SPEC = RasterSpec(size=64)


def test_a_raster_becomes_a_tar_and_a_manifest(write_raster, tmp_path) -> None:
    values = GREY.copy()
    values[:64, :64], values[64:, :32] = 0, 0
    path = write_raster("ESP_020245_2190_RED.tif", values, nodata=0)
    (manifest,) = cut_rasters([path], SPEC, tmp_path / "out").cut
    assert (manifest.tiles, manifest.empty, manifest.dropped) == (5, 1, 0)
    assert (manifest.product_id, manifest.instrument) == ("ESP_020245_2190_RED", "HiRISE")
    assert read_raster_manifest(tmp_path / "out" / f"{manifest.name}.json") == manifest
    with tarfile.open(tmp_path / "out" / manifest.tar) as tar:
        names = tar.getnames()
        name = "ESP_020245_2190_RED_r000064_c000000"
        assert names[:2] == [f"{manifest.name}_r000000_c000064.png",
                             f"{manifest.name}_r000000_c000064.json"]  # fmt: skip
        file = tar.extractfile(f"{name}.json")
        assert file is not None
        fields = json.load(file)
    assert fields["id"] == name and fields["valid"] == 0.5 and fields["instrument"] == "HiRISE"
    assert fields["window"] == [0, 64, 64, 64] and fields["stretch"]["method"] == "none"
    assert fields["pixel_m"] == pytest.approx([10, 10], rel=0.01)
    ring = fields["footprint"]["coordinates"][0]
    assert ring[0] == ring[-1] and len(ring) == 5
    assert min(lon for lon, _ in ring) < fields["lon"] < max(lon for lon, _ in ring)
    records = read_all(open_images(tmp_path / "out"))
    record = next(entry for entry in records if entry.id == name)
    assert (record.lon, record.lat, record.valid) == (fields["lon"], fields["lat"], 0.5)
    assert (record.width_deg, record.height_deg) == (fields["width_deg"], fields["height_deg"])
    assert not record.warnings and len(records) == 5


def test_few_valid_pixels_are_skipped_and_counted(write_raster, tmp_path) -> None:
    values = GREY.copy()
    values[:64, :64], values[64:, :32] = 0, 0
    path = write_raster("a.tif", values, nodata=0)
    spec = RasterSpec(size=64, min_valid=0.6)
    (manifest,) = cut_rasters([path], spec, tmp_path / "out").cut
    assert (manifest.tiles, manifest.empty, manifest.dropped) == (4, 1, 1)
    report = cut_rasters([write_raster("b.tif", GREY * 0, nodata=0)], SPEC, tmp_path / "none")
    assert "no tile has valid pixels" in report.failed[0].reason


def test_a_second_run_keeps_what_is_finished(write_raster, tmp_path) -> None:
    first, second = write_raster("a.tif", GREY), write_raster("b.tif", GREY)
    out = tmp_path / "out"
    assert len(cut_rasters([first], SPEC, out).cut) == 1
    report = cut_rasters([first, second], SPEC, out)
    assert [entry.name for entry in report.kept] == ["a"]
    assert [entry.name for entry in report.cut] == ["b"]
    os.utime(first, (1, 1))  # an edited file is cut again
    assert [entry.name for entry in cut_rasters([first, second], SPEC, out).cut] == ["a"]
    (out / "a.tar").write_bytes(b"")
    assert [entry.name for entry in cut_rasters([first, second], SPEC, out).cut] == ["a"]
    moved = tmp_path / "moved" / "a.tif"
    moved.parent.mkdir()
    shutil.move(first, moved)
    assert [entry.name for entry in cut_rasters([moved, second], SPEC, out).kept] == ["a", "b"]


def test_other_options_are_refused_without_force(write_raster, tmp_path) -> None:
    path, out = write_raster("a.tif", GREY), tmp_path / "out"
    other = write_raster("b.tif", GREY)
    cut_rasters([path, other], SPEC, out)
    for spec in (RasterSpec(size=32), RasterSpec(size=64, min_valid=0.5), RasterSpec(delta=0.1)):
        with pytest.raises(UsageError, match="cut with other options"):
            cut_rasters([path], spec, out)
    report = cut_rasters([path], RasterSpec(size=32), out, force=True)
    assert report.otherwise == ["b"] and report.cut[0].tiles == 4 * 6


def test_rasters_of_one_name_stay_apart(write_raster, tmp_path) -> None:
    paths = [write_raster(name, GREY) for name in ("one/a.tif", "two/a.tif", "b.c d.tif")]
    out = tmp_path / "out"
    names = [manifest.name for manifest in cut_rasters(paths, SPEC, out).cut]
    assert len({*names}) == 3 and all("." not in name and " " not in name for name in names)
    assert len(cut_rasters(paths, SPEC, out).kept) == 3
    later = write_raster("three/a.tif", GREY)
    assert cut_rasters([later], SPEC, out).cut[0].name not in names
    ids = [record.id for record in read_all(open_images(out))]
    assert len(ids) == len({*ids}) == 4 * 6


def test_a_file_that_changes_meanwhile_is_refused(write_raster, tmp_path, monkeypatch) -> None:
    path = write_raster("a.tif", GREY)

    class Touching:
        """A progress display that touches the file after the first tile."""

        def start(self, *_: object) -> Touching:
            return self

        def advance(self, count: int = 1) -> None:
            os.utime(path, (1, 1))

        def note(self, text: str) -> None:
            pass

        def __enter__(self) -> Touching:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    report = cut_rasters([path], SPEC, tmp_path / "out", progress=Touching())
    assert "changed while it was read" in report.failed[0].reason
    assert not list((tmp_path / "out").glob("a*"))


def test_parts_of_a_vrt_are_not_cut_twice(write_raster, tmp_path) -> None:
    from rasterio.shutil import copy

    path = write_raster("in/a.tif", GREY)
    copy(path, tmp_path / "in" / "all.vrt", driver="VRT")
    _, rasters = split_sources([tmp_path / "in"])
    plan = plan_rasters(rasters, SPEC, tmp_path / "out")
    assert [entry.name for entry in plan.todo] == ["all"]
    assert list(plan.skipped) == [str(path)]


def test_sources_are_told_apart_by_name(tmp_path: Path) -> None:
    names = ["MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif", "E000_N00.zip", "a.tif", "b.JP2", "c.vrt"]
    for name in (*names, "notes.txt", ".hidden.tif"):
        (tmp_path / name).touch()
    quads, rasters = split_sources([tmp_path])
    assert sorted(path.name for path in quads) == sorted(names[:2])
    assert sorted(path.name for path in rasters) == sorted(names[2:])
    with pytest.raises(DatasetNotFoundError):
        split_sources([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match="no raster"):
        split_sources([tmp_path / "empty"])


def test_colour_tiles_and_jpeg(write_raster, tmp_path) -> None:
    values = np.stack([GREY, GREY // 2, GREY // 3])
    path = write_raster("a.tif", values)
    spec = RasterSpec(size=64, bands=(3, 2, 1), format="jpeg")
    cut_rasters([path], spec, tmp_path / "out")
    (record, *_) = read_all(open_images(tmp_path / "out"))
    from marsretrieval.datasets import decode_rgb

    image = np.asarray(decode_rgb(record.data, "a")).astype(float).mean(axis=(0, 1))
    assert image[0] < image[1] < image[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile_px": 64, "delta": 0.2}, "--tile-px and --delta"),
        ({"tile_px": 2}, "--tile-px 2"),
        ({"tile_m": float("nan")}, "--tile-m nan"),
        ({"delta": 0.0}, "--delta 0"),
        ({"overlap": 0.95}, "--overlap 0.95"),
        ({"min_valid": float("nan")}, "--min-valid nan"),
        ({"stretch": "log"}, "--stretch log"),
        ({"bands": (1, 2)}, "--bands 1,2"),
        ({"size": 8}, "--size 8"),
        ({"format": "gif"}, "--format gif"),
    ],
)
def test_invalid_options_are_named(options, words) -> None:
    with pytest.raises(UsageError, match=words):
        RasterSpec(**options)


def test_a_damaged_manifest_is_cut_again(write_raster, tmp_path) -> None:
    path, out = write_raster("a.tif", GREY), tmp_path / "out"
    cut_rasters([path], SPEC, out)
    (out / "a.json").write_text("{")
    with pytest.raises(DataError):
        read_raster_manifest(out / "a.json")
    assert [entry.name for entry in cut_rasters([path], SPEC, out).cut] == ["a"]


def test_tars_of_rasters_are_verified(write_raster, marsretrieval, tmp_path) -> None:
    out = tmp_path / "out"
    manifest = cut_rasters([write_raster("a.tif", GREY)], SPEC, out).cut[0]
    assert "altered-tar" not in marsretrieval("data", "verify", out).output
    data = bytearray((out / manifest.tar).read_bytes())
    data[600] ^= 255
    (out / manifest.tar).write_bytes(data)
    assert "altered-tar" in marsretrieval("data", "verify", out, code=1).output
