from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from marsretrieval import geo
from marsretrieval.datasets.geotiff import open_geotiff
from marsretrieval.errors import DataError, DatasetNotFoundError
from tests.shared import shared_file

METRES_PER_DEGREE = np.pi * geo.MARS_RADIUS_M / 180


def wkt(flattening: float) -> str:
    """Return the mosaic's CRS: equirectangular on a sphere (0) or on an ellipsoid (169.894...), as
    the real one."""
    return (
        'PROJCS["Mars_2015_Ocentric_Equirectangular_clon_0",GEOGCS["Mars (2015) / Ocentric",'
        f'DATUM["Mars (2015)",SPHEROID["Mars (2015)",3396190,{flattening}]],'
        'PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]],'
        'PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
        'PARAMETER["central_meridian",0],PARAMETER["false_easting",0],'
        'PARAMETER["false_northing",0],UNIT["metre",1]]'
    )


def write(
    path: Path, lon: float, lat: float, *, crs: object = None, unit: float = METRES_PER_DEGREE
) -> Path:
    """Write a quad of 4 degrees whose grey value is the row."""
    pixel = 4 * unit / 80
    rows = np.repeat(np.arange(80, dtype=np.uint8)[:, None], 80, axis=1)
    with rasterio.open(
        path, "w", driver="GTiff", width=80, height=80, count=1, dtype="uint8",
        crs=crs, transform=from_origin(lon * unit, (lat + 4) * unit, pixel, pixel),
    ) as file:  # fmt: skip
        file.write(rows, 1)
    return path


@pytest.mark.parametrize("flattening", [0, 169.894447223612])
@pytest.mark.parametrize(("lon", "lat"), [(0, 40), (-60, -56), (176, -4), (-180, 76)])
def test_quads_have_the_expected_positions(tmp_path: Path, flattening, lon, lat) -> None:
    name = f"MurrayLab_CTX_V01_{geo.quad_name(lon + 1, lat + 1)}_Mosaic.tif"
    with open_geotiff(write(tmp_path / name, lon, lat, crs=wkt(flattening))) as raster:
        edges = (raster.west, raster.south, raster.east, raster.north)
        assert edges == pytest.approx((lon, lat, lon + 4, lat + 4), abs=1e-9)
        assert raster.pixel_deg == pytest.approx((0.05, 0.05))
        assert raster.read((20, 0, 1, 80)).tolist() == [[20] * 80]


def test_degrees_follow_the_radius_of_the_file(tmp_path: Path) -> None:
    unit = np.pi * 3_396_000 / 180
    path = write(tmp_path / "a.tif", 100, 40, crs="+proj=eqc +R=3396000", unit=unit)
    with open_geotiff(path) as raster:
        assert (raster.west, raster.north) == pytest.approx((100, 44), abs=1e-9)


def test_longitudes_of_360_are_wrapped(tmp_path: Path) -> None:
    name = "MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif"
    with open_geotiff(write(tmp_path / name, 356, -4, crs="IAU_2015:49900", unit=1)) as raster:
        assert (raster.west, raster.south, raster.east) == (-4, -4, 0)


def test_several_bands_are_refused(tmp_path: Path) -> None:
    shape = {"width": 8, "height": 8, "count": 3, "dtype": "uint8", "driver": "GTiff"}
    georeference = {"crs": "IAU_2015:49900", "transform": from_origin(0, 4, 0.5, 0.5)}
    with rasterio.open(tmp_path / "a.tif", "w", **shape, **georeference) as file:
        file.write(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(DataError, match="3 bands"), open_geotiff(tmp_path / "a.tif"):
        pass


def test_windows_are_resampled_to_a_shape(tmp_path: Path) -> None:
    with open_geotiff(write(tmp_path / "a.tif", 0, 0, crs=wkt(0))) as raster:
        half = raster.read((0, 0, 80, 80), (40, 40)).astype(float)
        assert half.shape == (40, 40)
        assert np.abs(half[:, 0] - (2 * np.arange(40) + 0.5)).max() <= 1


def test_quad_at_another_position_than_its_name_is_refused(tmp_path: Path) -> None:
    name = "MurrayLab_CTX_V01_E000_N40_Mosaic.tif"
    for lon, lat in ((4, 40), (0, 40.1), (0.03, 40)):
        with (
            pytest.raises(DataError, match="named for 0, 40"),
            open_geotiff(write(tmp_path / name, lon, lat, crs=wkt(0))),
        ):
            pass


@pytest.mark.parametrize(
    ("crs", "unit", "words"),
    [
        (None, METRES_PER_DEGREE, "no coordinate system"),
        ("EPSG:4326", 1.0, "6,378 km"),
        ("EPSG:32633", 1.0, "6,378 km"),
        ("+proj=stere +lat_0=90 +R=3396190", 1.0, "neither in degrees nor equirectangular"),
        ("+proj=eqc +lon_0=180 +R=3396190", METRES_PER_DEGREE, "Longitude of natural origin 180"),
        ("+proj=eqc +lat_ts=20 +R=3396190", METRES_PER_DEGREE, "standard parallel 20"),
        ("+proj=eqc +x_0=5 +R=3396190", METRES_PER_DEGREE, "False easting 5"),
        ("+proj=eqc +units=km +R=3396190", METRES_PER_DEGREE, "kilometre, not metres"),
        ("IAU_2015:49900", METRES_PER_DEGREE, "is not on the planet"),
    ],
)
def test_other_coordinate_systems_are_refused(tmp_path: Path, crs, unit, words: str) -> None:
    with (
        pytest.raises(DataError, match=words) as raised,
        open_geotiff(write(tmp_path / "a.tif", 0, 0, crs=crs, unit=unit)),
    ):
        pass
    assert "a.tif" in str(raised.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError), open_geotiff(tmp_path / "nowhere.tif"):
        pass
    path = write(tmp_path / "a.tif", 0, 0, crs=wkt(0))
    content = path.read_bytes()
    for data in (b"", b"hello", content[:2000]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tif"), open_geotiff(path) as raster:
            raster.read()


def test_real_maps_are_read() -> None:
    with open_geotiff(
        shared_file("marsdata/geotiff/mars_global_hillshade_1024x512_lon180.tif")
    ) as raster:
        assert (raster.west, raster.south, raster.east, raster.north) == (-180, -90, 180, 90)
        assert raster.read().std() > 10
    with open_geotiff(shared_file("marsdata/geotiff/mola_megdr_4ppd_topo_lon360.tif")) as raster:
        assert (raster.west, raster.east) == (0, 360)
        # Olympus Mons (226.2 E, 18.65 N) stands over 21 km.
        row, column = (90 - 18.65) / raster.pixel_deg[1], 226.2 / raster.pixel_deg[0]
        assert raster.read((int(row) - 4, int(column) - 4, 8, 8)).max() > 18_000
