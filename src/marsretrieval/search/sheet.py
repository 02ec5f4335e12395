"""Contact sheets of hits: thumbnails with rank, score and position, as images or PDF."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from marsretrieval.errors import MarsRetrievalWarning, MissingImagesWarning, UsageError
from marsretrieval.io import atomic_path, check_output
from marsretrieval.plotting import Style, style_of
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.hits import format_position
from marsretrieval.search.provenance import describe_query
from marsretrieval.search.thumbnails import Thumbnail, TileImages
from marsretrieval.text import pluralize, printable

if TYPE_CHECKING:
    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.search.hits import Hit, Hits

SHEET_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".pdf": "PDF"}
PER_SHEET = 42
MAX_SHEET_HITS = 5_000
_COLUMNS, _SIDE, _GAP, _MARGIN = 6, 232, 22, 56
_TITLE_SIZE, _NOTE_SIZE, _TEXT_SIZE, _ID_SIZE = 34, 19, 18, 15
_LINE, _ID_LINE = 23, 19  # heights of the lines below an image
_MAX_ID_LINES = 3
_DPI = 150

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class SheetSummary:
    """Summary of written contact sheets.

    Attributes:
        paths: The files.
        unreadable: Number of hits whose image cannot be read.
        shortened: Number of hits whose id is shortened.
    """

    paths: Sequence[Path]
    unreadable: int
    shortened: int


def check_sheet_path(path: str | Path) -> None:
    """Check the suffix of a contact sheet and that the path is writable.

    Args:
        path: The output file: .png, .jpg, .jpeg or .pdf.

    Raises:
        UsageError: If the suffix is none of these.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SHEET_FORMATS:
        raise UsageError(
            f"{path}: no format of a contact sheet",
            remedy=f"Use a name that ends in {', '.join(SHEET_FORMATS)}.",
        )
    check_output(path)


def check_sheet(hits: Hits, path: Path) -> None:
    """Check that contact sheets can hold these hits.

    Args:
        hits: The hits.
        path: The output file, for messages.

    Raises:
        UsageError: If there are too many hits.
    """
    if len(hits) > MAX_SHEET_HITS:
        raise UsageError(
            f"{path}: {pluralize(len(hits), 'hit')}, and contact sheets hold at most "
            f"{MAX_SHEET_HITS:,}",
            remedy="Limit them with -k (k=...).",
        )


def write_sheet(
    hits: Hits,
    path: str | Path,
    *,
    store: EmbeddingStore | None = None,
    tile_images: TileImages | None = None,
    style: str | Style = "light",
    progress: Progress = NO_PROGRESS,
) -> SheetSummary:
    """Write hits as contact sheets of `PER_SHEET` images each.

    A single sheet is `path`; several are `path` with a number before the suffix (`hits-1.png`), or
    the pages of one PDF. Hits without a readable image show the reason, and a
    `MissingImagesWarning` counts them. Without hits, the sheet has only the title and "0 hits".

    Args:
        hits: At most `MAX_SHEET_HITS` hits.
        path: The output file.
        store: The store that was searched, for images.
        tile_images: Thumbnails that may have been loaded before; by default those of the store.
        style: Colour scheme, `light`, `dark` or a `plotting.Style`.
        progress: Progress display.

    Returns:
        A summary of the files.

    Raises:
        UsageError: If the suffix or style is unknown, or there are too many hits.
        OutputError: If a file cannot be written.
    """
    path = Path(path)
    check_sheet_path(path)
    check_sheet(hits, path)
    loader = tile_images or TileImages(store)
    thumbnails = loader.load_hits(hits, progress=progress)
    sheets = _Sheets(hits, thumbnails, style_of(style))
    kind = SHEET_FORMATS[path.suffix.lower()]
    paths = [path]
    old = _numbered(path)
    if kind == "PDF":
        with atomic_path(path) as temporary:
            first, *others = sheets.draw()
            first.save(temporary, kind, save_all=True, append_images=others, resolution=_DPI)
    else:
        paths = _names(path, sheets.count)
        for name, sheet in zip(paths, sheets.draw(), strict=True):
            with atomic_path(name) as temporary:
                sheet.save(temporary, kind, dpi=(_DPI, _DPI), **_options(kind))
    earlier = sorted(old - set(paths))
    if earlier:
        warnings.warn(
            f"{path}: {pluralize(len(earlier), 'sheet')} of an earlier search left beside it: "
            f"{', '.join(other.name for other in earlier[:3])}{' ...' if len(earlier) > 3 else ''}",
            MarsRetrievalWarning,
            stacklevel=2,
        )
    missing = [index for index, item in enumerate(thumbnails) if item.image is None]
    if missing:
        first_missing = missing[0]
        warnings.warn(
            f"{path}: {len(missing):,} of {pluralize(len(hits), 'image')} cannot be read; first: "
            f"{hits.sources[first_missing]}: {thumbnails[first_missing].reason}",
            MissingImagesWarning,
            stacklevel=2,
        )
    if sheets.shortened:
        warnings.warn(
            f"{path}: {pluralize(sheets.shortened, 'id')} too long for the sheet, shortened",
            MarsRetrievalWarning,
            stacklevel=2,
        )
    return SheetSummary(paths, len(missing), sheets.shortened)


def _options(kind: str) -> dict[str, int]:
    # A PNG of zlib's best level is 12 % smaller, and takes ten times as long.
    return {"quality": 88} if kind == "JPEG" else {}


def _names(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    digits = len(str(count))
    return [
        path.with_name(f"{path.stem}-{number:0{digits}}{path.suffix}")
        for number in range(1, count + 1)
    ]


def _numbered(path: Path) -> set[Path]:
    """Return the existing files that may be sheets of the same name: `hits.png`, `hits-1.png`."""
    pattern = re.compile(rf"{re.escape(path.stem)}(-\d+)?{re.escape(path.suffix)}")
    return {file for file in path.parent.glob("*") if pattern.fullmatch(file.name)}


class _Sheets:
    """Draws the sheets one by one."""

    def __init__(self, hits: Hits, thumbnails: Sequence[Thumbnail], style: Style) -> None:
        self._hits, self._thumbnails, self._style = hits, thumbnails, style
        self._title_font, self._note_font, self._font, self._id_font = (
            ImageFont.load_default(size) for size in (_TITLE_SIZE, _NOTE_SIZE, _TEXT_SIZE, _ID_SIZE)
        )
        self.count = max(1, math.ceil(len(hits) / PER_SHEET))
        self.shortened = 0
        self._columns = min(_COLUMNS, max(3, len(hits)))
        self._names = [self._fit(printable(hit.name, one_line=True)) for hit in hits]
        lines = max((len(name) for name in self._names), default=0)
        self._caption = 6 + 2 * _LINE + lines * _ID_LINE + 6

    def _fit(self, name: str) -> list[str]:
        """Break an id into lines of the width of an image; shorten one that needs too many."""
        lines = _wrap(name, self._id_font, _SIDE)
        if len(lines) <= _MAX_ID_LINES:
            return lines
        self.shortened += 1
        return [_shorten(name, self._id_font, _SIDE)]

    def draw(self) -> Iterator[Image.Image]:
        """Draw the sheets in order."""
        width = 2 * _MARGIN + self._columns * _SIDE + (self._columns - 1) * _GAP
        title = _wrap(
            printable(describe_query(self._hits.about), one_line=True),
            self._title_font,
            width - 2 * _MARGIN,
        )
        for number in range(self.count):
            start, end = number * PER_SHEET, min(len(self._hits), (number + 1) * PER_SHEET)
            notes = _wrap(self._note(start, end), self._note_font, width - 2 * _MARGIN)
            top = _MARGIN + len(title) * 42 + len(notes) * 26 + 22
            rows = math.ceil((end - start) / self._columns)
            height = top + rows * (_SIDE + self._caption + _GAP) - _GAP + _MARGIN // 2
            sheet = Image.new("RGB", (width, height), self._style.paper)
            pen = ImageDraw.Draw(sheet)
            y = _MARGIN - 8
            for lines, font, step, ink in (
                (title, self._title_font, 42, self._style.ink),
                (notes, self._note_font, 26, self._style.muted),
            ):
                for line in lines:
                    pen.text((_MARGIN, y), line, fill=ink, font=font)
                    y += step
            for index in range(start, end):
                row, column = divmod(index - start, self._columns)
                corner = (
                    _MARGIN + column * (_SIDE + _GAP),
                    top + row * (_SIDE + self._caption + _GAP),
                )
                self._draw_hit(sheet, pen, self._hits[index], self._thumbnails[index], corner)
            yield sheet

    def _note(self, start: int, end: int) -> str:
        about = self._hits.about
        noun = "hit" if self._hits.tiles is None else "place"
        parts = [
            str(about["model"]) if about.get("model") else "",
            pluralize(len(self._hits), noun)
            if self.count == 1
            else f"ranks {start + 1:,} to {end:,} of {len(self._hits):,}",
            f"sheet {start // PER_SHEET + 1} of {self.count}" if self.count > 1 else "",
            str(about["store"]) if about.get("store") else "",
        ]
        return printable("   ·   ".join(filter(None, parts)), one_line=True)

    def _draw_hit(
        self,
        sheet: Image.Image,
        pen: ImageDraw.ImageDraw,
        hit: Hit,
        thumbnail: Thumbnail,
        corner: tuple[int, int],
    ) -> None:
        x, y = corner
        style = self._style
        pen.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), fill=style.ground)
        if thumbnail.image is None:
            pen.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline=style.grid)
            reason = printable(thumbnail.reason, one_line=True)
            lines = ["no image", *_wrap(reason, self._font, _SIDE - 24)][:9]
            for number, line in enumerate(lines):
                ink = style.ink if number == 0 else style.muted
                pen.text((x + 12, y + 12 + number * 23), line, fill=ink, font=self._font)
        else:
            image = Image.open(io.BytesIO(thumbnail.image)).convert("RGB")
            scale = _SIDE / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS)
            at = (x + (_SIDE - image.width) // 2, y + (_SIDE - image.height) // 2)
            sheet.paste(image, at)
        rank, score = f"{hit.rank:,}", f"{hit.score:.4f}"
        pen.text((x, y + _SIDE + 6), rank, fill=style.accent, font=self._font)
        pen.text((x + _SIDE, y + _SIDE + 6), score, fill=style.ink, font=self._font, anchor="ra")
        position = format_position(hit.lon, hit.lat) or "position unknown"
        pen.text((x, y + _SIDE + 6 + _LINE), position, fill=style.ink, font=self._font)
        for number, line in enumerate(self._names[hit.rank - 1]):
            height = y + _SIDE + 6 + 2 * _LINE + number * _ID_LINE
            pen.text((x, height), line, fill=style.muted, font=self._id_font)


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Break a text into lines, inside of words where they are too long."""
    lines = [""]
    for word in text.split(" "):
        if not lines[-1]:
            lines[-1] = word
        elif font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
        while len(lines[-1]) > 1 and font.getlength(lines[-1]) > width:
            count = next(
                n for n in range(len(lines[-1]) - 1, 0, -1)
                if n == 1 or font.getlength(lines[-1][:n]) <= width
            )  # fmt: skip
            lines[-1:] = [lines[-1][:count], lines[-1][count:]]
    return lines


def _shorten(text: str, font: Font, width: float) -> str:
    """Replace the middle of a text that is too wide by an ellipsis."""
    count = min(len(text), 200)
    while count > 2 and font.getlength(_without_middle(text, count)) > width:
        count -= 1
    return _without_middle(text, count)


def _without_middle(text: str, count: int) -> str:
    head = (count + 1) // 2
    return f"{text[:head]}...{text[len(text) - (count - head) :]}"
