"""Recognize product ids of Mars cameras in file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_HIRISE_COLOURS = "RED|COLOR|IRB|MIRB|RGB|MRGB|BG|IR"
_PATTERNS = (
    ("HiRISE", rf"{_START}(?:ESP|PSP|TRA|AEB)_\d{{6}}_\d{{4}}(?:_(?:{_HIRISE_COLOURS}))?{_END}"),
    ("HiRISE", rf"{_START}DTE[EP][CDG]_\d{{6}}_\d{{4}}_\d{{6}}_\d{{4}}_[A-Z]\d\d{_END}"),
    ("CTX", rf"{_START}[A-Z]\d{{2}}_\d{{6}}_\d{{4}}_X[IN]_\d{{2}}[NS]\d{{3}}W{_END}"),
    ("HRSC", rf"{_START}h[0-9a-z]\d{{3}}_\d{{4}}_(?:nd|re|gr|bl|ir|s1|s2|p1|p2|dt|da)\d?{_END}"),
    ("CaSSIS", rf"{_START}MY\d{{2}}_\d{{6}}_\d{{3}}_\d{_END}"),
    ("THEMIS", rf"{_START}[VI]\d{{8,9}}(?:RDR|PBT|ALB|GEO)?(?!\d)"),
)
_COMPILED = tuple(
    # A further part of the name may follow after an underscore: ESP_011265_1560_RED_A_01_ORTHO.
    (instrument, re.compile(pattern, re.IGNORECASE))
    for instrument, pattern in _PATTERNS
)


@dataclass(frozen=True, slots=True)
class Product:
    """An image product of a Mars camera.

    Attributes:
        product_id: Id as the archives write it.
        instrument: Name of the camera.
    """

    product_id: str
    instrument: str


def find_product(path: PurePath) -> Product | None:
    """Find a product id in a file name.

    Ids of HiRISE, CTX, HRSC, THEMIS and CaSSIS are recognized in any case, also inside a longer
    name.

    Args:
        path: File name or path.

    Returns:
        The product; None if the name contains no known id.
    """
    for instrument, pattern in _COMPILED:
        match = pattern.search(path.name)
        if match:
            text = match[0].lower() if instrument == "HRSC" else match[0].upper()
            return Product(text, instrument)
    return None
