"""Tiles of a quad: pixels, positions, shares of data, from every layout and from zips."""

from __future__ import annotations

import itertools
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio

from marsretrieval import geo
from marsretrieval.datasets import open_images
from marsretrieval.datasets.ctx import Input, Quad, TileSpec, cut_quads, find_files, read_manifest
from marsretrieval.datasets.ctx import tiling as cutting
from marsretrieval.datasets.ctx.quad import open_quad
from tests.datasets.ctx.quads import CRS, LAYOUTS, noise, warped, write_quad, zipped
from tests.datasets.ctx.runs import QUAD, difference, members

TAR = "E-004_N-04.tar"


def cut(path: Path, out: Path, quad: Quad = QUAD, **spec):
    report = cut_quads([Input(quad, path)], TileSpec.of(spec.pop("delta", "0.2"), **spec), out)
    assert report.complete, report.failed
    return members(out / f"{quad.name}.tar")


@pytest.mark.parametrize("crs", CRS)
@pytest.mark.parametrize(
    "quad", [Quad(40, 0), Quad(-60, 8), Quad(0, 176), Quad(-80, -180)], ids=lambda quad: quad.name
)
def test_tile_content_matches_tile_name(tmp_path: Path, quad: Quad, crs: str):
    """Check tile centres with a raster that encodes latitude in one half and longitude in the
    other. An equirectangular formula on the ellipsoid would be wrong by up to two tiles."""
    pixels = 1000
    degrees = (np.arange(pixels) + 0.5) * 4 / pixels
    grey = np.rint(degrees * 60).astype(np.uint8)  # 60 levels a degree
    raster = np.tile(grey, (pixels, 1))  # longitude
    raster[:, 1::2] = grey[::-1, None]  # latitude in every second column
    tiles = cut(write_quad(tmp_path, quad, raster, crs=CRS[crs]), tmp_path / "out", quad, size=50)
    assert len(tiles) == 400
    for name, (image, fields) in tiles.items():
        lon, lat = fields["center"]
        assert geo.tile_centre(name) == pytest.approx((lon, lat))
        west, south, east, north = fields["bounds"]
        assert (lon, lat) == pytest.approx(((west + east) / 2, (south + north) / 2))
        middle = [image[24:26, start::2].mean() for start in (0, 1)]
        columns = image[:, 24:26].astype(float)
        assert middle[1] / 60 + quad.south == pytest.approx(lat, abs=0.02)
        assert columns[:, 0].mean() / 60 + quad.west == pytest.approx(lon, abs=0.02)


@pytest.fixture(scope="module")
def expected_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cut a quad in the layout of the mosaic; tests must not change the tar."""
    folder = tmp_path_factory.mktemp("expected")
    cut(write_quad(folder, QUAD, noise(530)), folder, size=32)
    return folder / TAR


@pytest.fixture(scope="module")
def tiff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a quad of noise; tests must not change it."""
    return write_quad(tmp_path_factory.mktemp("quad"), QUAD, noise(400))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bytes(tmp_path: Path, expected_tar: Path, layout: str) -> None:
    tiff = write_quad(tmp_path, QUAD, noise(530), layout=layout)
    archive = zipped(tiff, QUAD, tmp_path)
    for number, path in enumerate((tiff, archive)):
        cut(path, tmp_path / str(number), size=32)
        assert not difference(tmp_path / str(number) / TAR, expected_tar)
        assert not (tmp_path / str(number) / ".scratch").exists()


def test_stored_and_deflated_zips(tmp_path: Path) -> None:
    tiff = write_quad(tmp_path, QUAD, noise(400))
    cut(tiff, tmp_path / "a", size=32)
    cut(zipped(tiff, QUAD, tmp_path, method=zipfile.ZIP_STORED), tmp_path / "b", size=32)
    assert not difference(tmp_path / "b" / TAR, tmp_path / "a" / TAR)
    with rasterio.open(tiff, "r+") as file:
        file.update_tags(note="x" * 5000)  # GDAL writes the directory anew, at the end
    cut(zipped(tiff, QUAD, tmp_path), tmp_path / "c", size=32)
    assert not difference(tmp_path / "c" / TAR, tmp_path / "a" / TAR)


def test_gdal_caches_a_row_of_blocks_and_reads_on_one_thread(tmp_path: Path) -> None:
    """rasterio takes the size of the cache in bytes, GDAL itself takes small numbers for MB."""
    with open_quad(write_quad(tmp_path, QUAD, noise(40), layout="tiled"), QUAD, tmp_path):
        options = rasterio.env.getenv()
    assert options["GDAL_CACHEMAX"] >= 512 * 47_420
    assert options["GDAL_NUM_THREADS"] == 1


@pytest.mark.parametrize("layout", ["rows", "tiled lzw"])
@pytest.mark.parametrize("pixels", [2371, 1185, 2560])
@pytest.mark.parametrize("nodata", [None, 0])
def test_exact_equals_the_published_method_bit_for_bit(
    tmp_path: Path, layout: str, pixels: int, nodata: int | None
) -> None:
    """A size of 2560 halves the pixels, with a hundred times as many exact ties as a real quad."""
    quad = Quad(40, -60)
    tiff = write_quad(tmp_path, quad, noise(pixels), layout=layout, nodata=nodata)
    corner = geo.Box(-57.1, 42.3, -56, 44)
    exact = cut(tiff, tmp_path / "exact", quad, size=64, exact=True, clip=corner)
    plain = cut(tiff, tmp_path / "plain", quad, size=64, clip=corner)
    assert exact.keys() == plain.keys()
    assert len(exact) == 54
    for name in exact:
        published = warped(tiff, exact[name][1]["bounds"], 64)
        if nodata is None:
            published = np.maximum(published, 1)
        np.testing.assert_array_equal(exact[name][0], published)
        assert np.abs(plain[name][0].astype(int) - published).max() <= 1


def test_exact_from_a_zip_is_exact_too(tmp_path: Path) -> None:
    tiff = write_quad(tmp_path, QUAD, noise(2560))
    half = {"size": 64, "exact": True, "clip": geo.Box(-3, -3, -2, -2)}
    cut(tiff, tmp_path / "a", **half)
    cut(zipped(tiff, QUAD, tmp_path), tmp_path / "b", **half)
    assert not difference(tmp_path / "a" / TAR, tmp_path / "b" / TAR)


def test_no_data_is_zero_except_with_exact(tmp_path: Path) -> None:
    pixels = noise(400, no_data=False)
    pixels[:60, :60] = 0  # nine tiles without data
    tiff = write_quad(tmp_path, QUAD, pixels)
    plain = cut(tiff, tmp_path / "a", size=16)
    assert (plain["E_4_0_N_0_2"][0] == 0).all()
    assert plain["E_4_0_N_0_2"][1]["valid"] == 0
    exact = cut(tiff, tmp_path / "b", size=16, exact=True, clip=geo.Box(-4, -1, -3, 0))
    assert (exact["E_4_0_N_0_2"][0] == 1).all()
    manifest = read_manifest(tmp_path / "a/E-004_N-04.json")
    assert (manifest.tiles, len(manifest.empty), manifest.dropped) == (400, 9, [])
    assert "E_4_0_N_0_2" in manifest.empty


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_the_share_of_data_is_that_of_the_source(tmp_path: Path, nodata: int | None) -> None:
    pixels = np.full((400, 400), 90, dtype=np.uint8)
    pixels[:20, :10] = nodata or 0  # half of the first tile
    pixels[20:40, :1] = nodata or 0  # a twentieth of the one below
    tiff = write_quad(tmp_path, QUAD, pixels, nodata=nodata)
    tiles = cut(tiff, tmp_path / "a", size=32)
    shares = [tiles[name][1]["valid"] for name in ("E_4_0_N_0_2", "E_4_0_N_0_4", "E_2_0_N_0_2")]
    assert shares == [0.5, 0.95, 1.0]
    report = cut_quads([Input(QUAD, tiff)], TileSpec(size=32, drop_below=0.6), tmp_path / "b")
    manifest = report.cut[0]
    assert report.complete
    assert (manifest.tiles, manifest.dropped, manifest.empty) == (399, ["E_4_0_N_0_2"], [])


@pytest.mark.parametrize("delta", ["0.25", "0.5", "1", "2", "4", "0.1"])
def test_other_tile_sizes(tmp_path: Path, tiff: Path, delta: str) -> None:
    tiles = cut(tiff, tmp_path / "out", delta=delta, size=32)
    assert len(tiles) == round(4 / float(delta)) ** 2
    for name in list(tiles)[:: max(1, len(tiles) // 9)]:
        published = warped(tiff, tiles[name][1]["bounds"], 32).astype(int)
        assert np.abs(tiles[name][0] - published).max() <= 1


def test_high_tiles_are_cut_in_parts_with_the_same_pixels(tmp_path: Path, monkeypatch) -> None:
    tiff = write_quad(tmp_path, QUAD, noise(800))
    archive = zipped(tiff, QUAD, tmp_path)
    cut(tiff, tmp_path / "a", delta="1", size=64)
    monkeypatch.setattr(cutting, "_BAND_BYTES", 800 * 23)
    for number, path in enumerate((tiff, archive)):
        cut(path, tmp_path / str(number), delta="1", size=64)
        assert not difference(tmp_path / str(number) / TAR, tmp_path / "a" / TAR)


@pytest.mark.parametrize("delta", ["0.05", "0.2", "1", "4"])
def test_mosaic_bands_stay_within_the_stated_size(tmp_path: Path, delta: str) -> None:
    tiff = write_quad(tmp_path, QUAD, noise(40))
    with open_quad(tiff, QUAD, tmp_path) as file:
        pixels = 47_420
        raster = type(file.raster)(
            **{
                **{name: getattr(file.raster, name) for name in file.raster.__slots__},
                "width": pixels, "height": pixels, "pixel_deg": (4 / pixels, 4 / pixels),
            }
        )  # fmt: skip
    spec = TileSpec.of(delta)
    from marsretrieval.datasets.ctx import tile_rows

    row = tile_rows(QUAD, spec)[0]
    margin = 2 * 2 * (float(delta) / 4 * pixels / 512 + 4)
    for part in itertools.islice(cutting._parts(raster, row, spec), 3):
        assert (part.end - part.first - margin) * pixels <= cutting._BAND_BYTES


def test_equal_aspect_at_high_latitude(tmp_path: Path) -> None:
    quad = Quad(76, 8)
    tiles = cut(
        write_quad(tmp_path, quad, noise(400)), tmp_path / "out", quad,
        size=32, equal_aspect=True,
    )  # fmt: skip
    widths = {round(fields["bounds"][2] - fields["bounds"][0], 4) for _, fields in tiles.values()}
    assert widths <= {0.8, 1.0, 0.6666, 0.6667, 0.5714, 0.5715}
    assert 60 <= len(tiles) <= 120


def test_readers_return_positions_and_every_tile(tmp_path: Path) -> None:
    cut(write_quad(tmp_path, Quad(0, 176), noise(400)), tmp_path / "out", Quad(0, 176), size=32)
    source = open_images(tmp_path / "out")
    (shard,) = source.shards()
    records = list(source.read(shard))
    assert len(records) == len({record.id for record in records}) == 400
    for record in records:
        assert (record.lon, record.lat) == pytest.approx(geo.tile_centre(record.id))
        assert (record.width_deg, record.height_deg) == pytest.approx((0.2, 0.2))


def test_jpeg(tmp_path: Path) -> None:
    tiles = cut(write_quad(tmp_path, QUAD, noise(200)), tmp_path / "out", size=32, format="jpeg")
    assert len(tiles) == 400
    with tarfile.open(tmp_path / "out/E-004_N-04.tar") as tar:
        assert tar.getnames()[0] == "E_4_0_N_0_2.jpg"


def test_bytes_do_not_depend_on_threads_or_time(tmp_path: Path, tiff: Path) -> None:
    inputs, _ = find_files([tiff])
    from marsretrieval.datasets.ctx import JobSettings

    for threads in (1, 3, 8):
        cut_quads(
            inputs, TileSpec(size=32), tmp_path / str(threads),
            settings=JobSettings(threads=threads),
        )  # fmt: skip
    for threads in (3, 8):
        assert not difference(tmp_path / str(threads) / TAR, tmp_path / "1" / TAR)
    with tarfile.open(tmp_path / "1" / TAR) as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
        assert len(tar.getnames()) == len(set(tar.getnames())) == 800


def test_failed_tile_does_not_affect_others(tmp_path: Path, tiff: Path, monkeypatch) -> None:
    real = cutting.encode
    with ThreadPoolExecutor(1):
        calls = itertools.count()

        def sometimes(pixels, kind):
            if next(calls) == 7:
                raise MemoryError("no room")
            return real(pixels, kind)

        monkeypatch.setattr(cutting, "encode", sometimes)
        report = cut_quads([Input(QUAD, tiff)], TileSpec(size=32), tmp_path / "out")
    assert not report.complete
    assert list(report.failed_tiles.values()) == ["MemoryError: no room"]
    assert report.cut[0].tiles == 399
    monkeypatch.setattr(cutting, "encode", real)
    again = cut_quads([Input(QUAD, tiff)], TileSpec(size=32), tmp_path / "out")
    assert again.complete
    assert (len(again.cut), again.cut[0].tiles) == (1, 400)
