"""The sheet that a map is drawn on: axes of fixed size, and room around them in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.maps._style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Sheet", "draw_title"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.22, 0.2, 0.38
_TITLE, _BAR, _LEGEND = 0.42, 0.95, 0.3
_HIGHEST = 10.0  # of the axes


class Sheet:
    """Grows when something is put beside or below the map, whose own size stays as it is."""

    def __init__(self, width: float, ratio: float, style: Style, *, titled: bool) -> None:
        from matplotlib.figure import Figure

        room = width - _LEFT - _RIGHT
        shrink = min(1.0, _HIGHEST / (room * ratio))
        self._inches = (room * shrink, room * ratio * shrink)
        self._top = _TOP + (_TITLE if titled else 0.0)
        self._right, self._bottom = _RIGHT, _BOTTOM
        self._bar: Axes | None = None
        self.figure = Figure(dpi=100, facecolor=style.paper)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self._lay_out()

    def beside(self) -> Axes:
        """Axes for a colour bar on the right."""
        if self._bar is None:
            self._bar = self.figure.add_axes((0, 0, 1, 1))
            self._right = _RIGHT + _BAR
            self._lay_out()
        return self._bar

    def below(self) -> None:
        """Room for a legend."""
        self._bottom = _BOTTOM + _LEGEND
        self._lay_out()

    def _lay_out(self) -> None:
        wide, high = self._inches
        width, height = _LEFT + wide + self._right, self._top + high + self._bottom
        self.figure.set_size_inches(width, height)
        self.axes.set_position((_LEFT / width, self._bottom / height, wide / width, high / height))
        if self._bar is not None:
            tall = min(high, 4.0)
            low = self._bottom + (high - tall) / 2
            left = _LEFT + wide + 0.16
            self._bar.set_position((left / width, low / height, 0.14 / width, tall / height))


def draw_title(axes: Axes, title: str | None, subtitle: str | None, style: Style) -> None:
    inch = float(axes.figure.dpi) / float(axes.get_window_extent().height)
    if subtitle:
        axes.text(
            0, 1 + 0.09 * inch, subtitle, transform=axes.transAxes, ha="left", va="bottom",
            color=style.muted, fontsize=style.font,
        )  # fmt: skip
    if title:
        axes.text(
            0, 1 + (0.27 if subtitle else 0.1) * inch, title, transform=axes.transAxes,
            ha="left", va="bottom", color=style.ink, fontsize=style.font + 4, fontweight="bold",
        )  # fmt: skip
