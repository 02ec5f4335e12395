"""Pixels without data in 8-bit images, and files that GDAL must not open for a raster."""

from __future__ import annotations

import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from marsretrieval.datasets import decode_rgb, rgb_of
from marsretrieval.datasets.geotiff import open_geotiff
from marsretrieval.errors import DataError, ImageError
from tests.datasets.layouts import geotiff

rasterio = pytest.importorskip("rasterio")


def pixels(data: bytes) -> Any:
    return np.asarray(decode_rgb(data, "x.tif"))


def grey() -> Any:
    values = np.arange(1, 31, dtype=np.uint8).reshape(1, 5, 6)
    values[0, 1:3, 2:4] = 255
    return values


@pytest.mark.parametrize("nodata", [255, 7, 0])
def test_nodata_of_grey_is_black(nodata: int) -> None:
    values = grey()
    expected = np.where(values[0] == nodata, 0, values[0])
    image = pixels(geotiff(values, nodata=nodata))
    assert np.array_equal(image, np.repeat(expected[..., None], 3, axis=2))


def test_nodata_of_colours_is_black_where_all_bands_have_it() -> None:
    bands = np.stack([grey()[0], grey()[0], grey()[0]])
    bands[1:, 0, 0] = 255
    bands[0, 0, 0] = 9
    image = pixels(geotiff(bands, nodata=255, photometric="RGB"))
    assert image[0, 0].tolist() == [9, 255, 255]
    assert not image[1:3, 2:4].any()
    assert np.array_equal(image[3:], np.moveaxis(bands, 0, -1)[3:])


def test_nodata_is_compared_before_grey_is_inverted() -> None:
    image = pixels(geotiff(grey(), nodata=255, photometric="MINISWHITE"))
    assert not image[1:3, 2:4].any()
    assert image[0, 0].tolist() == [254, 254, 254]


def test_nodata_outside_the_byte_range_masks_nothing() -> None:
    buffer = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42113] = "-9999"
    Image.fromarray(grey()[0]).save(buffer, "TIFF", tiffinfo=tags)
    assert np.array_equal(pixels(buffer.getvalue())[..., 0], grey()[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_internal_mask_hides_pixels(count: int, dtype: str) -> None:
    bands = np.repeat(grey(), count, axis=0).astype(dtype)
    mask = np.full((5, 6), 255, np.uint8)
    mask[1:3, 2:4] = 0
    image = pixels(geotiff(bands, mask=mask))
    assert not image[1:3, 2:4].any()
    assert image[4, 5].all()


def test_mask_is_rotated_with_the_image() -> None:
    mask = np.full((5, 6), 255, np.uint8)
    mask[0, 1] = 0
    data = bytearray(geotiff(grey(), mask=mask))
    plain = bytes(data)
    turned = Image.open(io.BytesIO(plain))
    assert turned.tag_v2.get(274) is None
    # GDAL writes no orientation: put one in place of the tag 277 (samples a pixel), which is 1.
    start = data.index((277).to_bytes(2, "little"))
    for orientation in (3, 6):
        data[start : start + 2] = (274).to_bytes(2, "little")
        data[start + 8] = orientation
        image = pixels(bytes(data))
        expected = np.rot90(pixels(plain), 2 if orientation == 3 else -1)
        assert np.array_equal(image, expected)


def test_a_pillow_image_is_masked_like_its_file(tmp_path: Path) -> None:
    mask = np.full((5, 6), 255, np.uint8)
    mask[1:3, 2:4] = 0
    for data in (geotiff(grey(), mask=mask), geotiff(grey(), nodata=255)):
        path = tmp_path / "a.tif"
        path.write_bytes(data)
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(rgb_of(image)), pixels(data))


def test_without_nodata_no_pixel_changes() -> None:
    for count in (1, 3):
        bands = np.repeat(grey(), count, axis=0)
        image = pixels(geotiff(bands))
        assert np.array_equal(image, np.repeat(np.moveaxis(bands, 0, -1), 3 // count, axis=2))


# Addresses


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", requests
        listening.shutdown()
        thread.join()


def vrt(address: str) -> bytes:
    return (
        '<VRTDataset rasterXSize="40" rasterYSize="40"><SRS>EPSG:4326</SRS>'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{address}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


def quad(path: Path, **profile: Any) -> Path:
    metres = 59_274.69752
    transform = rasterio.Affine(metres / 10, 0, 0, 0, -metres / 10, 4 * metres)
    profile = {"crs": rasterio.CRS.from_string("IAU_2015:49910"), "transform": transform} | profile
    path.write_bytes(geotiff(np.full((1, 40, 40), 5, np.uint8), **profile))
    return path


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_a_vrt_called_tif_sends_no_request(prefix: str, tmp_path: Path, server) -> None:
    address, requests = server
    content = vrt(f"{prefix}{address}/x.tif")
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif: a VRT, which names other files"), \
            open_geotiff(path):  # fmt: skip
        pass
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.tif", content)
    with pytest.raises(DataError, match=r"a\.zip, in/a\.tif: a VRT"), \
            open_geotiff(tmp_path / "a.zip", member="in/a.tif"):  # fmt: skip
        pass
    with pytest.raises(ImageError, match="not an image"):
        decode_rgb(content, "a.tif")
    assert requests == []


def test_overviews_at_an_address_are_refused(tmp_path: Path, server) -> None:
    address, requests = server
    for bands in (np.ones((1, 8, 8), np.uint16), np.ones((3, 8, 8), np.uint16)):
        path = tmp_path / "a.tif"
        path.write_bytes(geotiff(bands))
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"{address}/x.ovr")
        if len(bands) == 3:
            with pytest.raises(ImageError, match="names another file as its overviews"):
                decode_rgb(path.read_bytes(), "a.tif")
        with pytest.raises(DataError, match="overviews"), open_geotiff(path):
            pass
    assert requests == []


def test_sidecars_of_a_raster_are_not_opened(tmp_path: Path, server) -> None:
    address, requests = server
    path = quad(tmp_path / "a.tif")
    for suffix in (".ovr", ".msk"):
        (tmp_path / f"a.tif{suffix}").write_bytes(vrt(f"{address}/x{suffix}"))
    with open_geotiff(path) as raster:
        assert (raster.read(shape=(5, 5)) == 5).all()
    assert requests == []


def test_url_is_not_a_file(server) -> None:
    address, requests = server
    for name in (f"/vsicurl/{address}/x.tif", f"{address}/x.tif"):
        with pytest.raises(DataError, match="no such file"), open_geotiff(Path(name)):
            pass
    assert requests == []
