from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marsretrieval.datasets.scan import difference_hash, near_pairs
from tests.datasets.download.servers import picture


@given(st.integers(0, 10_000), st.sampled_from([0.4, 0.7, 1.5]), st.integers(60, 95))
def test_resized_copy_is_a_near_duplicate_and_another_image_is_not(
    seed: int, scale: float, quality: int
) -> None:
    with Image.open(io.BytesIO(picture(seed, (180, 120), "PNG"))) as image:
        buffer = io.BytesIO()
        size = (round(180 * scale), round(120 * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
        first = difference_hash(image)
    with Image.open(buffer) as image:
        second = difference_hash(image)
    with Image.open(io.BytesIO(picture(seed + 1, (180, 120)))) as image:
        third = difference_hash(image)
    assert first is not None
    assert second is not None
    assert third is not None
    assert near_pairs(np.stack([first, second, third])) == [(0, 1)]


def test_near_duplicates_are_detected_across_blocks() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, (1200, 4), dtype=np.uint64)
    hashes[1100] = hashes[3]
    hashes[1100, 0] ^= np.uint64(0xFF)
    hashes[600] = hashes[599]
    assert near_pairs(hashes) == [(3, 1100), (599, 600)]


def test_image_without_contrast_has_no_near_duplicates() -> None:
    assert difference_hash(Image.new("RGB", (30, 30), (9, 9, 9))) is None
