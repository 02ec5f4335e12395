"""Map styles, light and dark, and figures as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marsretrieval._words import printable
from marsretrieval.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


@dataclass(frozen=True, slots=True)
class Style:
    """Colours and sizes of a map. ramp: matplotlib's name of the colours of numbers and the parts
    of it in use, from what is just visible on `ground` to what stands out."""

    name: str
    paper: str  # around the map
    ground: str  # Mars where nothing is drawn
    ink: str
    muted: str
    landscape: str  # names of plains and highlands
    grid: str
    accent: str
    second: str
    ramp: tuple[str, float, float]
    font: float = 8.0  # points

    @property
    def colours(self) -> Colormap:
        """Of numbers, from low to high."""
        from matplotlib import colormaps
        from matplotlib.colors import LinearSegmentedColormap

        name, low, high = self.ramp
        steps = [low + (high - low) * step / 255 for step in range(256)]
        return LinearSegmentedColormap.from_list(f"{name} of {self.name}", colormaps[name](steps))


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
    ramp=("YlOrBr", 0.08, 1.0),
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
    ramp=("inferno", 0.2, 0.98),
)


def style_of(style: str | Style) -> Style:
    """The style of this name, light or dark. Raises UsageError for another."""
    if isinstance(style, str):
        found = {each.name: each for each in (LIGHT, DARK)}.get(style)
        if found is None:
            raise UsageError(f"unknown style '{style}'", remedy="Use light or dark.")
        style = found
    return style


def write_figure(figure: Any, target: Any, kind: str, paper: str, *, dpi: float = 72) -> None:
    """Write a matplotlib figure as png, svg or pdf, with the same bytes on every call.

    Args:
        figure: The figure.
        target: Path or binary buffer (text buffer for svg).
        kind: png, svg or pdf.
        paper: Colour behind the axes; "none" is transparent.
        dpi: Resolution of a png.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # names from data: no formulas, no control characters
        text.set_parse_math(False)
        if not text.get_text().isprintable():
            text.set_text(printable(text.get_text()))
    settings = {"svg.hashsalt": "marsretrieval", "svg.fonttype": "none"}
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with rc_context(settings), _without_halos(figure) if kind == "svg" else nullcontext():
        figure.savefig(target, format=kind, dpi=dpi, metadata=metadata, facecolor=paper)


@contextmanager
def _without_halos(figure: Any) -> Iterator[None]:
    """Remove path effects while writing: matplotlib would turn the texts into outlines."""
    texts = [text for axes in figure.axes for text in axes.texts]
    effects = [text.get_path_effects() for text in texts]
    try:
        for text in texts:
            text.set_path_effects([])
        yield
    finally:
        for text, effect in zip(texts, effects, strict=True):
            text.set_path_effects(effect)
