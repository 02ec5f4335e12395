"""A map of Mars, or of a part of it, on plain axes of longitude and latitude."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.files import atomic_path
from marsretrieval.geo import MARS_RADIUS_M, Box
from marsretrieval.maps._graticule import draw_graticule
from marsretrieval.maps._labels import Rect
from marsretrieval.maps._names import draw_features
from marsretrieval.maps._output import write_figure
from marsretrieval.maps._rectangles import rectangles
from marsretrieval.maps._sheet import Sheet, draw_title
from marsretrieval.maps._style import Style, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PLANET", "PlanetMap", "planet_map"]

Domain = Literal[180, 360]
Floats = npt.NDArray[np.float64]

PLANET = Box(-180.0, -90.0, 180.0, 90.0)


def planet_map(
    box: Box | None = None,
    *,
    lon: Domain = 180,
    style: str | Style = "light",
    width: float = 11.0,
    title: str | None = None,
    subtitle: str | None = None,
    axes: Axes | None = None,
) -> PlanetMap:
    """An empty map with its graticule, to be drawn on.

    box: what it shows, over the antimeridian too; the planet without one. lon: whether longitudes
    are called -180..180 (E and W) or 0..360, and where the map of the planet is cut. width:
    inches. axes: draw on these instead of on a figure of its own. A map of less than a half turn
    is stretched so that shapes at its middle latitude are true. Raises UsageError.
    """
    if lon not in (180, 360):
        raise UsageError(f"longitudes to {lon}", remedy="Use 180 or 360.")
    return PlanetMap(
        box or PLANET,
        domain=lon,
        style=style_of(style),
        width=width,
        title=title,
        subtitle=subtitle,
        axes=axes,
    )


class PlanetMap:
    """Draws on matplotlib axes whose x is longitude, unrolled from `west` to `east`, and whose y
    is latitude, degrees. Every method takes longitudes of either kind and returns the map or what
    it drew. `axes` and `figure` are there for whatever is missing."""

    def __init__(
        self,
        box: Box,
        *,
        domain: Domain,
        style: Style,
        width: float,
        title: str | None,
        subtitle: str | None,
        axes: Axes | None,
    ) -> None:
        self.box, self.domain, self.style = box, domain, style
        self.west = _start(box, domain)
        self.east = self.west + box.width
        self.south, self.north = box.south, box.north
        middle = math.radians(min(abs((self.south + self.north) / 2), 80.0))
        self.stretch = 1 / math.cos(middle) if box.width < 180 else 1.0
        self._taken: list[Rect] = []  # by marks and texts
        self._texts: list[Rect] = []
        self._sheet: Sheet | None = None
        if axes is None:
            ratio = box.height * self.stretch / box.width
            self._sheet = Sheet(width, ratio, style, titled=bool(title or subtitle))
            axes = self._sheet.axes
            axes.set_aspect(self.stretch)
        self.axes: Axes = axes
        self.figure = axes.figure
        axes.set_facecolor(style.ground)
        self._limits()
        draw_graticule(axes, box, self.west, domain, style)
        if title or subtitle:
            draw_title(axes, title, subtitle, style)

    def x(self, lon: npt.ArrayLike) -> Floats:
        """Longitudes as x of the axes: `west` <= x < `west` + 360."""
        values = np.asarray(lon, dtype=np.float64)
        turned: Floats = self.west + np.remainder(values - self.west, 360.0)
        return turned

    def shows(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of n positions lie on the map, (n,)."""
        return self.box.contains(lon, lat)

    def background(
        self,
        image: npt.ArrayLike,
        box: Box | None = None,
        *,
        alpha: float = 1.0,
        cmap: str = "gray",
    ) -> Self:
        """An image of Mars below everything: (rows, columns) or (rows, columns, 3 or 4), north
        up, equirectangular over `box` (the planet without one)."""
        self._image(np.asarray(image), box or PLANET, zorder=0, alpha=alpha, cmap=cmap)
        return self

    def raster(
        self,
        values: npt.ArrayLike,
        box: Box | None = None,
        *,
        vmin: float | None = None,
        vmax: float | None = None,
        cmap: str | None = None,
        alpha: float = 1.0,
    ) -> Any:
        """Numbers as colours: (rows, columns), north up, over `box`; NaN shows the ground.
        Returns what `colour_bar` takes."""
        array = np.ma.masked_invalid(np.asarray(values, dtype=np.float64))
        known = array.compressed()
        low = vmin if vmin is not None else float(known.min()) if known.size else 0.0
        high = vmax if vmax is not None else float(known.max()) if known.size else 1.0
        return self._image(
            array,
            box or PLANET,
            zorder=1,
            alpha=alpha,
            cmap=cmap or self.style.colours,
            vmin=low,
            vmax=high if high > low else low + 1e-9,
            interpolation="nearest",
        )

    def tiles(
        self,
        lon: npt.ArrayLike,
        lat: npt.ArrayLike,
        width_deg: npt.ArrayLike,
        height_deg: npt.ArrayLike,
        values: npt.ArrayLike | None = None,
        *,
        colour: str | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
        alpha: float = 0.9,
        outline: bool = False,
        label: str | None = None,
    ) -> Any:
        """Rectangles about n centres, each a colour of `values` or all `colour`; only their
        outlines with `outline`. Returns what `colour_bar` takes."""
        from matplotlib.collections import PolyCollection

        x, y, w, h = np.broadcast_arrays(
            *(
                np.atleast_1d(np.asarray(v, float))
                for v in (self.x(lon), lat, width_deg, height_deg)
            )
        )
        shapes, owner = rectangles(x, y, w, h, self.west, self.east)
        paint = colour or self.style.accent
        drawn = PolyCollection(
            list(shapes),
            closed=True,
            alpha=alpha,
            zorder=2,
            label=label,
            linewidths=0.7 if outline else 0.0,
            edgecolors=paint if outline else "none",
            facecolors="none" if outline else paint,
            antialiased=outline,
        )
        if values is not None:
            drawn.set_array(np.asarray(values, dtype=np.float64)[owner])
            drawn.set_cmap(self.style.colours)
            drawn.set_clim(vmin, vmax)
            if outline:
                drawn.set_facecolor("none")
        self.axes.add_collection(drawn, autolim=False)
        return drawn

    def points(
        self,
        lon: npt.ArrayLike,
        lat: npt.ArrayLike,
        values: npt.ArrayLike | None = None,
        *,
        colour: str | None = None,
        marker: str = "o",
        size: float = 22.0,
        alpha: float = 1.0,
        hollow: bool = False,
        label: str | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
    ) -> Any:
        """Marks at n positions; names drawn afterwards keep clear of them. size: area in square
        points. Returns what `colour_bar` takes."""
        x, y = self.x(lon).ravel(), np.asarray(lat, dtype=np.float64).ravel()
        seen = self.shows(x, y)
        paint: dict[str, Any] = {"color": colour or self.style.accent}
        if values is not None:
            shown = np.asarray(values, dtype=np.float64).ravel()[seen]
            paint = {"c": shown, "cmap": self.style.colours, "vmin": vmin, "vmax": vmax}
        elif hollow:
            paint = {"facecolors": "none", "edgecolors": colour or self.style.accent}
        if not hollow and marker not in "x+":
            paint["edgecolors"] = self.style.paper if values is None else self.style.ink
        if hollow:  # legible on any raster
            self.axes.scatter(
                x[seen], y[seen], s=size, marker=marker, alpha=0.8 * alpha, zorder=4.9,
                facecolors="none", edgecolors=self.style.paper, linewidths=2.4,
            )  # fmt: skip
        drawn = self.axes.scatter(
            x[seen], y[seen], s=size, marker=marker, alpha=alpha, zorder=5, label=label,
            linewidths=1.1 if hollow or marker in "x+" else 0.5, **paint,
        )  # fmt: skip
        side = math.sqrt(size) * self.figure.dpi / 72
        at = self.axes.transData.transform(np.column_stack([x[seen], y[seen]]))
        self._taken += [Rect.around(px, py, side, side) for px, py in at[:2000].tolist()]
        return drawn

    def mark_text(self, lon: float, lat: float, text: str, *, centred: bool = False) -> Self:
        """A word beside a mark, above right of it, or upon it; left out where there is no room."""
        if not self.shows(lon, lat)[0]:
            return self
        side = ("center", "center", (0, 0)) if centred else ("left", "baseline", (3.5, 3.0))
        written = self.axes.annotate(
            text, (float(self.x(lon)), lat), xytext=side[2], textcoords="offset points",
            ha=side[0], va=side[1], fontsize=self.style.font - 1, color=self.style.ink, zorder=8,
            path_effects=self.halo(),
        )  # fmt: skip
        extent = written.get_window_extent()
        if not centred and extent.x1 > self.axes.get_window_extent().x1:
            written.set(ha="right", position=(-side[2][0], side[2][1]))
            extent = written.get_window_extent()
        rect = Rect(extent.x0 - 3, extent.y0, extent.x1 + 3, extent.y1)
        if any(rect.overlaps(other) for other in self._texts):
            written.remove()
            return self
        self._texts.append(rect)
        self._taken.append(rect)
        return self

    def features(self, *, at_most: int = 60, smallest_km: float = 0.0) -> Self:
        """IAU names, the weightiest first (`Feature.weight`), where there is room; outlines of
        craters and volcanoes that are large enough to see."""
        self._taken += draw_features(self, self._taken, at_most, smallest_km)
        return self

    def colour_bar(self, drawn: Any, label: str) -> Self:
        """A colour bar on the right of the map."""
        if self._sheet is not None:
            bar = self.figure.colorbar(drawn, cax=self._sheet.beside())
        else:
            bar = self.figure.colorbar(drawn, ax=self.axes, shrink=0.8, pad=0.02)
        bar.set_label(label, color=self.style.ink, fontsize=self.style.font)
        bar.ax.tick_params(colors=self.style.ink, labelsize=self.style.font - 0.5, length=2)
        bar.outline.set_edgecolor(self.style.muted)
        bar.outline.set_linewidth(0.6)
        return self

    def legend(self) -> Self:
        """What was drawn with a label, in a line below the map."""
        handles, labels = self.axes.get_legend_handles_labels()
        if labels:
            if self._sheet is not None:
                self._sheet.below()
            drop = 0.34 / self._inches_high
            self.axes.legend(
                handles,
                labels,
                loc="upper left",
                bbox_to_anchor=(0.0, -drop),
                ncols=min(len(labels), 5),
                frameon=False,
                fontsize=self.style.font,
                labelcolor=self.style.ink,
                borderaxespad=0.0,
                borderpad=0.0,
                handletextpad=0.4,
            )
        return self

    def scale_bar(self) -> Self:
        """A length in kilometres, true at the middle latitude: for parts of the planet."""
        across = math.cos(math.radians((self.south + self.north) / 2))
        km_a_degree = MARS_RADIUS_M / 1000 * math.pi / 180 * across
        room = self.box.width * km_a_degree / 4
        power = 10.0 ** math.floor(math.log10(room))
        length = max(each * power for each in (1, 2, 5) if each * power <= room)
        span = length / km_a_degree / self.box.width
        left, low = 0.985 - span, 0.14 / self._inches_high
        colour, where = self.style.ink, self.axes.transAxes
        self.axes.plot(
            [left, left + span], [low, low], color=colour, lw=2, transform=where, zorder=7,
            solid_capstyle="butt",
        )  # fmt: skip
        written = self.axes.text(
            left + span / 2, low + 0.05 / self._inches_high, f"{length:g} km", color=colour,
            ha="center", va="bottom", fontsize=self.style.font, transform=where, zorder=7,
            path_effects=self.halo(),
        )  # fmt: skip
        edges = self.axes.transAxes.transform([[left - 0.01, 0], [left + span + 0.01, low]])
        top = written.get_window_extent().y1
        self._taken.append(Rect(edges[0][0], edges[0][1], edges[1][0], top))
        return self

    def save(self, path: Path, *, dpi: float = 160, transparent: bool = False) -> None:
        """Write a .png, .svg or .pdf file. Raises UsageError for another name, OutputError."""
        kind = path.suffix.lower().removeprefix(".")
        if kind not in ("png", "svg", "pdf"):
            raise UsageError(f"{path}: no picture", remedy="Use a name in .png, .svg or .pdf.")
        with atomic_path(path) as temporary:
            write_figure(self.figure, temporary, kind, self._paper(transparent), dpi=dpi)

    def svg(self, *, transparent: bool = True) -> str:
        """The map as an <svg> element to be put into a page; its text stays text."""
        buffer = io.StringIO()
        write_figure(self.figure, buffer, "svg", self._paper(transparent))
        text = buffer.getvalue()
        return text[text.index("<svg") :]

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        buffer = io.BytesIO()
        write_figure(self.figure, buffer, "png", self._paper(False), dpi=100)
        return buffer.getvalue()

    def halo(self) -> list[Any]:
        """Path effects that keep a text legible on whatever is below it."""
        from matplotlib.patheffects import withStroke

        return [withStroke(linewidth=2.2, foreground=self.style.ground, alpha=0.85)]

    def _paper(self, transparent: bool) -> str:
        return "none" if transparent else self.style.paper

    def _image(self, array: npt.NDArray[Any], box: Box, **options: Any) -> Any:
        drawn: Any = None
        for turn in (-720.0, -360.0, 0.0, 360.0):
            west, east = box.west + turn, box.west + turn + box.width
            if east > self.west and west < self.east:
                drawn = self.axes.imshow(
                    array,
                    extent=(west, east, box.south, box.north),
                    origin="upper",
                    aspect=self.axes.get_aspect(),
                    **options,
                )
        if drawn is None:
            from matplotlib.cm import ScalarMappable

            drawn = ScalarMappable(cmap=options.get("cmap"))
        self._limits()
        return drawn

    def _limits(self) -> None:
        self.axes.set_xlim(self.west, self.east)
        self.axes.set_ylim(self.south, self.north)

    @property
    def pixels_a_degree(self) -> float:
        """Of longitude, on a picture of 100 dots an inch."""
        inches = float(self.axes.get_window_extent().width) / float(self.figure.dpi)
        return 100 * inches / self.box.width

    @property
    def _inches_high(self) -> float:
        return float(self.axes.get_window_extent().height) / float(self.figure.dpi)


def _start(box: Box, domain: Domain) -> float:
    """West edge in the domain's range; a box of all longitudes starts at the domain's seam."""
    if box.width >= 360:
        return -180.0 if domain == 180 else 0.0
    low = -180.0 if domain == 180 else 0.0
    return low + (box.west - low) % 360.0
