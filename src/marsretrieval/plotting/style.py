"""Map styles, light and dark, and figures as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.geo import Box, wrap_lon
from marsretrieval.plotting.projection import MapFrame
from marsretrieval.text import printable

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


PLANET = Box(-180.0, -90.0, 180.0, 90.0)

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.22, 0.2, 0.38  # margins around the axes, inches
_TITLE, _COLOUR_BAR, _LEGEND = 0.42, 0.95, 0.3  # inches
_TALLEST = 10.0  # inches
_WHOLE_DEG = 120.0  # positions spread wider than this show the planet
_MARGIN, _SMALLEST_DEG = 0.12, 2.0
_SLIMMEST = 0.45  # height by width, and width by height


class Layout:
    """A figure that grows with a colour bar or legend, while the map keeps its size."""

    def __init__(
        self, width: float, ratio: float, frame: MapFrame, style: Style, *, titled: bool
    ) -> None:
        from matplotlib.figure import Figure

        room = width - _LEFT - _RIGHT
        shrink = min(1.0, _TALLEST / (room * ratio))
        self._inches = (room * shrink, room * ratio * shrink)
        around = 0.25 if frame.polar else 0.0  # labels stand on all sides
        self._top = _TOP + around + (_TITLE if titled else 0.0)
        self._right, self._bottom = _RIGHT + 2 * around, _BOTTOM + around
        self._bar: Any = None
        self.figure = Figure(dpi=100, facecolor=style.paper)
        self.axes = self.figure.add_axes((0, 0, 1, 1), projection=frame.projection)
        self._arrange()

    def colour_bar_axes(self) -> Any:
        """Return axes on the right of the map, with room made for them."""
        if self._bar is None:
            self._bar = self.figure.add_axes((0, 0, 1, 1))
            self._right += _COLOUR_BAR
            self._arrange()
        return self._bar

    def add_legend_row(self) -> None:
        """Make room below the map."""
        self._bottom += _LEGEND
        self._arrange()

    def _arrange(self) -> None:
        wide, high = self._inches
        width, height = _LEFT + wide + self._right, self._top + high + self._bottom
        self.figure.set_size_inches(width, height)
        self.axes.set_position((_LEFT / width, self._bottom / height, wide / width, high / height))
        if self._bar is not None:
            tall = min(high, 4.0)
            low = self._bottom + (high - tall) / 2
            left = width - _COLOUR_BAR - 0.06
            self._bar.set_position((left / width, low / height, 0.14 / width, tall / height))


def window(
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    *,
    least_deg: float = _SMALLEST_DEG,
    margin: float = _MARGIN,
) -> Box:
    """Choose what a map of positions should show.

    Args:
        lon: Longitudes, degrees; unknown positions (NaN) do not count.
        lat: Latitudes, degrees.
        least_deg: Smallest height of the box, degrees.
        margin: Room on each side, as a share of the extent.

    Returns:
        A box around all positions, over the antimeridian where that is the shorter way; the cap
        of a pole where positions near it lie on all sides; the planet where they are spread
        widely or there are none.
    """
    x = np.asarray(lon, dtype=np.float64).ravel()
    y = np.asarray(lat, dtype=np.float64).ravel()
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return PLANET
    turned = np.unique(np.remainder(x[known], 360.0))
    gaps = np.diff(np.append(turned, turned[0] + 360.0))
    widest = int(np.argmax(gaps))
    west = float(turned[(widest + 1) % len(turned)])
    width = 360.0 - float(gaps[widest])
    south, north = float(y[known].min()), float(y[known].max())
    if width > _WHOLE_DEG and (south >= 50 or north <= -50):
        room = max(margin * (north - south), 1.0)
        if south >= 50:
            return Box(-180.0, south - room, 180.0, 90.0)
        return Box(-180.0, -90.0, 180.0, north + room)
    if width > _WHOLE_DEG or north - south > _WHOLE_DEG:
        return PLANET
    shrink = float(np.cos(np.radians(min(abs(south + north) / 2, 80.0))))
    wide = max(width * (1 + 2 * margin), least_deg / shrink)
    high = max((north - south) * (1 + 2 * margin), least_deg)
    # A degree of longitude is shorter than one of latitude by the cosine.
    high = max(high, _SLIMMEST * wide * shrink)
    wide = min(max(wide, _SLIMMEST * high / shrink), 359.0)
    middle = west + width / 2
    low = max(-90.0, min((south + north) / 2 - high / 2, 90.0 - high))
    return Box(
        float(wrap_lon(middle - wide / 2)),
        low,
        float(wrap_lon(middle + wide / 2)),
        min(90.0, low + high),
    )
