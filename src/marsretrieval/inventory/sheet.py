"""Contact sheet of the tiles to look at, with numbers, ids and positions but no scores."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import UsageError
from marsretrieval.io import atomic_path, check_output
from marsretrieval.search.thumbnails import TileImages

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".pdf": "PDF"}
_COLUMNS, _SIDE, _GAP, _CAPTION = 5, 256, 12, 44
_BACKGROUND, _TEXT, _MISSING = "white", "black", "#bbbbbb"


def check_sheet_path(path: str | Path) -> None:
    """Check the suffix of a contact sheet, and that the path is writable.

    Args:
        path: The output file.

    Raises:
        UsageError: If the suffix is none of .png, .jpg, .jpeg and .pdf.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{path}: no format of a contact sheet",
            remedy=f"Use a name that ends in {', '.join(_SUFFIXES)}.",
        )
    check_output(path)


def draw_sheet(
    tiles: Sequence[Mapping[str, Any]], path: str | Path, *, store: EmbeddingStore | None = None
) -> list[str]:
    """Draw tiles in rows of five, numbered in the order of `next`.

    Args:
        tiles: Tiles of `Inventory.next`: id, lon, lat, source.
        path: The output file.
        store: The store of the tiles, with which the images are compared.

    Returns:
        One line per image that could not be read.

    Raises:
        UsageError: If there are no tiles, or the suffix is unknown.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    from PIL import Image, ImageDraw, ImageFont

    check_sheet_path(path)
    if not tiles:
        raise UsageError(f"{path}: no tiles to look at")
    rows = math.ceil(len(tiles) / _COLUMNS)
    columns = min(_COLUMNS, len(tiles))
    width = columns * (_SIDE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, rows * (_SIDE + _CAPTION + _GAP) + _GAP), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    thumbnails = TileImages(store, side=_SIDE).load(
        [str(tile["id"]) for tile in tiles], [str(tile["source"]) for tile in tiles]
    )
    problems = []
    for number, (tile, thumbnail) in enumerate(zip(tiles, thumbnails, strict=True)):
        row, column = divmod(number, _COLUMNS)
        x, y = _GAP + column * (_SIDE + _GAP), _GAP + row * (_SIDE + _CAPTION + _GAP)
        if thumbnail.image is None:
            problems.append(f"{tile['id']}: {thumbnail.reason}")
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), fill=_MISSING)
            draw.text((x + 8, y + 8), "image not readable", fill=_TEXT, font=font)
        else:
            image = Image.open(io.BytesIO(thumbnail.image)).convert("RGB")
            scale = _SIDE / max(image.size)
            size = [max(1, round(length * scale)) for length in image.size]
            sheet.paste(image.resize((size[0], size[1]), Image.Resampling.LANCZOS), (x, y))
        place = "position unknown"
        if tile["lon"] is not None and tile["lat"] is not None:
            place = f"{tile['lon']:.3f}, {tile['lat']:.3f}"
        caption = f"{number + 1}. {_shorten(str(tile['id']), font)}\n{place}"
        draw.multiline_text((x, y + _SIDE + 2), caption, fill=_TEXT, font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, _SUFFIXES[path.suffix.lower()])
    return problems


def _shorten(text: str, font: Any) -> str:
    """Shorten the middle of an id to the width of an image."""
    short, keep = text, len(text)
    while font.getlength(f"00. {short}") > _SIDE and keep > 8:
        keep -= 1
        short = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return short
