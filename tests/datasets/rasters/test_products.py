"""Product ids in file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval.datasets.rasters import Product, find_product


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("ESP_020245_2190_RED.JP2", Product("ESP_020245_2190_RED", "HiRISE")),
        ("psp_001521_2025_red.tif", Product("PSP_001521_2025_RED", "HiRISE")),
        ("ESP_011265_1560_RED_A_01_ORTHO.JP2", Product("ESP_011265_1560_RED", "HiRISE")),
        ("ESP_011265_1560_COLOR.tif", Product("ESP_011265_1560_COLOR", "HiRISE")),
        ("ESP_011265_1560.tif", Product("ESP_011265_1560", "HiRISE")),
        (
            "DTEEC_011265_1560_011331_1560_U01.tif",
            Product("DTEEC_011265_1560_011331_1560_U01", "HiRISE"),
        ),
        ("B01_009958_1524_XI_27S347W.tif", Product("B01_009958_1524_XI_27S347W", "CTX")),
        ("mars_g05_020119_1895_XN_09N067W_map.tif", Product("G05_020119_1895_XN_09N067W", "CTX")),
        ("H1234_0000_ND4.IMG.tif", Product("h1234_0000_nd4", "HRSC")),
        ("h1234_0000_nd4.tif", Product("h1234_0000_nd4", "HRSC")),
        ("V12345678.tif", Product("V12345678", "THEMIS")),
        ("I01234005RDR.tif", Product("I01234005RDR", "THEMIS")),
        ("MY34_001934_162_0.tif", Product("MY34_001934_162_0", "CaSSIS")),
        ("site1.tif", None),
        ("XESP_020245_2190.tif", None),
        ("map_I1234.tif", None),
    ],
)
def test_products_are_recognized(name: str, product: Product | None) -> None:
    assert find_product(Path("folder") / name) == product
