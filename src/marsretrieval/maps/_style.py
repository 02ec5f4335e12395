"""How maps look: two styles, light and dark."""

from __future__ import annotations

from dataclasses import dataclass, replace

from marsretrieval.errors import UsageError

__all__ = ["DARK", "LIGHT", "Style", "style_of"]


@dataclass(frozen=True, slots=True)
class Style:
    """Colours and sizes of a map. cmap: matplotlib's name, pale to strong on `ground`."""

    name: str
    paper: str  # around the map
    ground: str  # Mars where nothing is drawn
    ink: str
    muted: str
    landscape: str  # names of plains and highlands
    grid: str
    accent: str
    second: str
    cmap: str
    font: float = 8.0  # points


LIGHT = Style(
    name="light",
    paper="#ffffff",
    ground="#f1eeea",
    ink="#2a2320",
    muted="#7b7069",
    landscape="#6a5f58",
    grid="#d3cbc4",
    accent="#b3361b",
    second="#1d5f8a",
    cmap="YlOrBr",
)

DARK = Style(
    name="dark",
    paper="#16130f",
    ground="#211c18",
    ink="#f0e9e2",
    muted="#a2968c",
    landscape="#c4b8ad",
    grid="#453c35",
    accent="#ff7f50",
    second="#6fb7e6",
    cmap="inferno",
)


def style_of(style: str | Style, *, font: float | None = None) -> Style:
    """The style of this name, light or dark. Raises UsageError for another."""
    if isinstance(style, str):
        found = {each.name: each for each in (LIGHT, DARK)}.get(style)
        if found is None:
            raise UsageError(f"unknown style '{style}'", remedy="Use light or dark.")
        style = found
    return style if font is None else replace(style, font=font)
