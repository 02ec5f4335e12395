"""Maps of Mars or of a part of it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.geo import Box
from marsretrieval.io import atomic_path
from marsretrieval.plotting import images
from marsretrieval.plotting.features import (
    Rect,
    draw_feature_names,
    draw_graticule,
    draw_scale_bar,
)
from marsretrieval.plotting.images import CREDIT, VIKING, VIKING_LEVELS
from marsretrieval.plotting.projection import MapFrame, map_frame, west_edge
from marsretrieval.plotting.style import PLANET, Layout, Style, style_of, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

Domain = Literal[180, 360]
Floats = npt.NDArray[np.float64]

_RASTER_PIXELS = 1600  # across a map, of rasters and backgrounds


def planet_map(
    box: Box | None = None,
    *,
    lon: Domain = 180,
    style: str | Style = "light",
    width: float = 11.0,
    title: str | None = None,
    subtitle: str | None = None,
    axes: Axes | None = None,
    graticule: bool = True,
) -> PlanetMap:
    """Make an empty map with its graticule.

    Args:
        box: Area of the map, which may cross the antimeridian; the planet by default. A box near a
            pole gets a polar stereographic projection, any other an equirectangular one that is
            true to shape at its middle latitude.
        lon: Longitudes are labelled -180..180 (W and E) or 0..360 (E), and the map of the planet
            begins at 180 W or at 0.
        style: light, dark, or a `Style`.
        width: Width of the figure, inches.
        title: First line above the map.
        subtitle: Second line above the map.
        axes: Matplotlib axes to replace with the map.
        graticule: Draw lines of longitude and latitude.

    Returns:
        The map.

    Raises:
        UsageError: `lon` or `style` is invalid.
        MissingDependencyError: cartopy is not installed (extra `gis`).
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
        graticule=graticule,
    )


class PlanetMap:
    """A map on cartopy axes.

    Attributes:
        axes: The axes, with coordinates of `frame`.
        figure: The figure.
        frame: Projection and extent; `frame.project` converts positions to coordinates.
        box: The requested area.
        style: Colours and sizes.
    """

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
        graticule: bool,
    ) -> None:
        self.box, self.domain, self.style = box, domain, style
        self.frame: MapFrame = map_frame(box, west_edge(box, domain))
        self.stretch = 1.0
        if not self.frame.polar and box.width < 180:
            middle = min(abs((box.south + box.north) / 2), 80.0)
            self.stretch = 1 / math.cos(math.radians(middle))
        self._occupied: list[Rect] = []  # rectangles of marks and texts
        self._texts: list[Rect] = []
        self._layout: Layout | None = None
        if axes is None:
            ratio = self.frame.height * self.stretch / self.frame.width
            self._layout = Layout(width, ratio, self.frame, style, titled=bool(title or subtitle))
            self.axes: Any = self._layout.axes
        else:
            figure: Any = axes.figure
            position = axes.get_position()
            axes.remove()
            self.axes = figure.add_axes(position, projection=self.frame.projection)
        self.figure = self.axes.figure
        self.axes.set_aspect(self.stretch)
        self.axes.set_facecolor(style.ground)
        self._set_extent()
        if graticule:
            draw_graticule(self, box, domain, self.stretch)
        self._draw_title(title, subtitle)

    def shows(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which positions lie on the map.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,).
        """
        return self.frame.contains(lon, lat)

    def background(
        self,
        image: npt.ArrayLike,
        box: Box | None = None,
        *,
        alpha: float = 1.0,
        cmap: str | Colormap = "gray",
        limits: tuple[float | None, float | None] = (None, None),
    ) -> Self:
        """Draw an image of Mars below everything else.

        Args:
            image: Shape (rows, columns) or (rows, columns, 3 or 4), north up, equirectangular.
            box: What the image covers; the planet by default.
            alpha: Opacity.
            cmap: Colour map of a single-band image.
            limits: Its values at the ends of the colour map.

        Returns:
            The map.
        """
        options: dict[str, Any] = {"alpha": alpha, "cmap": cmap, "zorder": 0}
        options |= {"vmin": limits[0], "vmax": limits[1]}
        self._draw_image(np.asarray(image), box or PLANET, smooth=True, **options)
        return self

    def terrain(self) -> Self:
        """Draw the base map of the style, if it has enough pixels for this map, and its credit.

        Returns:
            The map.

        Raises:
            DataError: If the image cannot be decoded.
        """
        image = None if self.style.basemap == "none" else images.read_basemap(self.style.basemap)
        if image is None or not images.is_fine_enough(image.shape[1], self.box):
            return self
        if self.style.basemap != VIKING:
            return self.background(image)
        self.axes.text(
            0.006, 0.05 / self._inches_high, CREDIT, transform=self.axes.transAxes, ha="left",
            va="bottom", fontsize=5.5, color=self.style.landscape, zorder=7,
            path_effects=self.halo(),
        )  # fmt: skip
        return self.background(image, cmap=self.style.terrain_colours, limits=VIKING_LEVELS)

    def raster(
        self,
        values: npt.ArrayLike,
        box: Box | None = None,
        *,
        vmin: float | None = None,
        vmax: float | None = None,
        cmap: str | None = None,
        alpha: float = 1.0,
        grow_to: int = 1,
    ) -> Any:
        """Draw numbers as colours; a pixel of the map shows the highest value within it.

        Args:
            values: Shape (rows, columns), north up, equirectangular; NaN is transparent.
            box: What the raster covers; the planet by default.
            vmin: Lowest value of the colour scale.
            vmax: Highest value of the colour scale.
            cmap: Colour map; that of the style by default.
            alpha: Opacity.
            grow_to: Smallest size of a single value in pixels of the map, odd.

        Returns:
            An artist for `colour_bar`.
        """
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            array = array.astype(np.float64)
        finite = array[np.isfinite(array)]
        low = vmin if vmin is not None else float(finite.min()) if finite.size else 0.0
        high = vmax if vmax is not None else float(finite.max()) if finite.size else 1.0
        return self._draw_image(
            array,
            box or PLANET,
            smooth=False,
            grow_to=grow_to,
            zorder=1,
            alpha=alpha,
            cmap=cmap or self.style.colours,
            vmin=low,
            vmax=high if high > low else low + 1e-9,
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
        """Draw rectangles of longitude and latitude.

        Args:
            lon: Longitudes of n centres, degrees.
            lat: Latitudes of n centres, degrees.
            width_deg: Extent in longitude.
            height_deg: Extent in latitude.
            values: n numbers that give the colours.
            colour: One colour for all, without `values`.
            vmin: Lowest value of the colour scale.
            vmax: Highest value of the colour scale.
            alpha: Opacity.
            outline: Draw only the outlines.
            label: Text of the legend.

        Returns:
            An artist for `colour_bar`.
        """
        from matplotlib.collections import PolyCollection

        columns = (np.atleast_1d(np.asarray(v, float)) for v in (lon, lat, width_deg, height_deg))
        shapes, owner = self._outlines(*np.broadcast_arrays(*columns))
        paint = colour or self.style.accent
        artist = PolyCollection(
            shapes,
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
            artist.set_array(np.asarray(values, dtype=np.float64)[owner])
            artist.set_cmap(self.style.colours)
            artist.set_clim(vmin, vmax)
            if outline:
                artist.set_facecolor("none")
        self.axes.add_collection(artist, autolim=False)
        return artist

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
        edge: float = 0.5,
        label: str | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
    ) -> Any:
        """Draw marks; names drawn later do not overlap them.

        Args:
            lon: n longitudes, degrees.
            lat: n latitudes, degrees.
            values: n numbers that give the colours.
            colour: One colour for all, without `values`.
            marker: Matplotlib marker.
            size: Area of a mark, square points.
            alpha: Opacity.
            hollow: Draw rings.
            edge: Width of the line around a filled mark, points.
            label: Text of the legend.
            vmin: Lowest value of the colour scale.
            vmax: Highest value of the colour scale.

        Returns:
            An artist for `colour_bar`.
        """
        lons, lats = np.broadcast_arrays(np.asarray(lon, float), np.asarray(lat, float))
        inside = self.shows(lons.ravel(), lats.ravel())
        x, y = self.frame.project(lons.ravel()[inside], lats.ravel()[inside])
        colours: dict[str, Any] = {"color": colour or self.style.accent}
        if values is not None:
            inside_values = np.asarray(values, dtype=np.float64).ravel()[inside]
            colours = {"c": inside_values, "cmap": self.style.colours, "vmin": vmin, "vmax": vmax}
        elif hollow:
            colours = {"facecolors": "none", "edgecolors": colour or self.style.accent}
        if not hollow and marker not in "x+":
            colours["edgecolors"] = self.style.paper if values is None else self.style.ink
        if hollow:  # legible on any raster
            self.axes.scatter(
                x, y, s=size, marker=marker, alpha=0.8 * alpha, zorder=4.9, facecolors="none",
                edgecolors=self.style.paper, linewidths=2.0,
            )  # fmt: skip
        artist = self.axes.scatter(
            x, y, s=size, marker=marker, alpha=alpha, zorder=5, label=label,
            linewidths=1.1 if hollow or marker in "x+" else edge, **colours,
        )  # fmt: skip
        self._set_extent()
        side = math.sqrt(size) * self.figure.dpi / 72
        pixels = self.axes.transData.transform(np.column_stack([x, y]))
        self._occupied += [Rect.around(px, py, side, side) for px, py in pixels[:2000].tolist()]
        return artist

    def mark_text(self, lon: float, lat: float, text: str, *, centred: bool = False) -> Self:
        """Write a short text at a position unless it would overlap another.

        Args:
            lon: Longitude in degrees.
            lat: Latitude in degrees.
            text: The text.
            centred: Centre the text on the position instead of placing it above right.

        Returns:
            The map.
        """
        if not self.shows(lon, lat)[0]:
            return self
        side = ("center", "center", (0, 0)) if centred else ("left", "baseline", (3.5, 3.0))
        x, y = self.frame.project(lon, lat)
        written = self.axes.annotate(
            text, (float(x), float(y)), xytext=side[2], textcoords="offset points",
            ha=side[0], va=side[1], fontsize=self.style.font - 1, color=self.style.ink, zorder=8,
            path_effects=self.halo(), parse_math=False,
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
        self._occupied.append(rect)
        return self

    def features(self, *, at_most: int = 60, smallest_km: float = 0.0) -> Self:
        """Draw IAU names and outlines in order of weight, skipping names that would overlap.

        Args:
            at_most: Largest number of names.
            smallest_km: Smallest diameter of a named feature.

        Returns:
            The map.
        """
        self._occupied += draw_feature_names(self, self._occupied, at_most, smallest_km)
        return self

    def colour_bar(self, artist: Any, label: str) -> Self:
        """Draw a colour bar on the right of the map.

        Args:
            artist: Result of `raster`, `tiles` or `points`.
            label: Title of the colour bar.

        Returns:
            The map.
        """
        if self._layout is not None:
            bar = self.figure.colorbar(artist, cax=self._layout.colour_bar_axes())
        else:
            bar = self.figure.colorbar(artist, ax=self.axes, shrink=0.8, pad=0.02)
        bar.set_label(label, color=self.style.ink, fontsize=self.style.font, parse_math=False)
        bar.ax.tick_params(colors=self.style.ink, labelsize=self.style.font - 0.5, length=2)
        bar.outline.set_edgecolor(self.style.muted)
        bar.outline.set_linewidth(0.6)
        return self

    def legend(self) -> Self:
        """Draw a legend of everything with a label, below the map."""
        handles, labels = self.axes.get_legend_handles_labels()
        if labels:
            if self._layout is not None:
                self._layout.add_legend_row()
            drop = 0.34 / self._inches_high
            legend = self.axes.legend(
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
            for text in legend.get_texts():
                text.set_parse_math(False)
        return self

    def scale_bar(self) -> Self:
        """Draw a scale bar in kilometres, true at the middle of the map.

        Returns:
            The map.
        """
        self._occupied.append(draw_scale_bar(self))
        return self

    def save(
        self,
        path: str | Path,
        *,
        dpi: float = 160,
        transparent: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the map to a file.

        Args:
            path: A name in .png, .svg or .pdf.
            dpi: Resolution of a .png.
            transparent: Leave out the background around the map.
            metadata: Metadata of the file, as of matplotlib's `savefig`.

        Raises:
            UsageError: The name has another ending.
            OutputError: The file cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind not in ("png", "svg", "pdf"):
            raise UsageError(
                f"{path}: unknown map format", remedy="Use a name in .png, .svg or .pdf."
            )
        with atomic_path(path) as temporary:
            paper = self._paper(transparent)
            write_figure(self.figure, temporary, kind, paper, dpi=dpi, metadata=metadata)

    def svg(self, *, transparent: bool = True) -> str:
        """Return the map as an <svg> element with text kept as text.

        Args:
            transparent: Leave out the background around the map.

        Returns:
            The element.
        """
        write_figure(self.figure, buffer := io.StringIO(), "svg", self._paper(transparent))
        text = buffer.getvalue()
        return text[text.index("<svg") :]

    def _repr_png_(self) -> bytes:
        """Show the map in a notebook."""
        write_figure(self.figure, buffer := io.BytesIO(), "png", self._paper(False), dpi=100)
        return buffer.getvalue()

    def halo(self) -> list[Any]:
        """Return path effects that keep a text legible on any background."""
        from matplotlib.patheffects import withStroke

        return [withStroke(linewidth=2.2, foreground=self.style.ground, alpha=0.85)]

    def pixels_per_degree(self, lat: float) -> float:
        """Return the width of a degree of longitude at 100 dots per inch.

        Args:
            lat: Latitude in degrees.

        Returns:
            Pixels per degree.
        """
        inches = float(self.axes.get_window_extent().width) / float(self.figure.dpi)
        per_unit = 100 * inches / self.frame.width
        if not self.frame.polar:
            return per_unit
        lon = self.frame.centre_lon
        x, y = self.frame.project([lon - 0.5, lon + 0.5], [lat, lat])
        return float(np.hypot(x[1] - x[0], y[1] - y[0])) * per_unit

    def _outlines(
        self, lon: Floats, lat: Floats, width: Floats, height: Floats
    ) -> tuple[list[Floats], npt.NDArray[np.int64]]:
        """Return corners of the rectangles that touch the map, and the tile index of each.

        A tile that is cut by the seam of a global map appears twice.
        """
        left, right, bottom, top = self.frame.extent
        shapes, owners = [], []
        finite = np.isfinite(lon) & np.isfinite(lat)
        for index in np.flatnonzero(finite).tolist():
            steps = 8 if self.frame.polar and width[index] > 2 else 1
            corners = self.frame.outline(lon[index], lat[index], width[index], height[index], steps)
            turns = (0.0,) if self.frame.polar else (-360.0, 0.0, 360.0)
            for turn in turns:
                shape = corners + np.array([turn, 0.0])
                low, high = shape.min(axis=0), shape.max(axis=0)
                if low[0] < right and high[0] > left and low[1] < top and high[1] > bottom:
                    shapes.append(shape)
                    owners.append(index)
        return shapes, np.array(owners, dtype=np.int64)

    def _draw_image(
        self, array: npt.NDArray[Any], box: Box, *, smooth: bool, grow_to: int = 1, **options: Any
    ) -> Any:
        """Resample an equirectangular image into the plane of the map."""
        lon, lat = self._pixel_positions
        span = self.box.height if self.frame.polar else self.box.width
        image = images.sample(array, box, lon, lat, pixel_deg=span / _RASTER_PIXELS, smooth=smooth)
        image = images.grow(image, grow_to)
        artist = self.axes.imshow(
            image if image.ndim == 3 else np.ma.masked_invalid(image),
            extent=self.frame.extent,
            origin="upper",
            aspect=self.stretch,
            interpolation="nearest",
            **options,
        )
        self._set_extent()
        return artist

    @cached_property
    def _pixel_positions(self) -> tuple[Floats, Floats]:
        """Longitudes and latitudes of the pixels of rasters."""
        rows = max(2, round(_RASTER_PIXELS * self.frame.height * self.stretch / self.frame.width))
        return self.frame.pixel_positions(_RASTER_PIXELS, rows)

    def _draw_title(self, title: str | None, subtitle: str | None) -> None:
        style, axes = self.style, self.axes
        inch = float(axes.figure.dpi) / float(axes.get_window_extent().height)
        base = 1 + (0.25 * inch if self.frame.polar else 0.0)  # above the labels of meridians
        if subtitle:
            axes.text(
                0, base + 0.09 * inch, subtitle, transform=axes.transAxes, ha="left", va="bottom",
                color=style.muted, fontsize=style.font, parse_math=False,
            )  # fmt: skip
        if title:
            axes.text(
                0, base + (0.27 if subtitle else 0.1) * inch, title, transform=axes.transAxes,
                ha="left", va="bottom", color=style.ink, fontsize=style.font + 4,
                fontweight="bold", parse_math=False,
            )  # fmt: skip

    def _set_extent(self) -> None:
        self.axes.set_xlim(*self.frame.extent[:2])
        self.axes.set_ylim(*self.frame.extent[2:])

    def _paper(self, transparent: bool) -> str:
        return "none" if transparent else self.style.paper

    @property
    def _inches_high(self) -> float:
        return float(self.axes.get_window_extent().height) / float(self.figure.dpi)
