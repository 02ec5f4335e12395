"""The report of an inventory as a sentence, Markdown or HTML, and contact sheets of its tiles."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval import __version__
from marsretrieval.errors import UsageError
from marsretrieval.io import atomic_path
from marsretrieval.text import pluralize, verb

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_COLUMNS, _SIDE, _GAP, _CAPTION = 5, 256, 12, 44
_BACKGROUND, _TEXT, _MISSING = "white", "black", "#bbbbbb"


def describe(estimate: Mapping[str, Any]) -> str:
    """State an estimate in one sentence.

    Args:
        estimate: Result of `estimate_files`.

    Returns:
        The sentence.
    """
    landform, confirmed = estimate["landform"], estimate["recall"]["confirmed"]
    tiles, recall = estimate["tiles"], estimate["recall"]
    is_confirmed = f"{verb(confirmed, 'is', 'are')} confirmed"
    if estimate["audit"] is None and tiles["estimate"] is None:
        return (
            f"{pluralize(confirmed, 'tile')} of {estimate['population']:,} {is_confirmed} to "
            f"show {landform}; without an audit their completeness is unknown."
        )
    if estimate["audit"] is None:
        return f"All {estimate['population']:,} tiles are marked: {confirmed:,} show {landform}."
    domain = pluralize(estimate["domain"], "tile")
    scope = f"Among the first {domain} of the ranking and the tiles marked before"
    if tiles["estimate"] is None:
        return (
            f"{scope}, {confirmed:,} {is_confirmed} to show {landform}; the audit has not yet "
            "sampled every stratum, so that there is no estimate."
        )
    rest = estimate["elsewhere"]
    sentence = (
        f"{scope}, {_number(tiles['estimate'])} show {landform} "
        f"(95 % interval {_number(tiles['low'])} to {_number(tiles['high'])}), of which "
        f"{confirmed:,} {is_confirmed}, {recall['estimate']:.0%} "
        f"({recall['low']:.0%} to {recall['high']:.0%})"
    )
    if not rest["tiles"]:
        return f"{sentence}; no other tiles are left."
    looked = f"{rest['yes']:,} of {rest['audited']:,} looked at do" if rest["audited"] else (
        "none was looked at"
    )  # fmt: skip
    return (
        f"{sentence}; of the other {pluralize(rest['tiles'], 'tile')} {looked}, so that at most "
        f"{_number(rest['high'])} do (95 %)."
    )


def write_report(estimate: Mapping[str, Any], path: Path, *, command: str | None = None) -> None:
    """Write the report of an estimate as Markdown or HTML, by the suffix of the file.

    Args:
        estimate: Result of `estimate_files`.
        path: File that ends in .md or .html.
        command: Command line that repeats the estimate.

    Raises:
        OutputError: If the file cannot be written.
    """
    sections = _sections(estimate, command)
    render = _to_html if path.suffix.lower() == ".html" else _to_markdown
    text = render(f"Inventory of {estimate['landform']}", describe(estimate), sections)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


Table = list[list[str]]


def _sections(estimate: Mapping[str, Any], command: str | None) -> list[tuple[str, str, Table]]:
    """Return title, text and table (first row: header) of each section."""
    audit = estimate["audit"]
    header = ["quantity", "estimate", "low", "high"]
    results = [header]
    for title, key in (("positive tiles", "tiles"), ("places", "places")):
        value = estimate[key]
        results.append([title, *(_number(value[name]) for name in header[1:])])
    recall = estimate["recall"]
    results.append(
        ["completeness of the confirmed tiles", *(_percent(recall[name]) for name in header[1:])]
    )
    if estimate["corrected"]:
        values = estimate["corrected"]
        results.append(
            ["positive tiles, corrected for misses", *(_number(values[n]) for n in header[1:])]
        )
    for title, key in (("own agreement", "agreement"), ("hit rate of controls", "hit_rate")):
        if estimate[key]:
            values = estimate[key]
            results.append(
                [f"{title} (n = {values['of']})", *(_percent(values[n]) for n in header[1:])]
            )
    results.append(["positive tiles elsewhere", "", "", _number(estimate["elsewhere"]["high"])])
    marked = estimate["marked"]
    counts = [
        ["count", "tiles"],
        ["store, with data", f"{estimate['population']:,}"],
        ["store, without data (not counted)", f"{estimate['without_data']:,}"],
        *([f"marked {name}", f"{marked[name]:,}"] for name in ("yes", "no", "unsure")),
        ["domain", f"{estimate['domain']:,}"],
        ["audited in the domain", f"{estimate['audited']:,}"],
        ["audited elsewhere", f"{estimate['elsewhere']['audited']:,}"],
    ]
    notes = []
    if estimate["places"]["assumed"]:
        notes.append(
            f"The place of {pluralize(estimate['places']['assumed'], 'positive tile')} has no "
            "stated size; it is taken to be the confirmed tiles that touch, so that the number of "
            "places may be too high."
        )
    if marked["unsure"]:
        notes.append("Unsure tiles count as no in the lower limits and as yes in the upper ones.")
    if estimate["new_since_audit"]:
        notes.append(
            f"{pluralize(estimate['new_since_audit'], 'tile')} came into the store after the audit "
            "and are in neither number."
        )
    sections: list[tuple[str, str, Table]] = [
        ("Results", " ".join(notes), results),
        ("Counts", "", counts),
    ]
    if audit:
        strata = [["stratum", "tiles", "audited", "yes", "unsure"]]
        for number, row in enumerate(audit["strata"], 1):
            keys = ("size", "audited", "yes", "unsure")
            strata.append([str(number), *(f"{row[key]:,}" for key in keys)])
        state = "complete" if audit["complete"] else f"not complete ({audit['state']})"
        sections.append(
            (
                "Audit",
                f"Audit {audit['number']}, {state}; seed {audit['seed']}, target half width "
                f"{audit['target']:.0%}, {pluralize(audit['pages'], 'page')}, "
                f"{audit['known']:,} positive tiles known before. Ranking {audit['ranking']}, "
                f"vector {audit['vector']}.",
                strata,
            )
        )
    formulas = [["quantity", "formula"], *([k, v] for k, v in estimate["formulas"].items())]
    sections.append(("Formulas", "", formulas))
    facts = [
        ["what", "value"],
        ["inventory", estimate["inventory"]],
        ["store", estimate["store"]],
        ["set hash", estimate["set_hash"]],
        ["model", estimate["model"]],
        ["texts", "; ".join(estimate["texts"]) or "none"],
        ["marsretrieval", __version__],
        *([f"audit: {k}", v] for k, v in (audit["versions"] if audit else {}).items()),
        ["written", datetime.now(UTC).isoformat(timespec="seconds")],
        ["command", command or f"marsretrieval inventory estimate {estimate['inventory']}"],
    ]
    sections.append(("Origin", "", facts))
    return sections


def _to_markdown(title: str, sentence: str, sections: Sequence[tuple[str, str, Table]]) -> str:
    lines = [f"# {title}", "", sentence, ""]
    for heading, text, table in sections:
        lines += [f"## {heading}", ""]
        if text:
            lines += [text, ""]
        cells = [[re.sub(r"([|\\`<>*_])", r"\\\1", cell) for cell in row] for row in table]
        lines += ["| " + " | ".join(cells[0]) + " |", "|" + "---|" * len(cells[0])]
        lines += ["| " + " | ".join(row) + " |" for row in cells[1:]]
        lines.append("")
    return "\n".join(lines)


def _to_html(title: str, sentence: str, sections: Sequence[tuple[str, str, Table]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>",
        "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;"
        "color:#222;background:#fff}table{border-collapse:collapse;margin:1rem 0}"
        "td,th{border:1px solid #bbb;padding:.25rem .6rem;text-align:left;"
        "overflow-wrap:anywhere}.result{font-size:1.15rem}"
        "@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}}",
        f'</style></head><body><h1>{escape(title)}</h1><p class="result">{escape(sentence)}</p>',
    ]
    for heading, text, table in sections:
        parts.append(f"<h2>{escape(heading)}</h2>")
        if text:
            parts.append(f"<p>{escape(text)}</p>")
        rows = "".join(row(cells, "td") for cells in table[1:])
        parts.append(f"<table><thead>{row(table[0], 'th')}</thead><tbody>{rows}</tbody></table>")
    return "\n".join([*parts, "</body></html>\n"])


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


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

    from marsretrieval.search.sheet import SHEET_FORMATS, check_sheet_path
    from marsretrieval.search.thumbnails import TileImages

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
        position = "position unknown"
        if tile["lon"] is not None and tile["lat"] is not None:
            position = f"{tile['lon']:.3f}, {tile['lat']:.3f}"
        caption = f"{number + 1}. {_shorten(str(tile['id']), font)}\n{position}"
        draw.multiline_text((x, y + _SIDE + 2), caption, fill=_TEXT, font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, SHEET_FORMATS[path.suffix.lower()])
    return problems


def _shorten(text: str, font: Any) -> str:
    """Shorten the middle of an id to the width of an image."""
    short, keep = text, len(text)
    while font.getlength(f"00. {short}") > _SIDE and keep > 8:
        keep -= 1
        short = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return short
