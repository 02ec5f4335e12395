"""Map styles, figure layout and figure files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.geo import Box, wrap_lon
from marsretrieval.plotting.images import VIKING, check_basemap
from marsretrieval.plotting.projection import MapFrame
from marsretrieval.text import printable

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

PLANET = Box(-180.0, -90.0, 180.0, 90.0)

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.22, 0.2, 0.38  # margins around the axes, inches
_TITLE, _COLOUR_BAR, _LEGEND = 0.42, 0.95, 0.3  # inches
_MAX_HEIGHT = 10.0  # inches
_WHOLE_DEG = 120.0  # positions spread wider than this get a global map
_MARGIN, _MIN_DEG = 0.12, 2.0
_MIN_RATIO = 0.45  # smallest ratio of height to width and of width to height


@dataclass(frozen=True, slots=True)
class Style:
    """Colours and sizes of a map.

    Attributes:
        name: Name of the style.
        paper: Background around the map.
        ground: Background of the map.
        ink: Text and outlines.
        muted: Secondary text and frames.
        landscape: Names of plains and highlands.
        grid: Graticule.
        accent: Default colour of marks.
        second: Colour of a second kind of marks.
        ramp: Matplotlib colour map and the range of it in use, from barely visible on `ground` to
            most prominent.
        terrain: Colours of the darkest and the brightest pixel of the base map.
        font: Font size in points.
        basemap: Image below wide maps of searches: `viking` (in the package), `none`, or a file.
    """

    name: str
    paper: str  # around the map
    ground: str  # empty map area
    ink: str
    muted: str
    landscape: str  # names of plains and highlands
    grid: str
    accent: str
    second: str
    ramp: tuple[str, float, float]
    terrain: tuple[str, str]
    font: float = 8.0  # points
    basemap: str = VIKING

    @property
    def colours(self) -> Colormap:
        """Colour map for numbers, from low to high."""
        from matplotlib import colormaps
        from matplotlib.colors import LinearSegmentedColormap

        name, low, high = self.ramp
        steps = [low + (high - low) * step / 255 for step in range(256)]
        return LinearSegmentedColormap.from_list(f"{name} of {self.name}", colormaps[name](steps))

    @property
    def terrain_colours(self) -> Colormap:
        """Colour map of the base map."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list(f"terrain of {self.name}", list(self.terrain))


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
    terrain=("#aaa39c", "#ffffff"),
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
    terrain=("#050403", "#5c544d"),
)


def style_of(style: str | Style) -> Style:
    """Return a style by name.

    Args:
        style: `light`, `dark`, or a style.

    Returns:
        The style.

    Raises:
        UsageError: If the name is unknown.
    """
    if isinstance(style, str):
        match = {known_style.name: known_style for known_style in (LIGHT, DARK)}.get(style)
        if match is None:
            raise UsageError(f"unknown style '{style}'", remedy="Use light or dark.")
        style = match
    if not isinstance(style, Style):
        raise UsageError(f"style is {style!r}", remedy="Use light, dark or a plotting.Style.")
    return style


def map_style(style: str | Style, basemap: str = VIKING) -> Style:
    """Return a style with a base map.

    Args:
        style: `light`, `dark`, or a style.
        basemap: `viking`, `none`, or an image file that covers -180..180, 90..-90 degrees.

    Returns:
        The style.

    Raises:
        UsageError: If the style is unknown, or the image is not twice as wide as high.
        DataError: If the image is missing or not readable.
    """
    check_basemap(basemap)
    return replace(style_of(style), basemap=basemap)


def write_figure(
    figure: Any,
    target: Any,
    kind: str,
    paper: str,
    *,
    dpi: float = 72,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a matplotlib figure as png, svg or pdf, with the same bytes on every call.

    Args:
        figure: The figure.
        target: Path or binary buffer (text buffer for svg).
        kind: png, svg or pdf.
        paper: Colour behind the axes; "none" is transparent.
        dpi: Resolution of a png.
        metadata: Metadata of the file, as of `savefig`.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # names from data: no formulas, no control characters
        text.set_parse_math(False)
        if not text.get_text().isprintable():
            text.set_text(printable(text.get_text()))
    settings = {"svg.hashsalt": "marsretrieval", "svg.fonttype": "none"}
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    entries = {**undated, **(metadata or {})}
    with rc_context(settings), _without_halos(figure) if kind == "svg" else nullcontext():
        figure.savefig(target, format=kind, dpi=dpi, metadata=entries, facecolor=paper)


@contextmanager
def _without_halos(figure: Any) -> Iterator[None]:
    """Remove path effects while writing, which would make matplotlib convert text to outlines."""
    texts = [text for axes in figure.axes for text in axes.texts]
    effects = [text.get_path_effects() for text in texts]
    try:
        for text in texts:
            text.set_path_effects([])
        yield
    finally:
        for text, effect in zip(texts, effects, strict=True):
            text.set_path_effects(effect)


class Layout:
    """Figure layout that grows with a colour bar or legend while the map keeps its size.

    Args:
        width: Width of the figure without colour bar, inches.
        ratio: Height of the map divided by its width.
        frame: Projection and extent.
        style: Colours and sizes.
        titled: Whether to reserve space for a title.
    """

    def __init__(
        self, width: float, ratio: float, frame: MapFrame, style: Style, *, titled: bool
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        available = width - _LEFT - _RIGHT
        shrink = min(1.0, _MAX_HEIGHT / (available * ratio))
        self._inches = (available * shrink, available * ratio * shrink)
        around = 0.25 if frame.polar else 0.0  # labels on all sides
        self._top = _TOP + around + (_TITLE if titled else 0.0)
        self._right, self._bottom = _RIGHT + 2 * around, _BOTTOM + around
        self._bar: Any = None
        self.figure = Figure(dpi=100, facecolor=style.paper)
        # With the base canvas, matplotlib makes a renderer for every text that it measures.
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1), projection=frame.projection)
        self._arrange()

    def colour_bar_axes(self) -> Any:
        """Return axes on the right of the map, enlarging the figure for them."""
        if self._bar is None:
            self._bar = self.figure.add_axes((0, 0, 1, 1))
            self._right += _COLOUR_BAR
            self._arrange()
        return self._bar

    def add_legend_row(self) -> None:
        """Enlarge the figure below the map."""
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
    least_deg: float = _MIN_DEG,
    margin: float = _MARGIN,
) -> Box:
    """Choose the area of a map that shows given positions.

    Args:
        lon: Longitudes in degrees; NaN is ignored.
        lat: Latitudes in degrees.
        least_deg: Smallest height of the box, degrees.
        margin: Margin on each side, as a share of the extent.

    Returns:
        A box around all positions, across the antimeridian if that is shorter; a polar cap if
        positions near a pole lie on all sides; the planet if they are spread widely or missing.
    """
    x = np.asarray(lon, dtype=np.float64).ravel()
    y = np.asarray(lat, dtype=np.float64).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return PLANET
    turned = np.unique(np.remainder(x[finite], 360.0))
    gaps = np.diff(np.append(turned, turned[0] + 360.0))
    widest = int(np.argmax(gaps))
    west = float(turned[(widest + 1) % len(turned)])
    width = 360.0 - float(gaps[widest])
    south, north = float(y[finite].min()), float(y[finite].max())
    if width > _WHOLE_DEG and (south >= 50 or north <= -50):
        margin_deg = max(margin * (north - south), 1.0)
        if south >= 50:
            return Box(-180.0, south - margin_deg, 180.0, 90.0)
        return Box(-180.0, -90.0, 180.0, north + margin_deg)
    if width > _WHOLE_DEG or north - south > _WHOLE_DEG:
        return PLANET
    shrink = float(np.cos(np.radians(min(abs(south + north) / 2, 80.0))))
    wide = max(width * (1 + 2 * margin), least_deg / shrink)
    high = max((north - south) * (1 + 2 * margin), least_deg)
    # A degree of longitude is shorter than one of latitude by the cosine.
    high = max(high, _MIN_RATIO * wide * shrink)
    wide = min(max(wide, _MIN_RATIO * high / shrink), 359.0)
    middle = west + width / 2
    low = max(-90.0, min((south + north) / 2 - high / 2, 90.0 - high))
    return Box(
        float(wrap_lon(middle - wide / 2)),
        low,
        float(wrap_lon(middle + wide / 2)),
        min(90.0, low + high),
    )
