"""Formats that are read, and files that are refused in one line with a remedy."""

from __future__ import annotations

import numpy as np
import pytest

from marsretrieval.datasets.rasters import RasterSpec, cut_rasters, open_raster
from marsretrieval.errors import DataError
from tests.datasets.rasters.conftest import A

GREY = np.random.default_rng(0).integers(1, 255, (96, 96)).astype(np.uint8)
MOON = "+proj=eqc +R=1737400 +units=m +no_defs"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crs": None}, ("no coordinate reference system", "gdal_edit.py -a_srs")),
        ({"crs": "EPSG:4326", "corner": (10, 10), "pixel": 0.1}, ("the Earth", "-a_srs")),
        ({"crs": "EPSG:3857"}, ("6,378 km", "the Earth")),
        ({"crs": MOON}, ("1,737 km", "the Moon")),
        ({"pixel": 1e6}, ("off the planet", "unit")),
        ({"corner": (10.0, 1e9)}, ("off the planet", "unit")),
    ],
)
def test_wrong_systems_are_refused_with_a_remedy(change, words, write_raster) -> None:
    path = write_raster("a.tif", GREY, **change)
    with pytest.raises(DataError) as info, open_raster(path):
        pass
    text = str(info.value)
    assert text.startswith(str(path)) and all(word in text for word in words), text
    assert info.value.remedy


def test_mirrored_and_unreferenced_rasters_are_refused(write_raster) -> None:
    rasterio = pytest.importorskip("rasterio")
    mirrored = rasterio.Affine(10, 0, 0, 0, 10, 0)
    for transform, words in (
        (mirrored, "mirrored"), (rasterio.Affine.identity(), "no pixel size"),
    ):  # fmt: skip
        path = write_raster("a.tif", GREY, transform=transform)
        with pytest.raises(DataError, match=words), open_raster(path):
            pass


def test_other_contents_are_refused(write_raster, tmp_path) -> None:
    good = write_raster("good.tif", np.tile(GREY, (8, 8)))
    text, empty, cut = (tmp_path / name for name in ("text.tif", "empty.tif", "cut.tif"))
    text.write_text("not a raster")
    empty.touch()
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    palette = write_raster("palette.tif", GREY, photometric="palette")
    complex_ = write_raster("complex.tif", GREY.astype(np.complex64))
    paths = [text, empty, cut, palette, complex_, tmp_path / "gone.tif", good]
    report = cut_rasters(paths, RasterSpec(size=64), tmp_path / "out")
    reasons = {problem.source: problem.reason for problem in report.failed}
    assert [manifest.name for manifest in report.cut] == ["good"] and not report.complete
    for path, words in (
        (text, "not a GeoTIFF"), (empty, "empty file"), (cut, "truncated"),
        (palette, "palette"), (complex_, "complex64"), (tmp_path / "gone.tif", "no such file"),
    ):  # fmt: skip
        assert words in reasons[str(path)] and "\n" not in reasons[str(path)], reasons
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.json", "good.tar"]


def test_a_band_that_is_missing_is_named(write_raster) -> None:
    with (
        pytest.raises(DataError, match="no band 3, only 1"),
        open_raster(write_raster("a.tif", GREY), bands=[3]),
    ):
        pass


def test_vrts_and_jpeg_2000_are_read(write_raster, tmp_path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.shutil import copy

    path = write_raster("a.tif", GREY)
    copy(path, tmp_path / "a.vrt", driver="VRT")
    with open_raster(path) as raster:
        expected = raster.sample()[0]
    with open_raster(tmp_path / "a.vrt") as raster:
        assert (raster.sample()[0] == expected).all()
    with rasterio.Env() as env:
        can_write = "JP2OpenJPEG" in env.drivers()
    if not can_write:
        pytest.skip("this GDAL writes no JPEG 2000")
    copy(path, tmp_path / "a.jp2", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    with open_raster(tmp_path / "a.jp2") as raster:
        assert (raster.sample()[0] == expected).all()
        assert raster.pixel_m == pytest.approx((10, 10), rel=0.01)


def test_overviews_are_used(write_raster) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = write_raster("a.tif", np.tile(GREY, (8, 8)), pixel=5)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    with open_raster(path) as raster:
        values, _ = raster.read((0, 0, 768, 768), (192, 192))
    assert np.abs(values.astype(float).mean() - GREY.mean()) < 1


def test_network_addresses_in_a_vrt_are_not_opened(write_raster, tmp_path) -> None:
    from rasterio.shutil import copy

    copy(write_raster("a.tif", GREY), tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text()
    (tmp_path / "b.vrt").write_text(
        text.replace(">a.tif<", ">/vsicurl/http://127.0.0.1:9/a.tif<")
        .replace('relativeToVRT="1"', 'relativeToVRT="0"')
    )  # fmt: skip
    with pytest.raises(DataError), open_raster(tmp_path / "b.vrt") as raster:
        raster.sample()


@pytest.mark.parametrize("lon", [-170.0, 190.0])
def test_longitudes_of_both_conventions_give_the_same_place(lon, write_raster) -> None:
    crs = f"+proj=longlat +R={A} +no_defs"
    path = write_raster("a.tif", GREY, crs, (lon, 10.0), 0.01)
    with open_raster(path) as raster:
        placement = raster.place((0, 0, 96, 96))
    assert placement is not None and (placement.lon, placement.lat) == pytest.approx(
        (-169.52, 9.52)
    )
