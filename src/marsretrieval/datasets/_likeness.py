"""Pictures that look alike although their bytes differ: the same one resized or stored anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 16
_WORDS = _SIDE * _SIDE // 64
_FLAT = 8  # grey levels between darkest and brightest: below, there is nothing to compare
_ROWS = 512


def difference_hash(image: Image.Image) -> npt.NDArray[np.uint64] | None:
    """Which of two neighbouring pixels is brighter, on the picture shrunk to 17 x 16: 256 bits as
    (4,) words. None for a picture without contrast.

    The difference hash of N. Krawetz, "Kind of like that" (2013), four times as fine.
    """
    small = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    if int(grey.max()) - int(grey.min()) < _FLAT:
        return None
    bits = grey[:, 1:] > grey[:, :-1]
    return np.packbits(bits).view(np.uint64)


def near_pairs(hashes: npt.NDArray[np.uint64], limit: int = 32) -> list[tuple[int, int]]:
    """Pairs of rows i < j of (n, 4) hashes that differ in at most `limit` of 256 bits.

    Of HiRISE and CTX patches, copies at a third to twice the size and JPEG quality 60 to 90
    differed in at most 28 bits, different ones in at least 77. O(n^2) time, n rows of memory.
    """
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(hashes), _ROWS):
        block = hashes[start : start + _ROWS]
        distance = np.zeros((len(block), len(hashes) - start), dtype=np.uint16)
        for word in range(_WORDS):
            distance += np.bitwise_count(block[:, None, word] ^ hashes[None, start:, word])
        left, right = np.nonzero(distance <= limit)
        pairs += [
            (start + int(i), start + int(j)) for i, j in zip(left, right, strict=True) if i < j
        ]
    return pairs
