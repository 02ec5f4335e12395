"""Ground model of the terrain generator, and the drawing tools that landforms share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32 wherever it is as large as the ground
Rng = np.random.Generator


class Ground:
    """Height and albedo of a rectangle of pixels, with coordinates local to one landform.

    Coordinates `u` of shape (1, columns) grow eastward and `v` of shape (rows, 1) southward, from
    the landform's centre, in units of its `frame`. So slopes do not depend on the resolution.

    Args:
        height: float32 array of shape (rows, columns), in pixels, so that the difference of
            neighbours is a slope.
        albedo: Array of the same shape, relative: 0 is the average.
        centre: Centre of the landform as (x, y) in pixels.
        frame: Unit of the local coordinates in pixels.
        trend: Bearing that winds and faults of the region share, in degrees, or None.
    """

    __slots__ = ("albedo", "centre", "frame", "height", "trend", "u", "v")

    def __init__(
        self,
        height: Floats,
        albedo: Floats,
        *,
        centre: tuple[float, float],
        frame: float,
        trend: float | None = None,
    ) -> None:
        rows, columns = height.shape
        self.height = height
        self.albedo = albedo
        self.centre = centre
        self.frame = frame
        self.trend = trend
        self.u = ((np.arange(columns, dtype=np.float32) + 0.5 - centre[0]) / frame)[None, :]
        self.v = ((np.arange(rows, dtype=np.float32) + 0.5 - centre[1]) / frame)[:, None]

    def lift(self, frames: Floats | float) -> None:
        """Raise the ground.

        Args:
            frames: Height to add, in frames.
        """
        self.height += self.frame * frames

    def tint(self, albedo: Floats | float) -> None:
        """Change the albedo.

        Args:
            albedo: Relative albedo to add.
        """
        self.albedo += albedo

    def radius(self) -> Floats:
        """Return the distance of each pixel from the landform's centre, in frames."""
        distance: Floats = np.hypot(self.u, self.v)
        return distance

    def heading(self, rng: Rng) -> float:
        """Draw a bearing for landforms aligned with wind or faults.

        Args:
            rng: Random generator.

        Returns:
            Bearing in degrees, near the trend of the region if it has one.
        """
        return float(rng.uniform(0, 360) if self.trend is None else rng.normal(self.trend, 5) % 360)

    def contains(self, u: float, v: float) -> bool:
        """Check whether a point lies on this ground.

        Args:
            u: Eastward coordinate in frames.
            v: Southward coordinate in frames.

        Returns:
            Whether the point lies on it.
        """
        rows, columns = self.height.shape
        x, y = self.centre[0] + u * self.frame, self.centre[1] + v * self.frame
        return bool(0 <= x < columns and 0 <= y < rows)

    def axes(self, bearing: float) -> tuple[Floats, Floats]:
        """Return the coordinates along and across a bearing.

        Args:
            bearing: Degrees clockwise from north.

        Returns:
            Arrays (along, across) of shape (rows, columns), in frames; across grows to the right.
        """
        sine = np.float32(np.sin(np.radians(bearing)))
        cosine = np.float32(np.cos(np.radians(bearing)))
        return self.u * sine - self.v * cosine, self.u * cosine + self.v * sine

    def to_uv(self, bearing: float, along: float, across: float) -> tuple[float, float]:
        """Convert a point on the axes of a bearing to (u, v).

        Args:
            bearing: Degrees clockwise from north.
            along: Coordinate along the bearing in frames.
            across: Coordinate to the right of it in frames.

        Returns:
            Coordinates (u, v) in frames.
        """
        sine, cosine = float(np.sin(np.radians(bearing))), float(np.cos(np.radians(bearing)))
        return along * sine + across * cosine, across * sine - along * cosine

    def crop(self, u: float, v: float, size: float, reach: float) -> Ground | None:
        """Return a view of the surroundings of a point, with its own frame.

        Args:
            u: Eastward coordinate of the point in frames.
            v: Southward coordinate of the point in frames.
            size: Frame of the view, relative to this one.
            reach: Half the width of the view, in its own frames.

        Returns:
            The view, cropped to this ground; None if it lies outside.
        """
        x, y = self.centre[0] + u * self.frame, self.centre[1] + v * self.frame
        half = size * self.frame * reach
        rows, columns = self.height.shape
        west, east = max(0, int(x - half)), min(columns, int(x + half) + 1)
        north, south = max(0, int(y - half)), min(rows, int(y + half) + 1)
        if west >= east or north >= south:
            return None
        window = np.s_[north:south, west:east]
        return Ground(
            self.height[window],
            self.albedo[window],
            centre=(x - west, y - north),
            frame=size * self.frame,
        )

    def noise(self, rng: Rng, longest: float, shortest: float, fall: float = 2.0) -> Floats:
        """Generate noise of unit standard deviation.

        Args:
            rng: Random generator.
            longest: Longest wavelength in frames.
            shortest: Shortest wavelength in frames.
            fall: Exponent: the amplitude is wavelength**fall.

        Returns:
            Array of shape (rows, columns).
        """
        return band_noise(rng, self.height.shape, longest * self.frame, shortest * self.frame, fall)

    def scatter(self, rng: Rng, spacing: float, jitter: float = 0.8) -> npt.NDArray[np.float64]:
        """Generate jittered points all over this ground and its margin.

        Args:
            rng: Random generator.
            spacing: Mean distance of neighbours in frames.
            jitter: Size of the random displacement, relative to the spacing.

        Returns:
            Array of shape (n, 2) of (u, v).
        """
        first_u, last_u = float(self.u[0, 0]) - spacing, float(self.u[0, -1]) + spacing
        first_v, last_v = float(self.v[0, 0]) - spacing, float(self.v[-1, 0]) + spacing
        us, vs = np.arange(first_u, last_u, spacing), np.arange(first_v, last_v, spacing)
        grid = np.stack(np.meshgrid(us, vs), axis=-1).reshape(-1, 2)
        grid[:, 0] += 0.5 * spacing * (np.round((grid[:, 1] - first_v) / spacing) % 2)
        return grid + spacing * jitter * (rng.random(grid.shape) - 0.5)

    def to_path(self, path: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
        """Compute the distance to a polyline.

        Args:
            path: Array of shape (n, 2) of (u, v).

        Returns:
            Distance of each pixel in frames, and the position of the nearest point along the
            polyline (0 to 1).
        """
        nearest = np.full(self.height.shape, np.inf, dtype=np.float32)
        where = np.zeros(self.height.shape, dtype=np.float32)
        lengths = np.hypot(*np.diff(path, axis=0).T)
        ends = np.concatenate([[0.0], np.cumsum(lengths)])
        for index, (start, end) in enumerate(pairwise(path)):
            square, share = self.to_segment(start, end)
            closer = square < nearest
            np.copyto(nearest, square, where=closer)
            first, length = float(ends[index] / ends[-1]), float(lengths[index] / ends[-1])
            np.copyto(where, first + share * length, where=closer)
        return np.sqrt(nearest), where

    def to_segment(
        self, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
    ) -> tuple[Floats, Floats]:
        """Compute the squared distance to a line segment.

        Args:
            start: Start as (u, v).
            end: End as (u, v).

        Returns:
            Squared distance of each pixel, and the position of the nearest point along the segment
            (0 to 1).
        """
        du, dv = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
        u, v = self.u - np.float32(start[0]), self.v - np.float32(start[1])
        share = np.clip((u * du + v * dv) / max(du * du + dv * dv, np.float32(1e-12)), 0, 1)
        return (u - share * du) ** 2 + (v - share * dv) ** 2, share


def band_noise(
    rng: Rng, shape: tuple[int, ...], longest: float, shortest: float, fall: float
) -> Floats:
    """Generate band-limited noise of unit standard deviation.

    Args:
        rng: Random generator.
        shape: Rows and columns.
        longest: Longest wavelength in pixels.
        shortest: Shortest wavelength in pixels.
        fall: Exponent: the amplitude is wavelength**fall.

    Returns:
        float32 array of that shape.
    """
    phases = rng.random((shape[0], shape[1] // 2 + 1), dtype=np.float32)
    rows, amplitudes = _amplitudes(shape, round(longest, 3), round(shortest, 3), round(fall, 2))
    columns = amplitudes.shape[1]
    waves = amplitudes * np.exp(np.complex64(2j * np.pi) * phases[rows, :columns])
    spectrum = waves
    if rows.size < shape[0]:
        spectrum = np.zeros((shape[0], columns), dtype=np.complex64)
        spectrum[rows] = waves
    # irfft2 without the columns at the end that are 0
    lines = np.fft.ifft(spectrum, axis=0)
    field = np.fft.irfft(lines, n=shape[1], axis=1).astype(np.float32, copy=False)
    deviation = float(field.std())
    return field / np.float32(deviation) if deviation > 0 else field


@lru_cache(maxsize=64)
def _amplitudes(
    shape: tuple[int, ...], longest: float, shortest: float, fall: float
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return the rows and the amplitudes of the first columns outside which amplitudes are 0."""
    shortest = max(shortest, 1e-3)
    # exp(-(frequency * shortest)**4) * frequency**-fall is 0 in float32 above this frequency.
    highest = (104 + max(fall, 0) * np.log(max(shape))) ** 0.25 / shortest
    down, right = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    rows = np.flatnonzero(np.abs(down) <= highest)
    lines = np.hypot(down[rows, None], right[None, right <= highest])
    lines[0, 0] = np.inf
    high = np.exp(-((lines * shortest) ** 4))
    low = 1 / (1 + (1 / (lines * longest)) ** 4)
    amplitude: Floats = (high * low * lines**-fall).astype(np.float32)
    amplitude[0, 0] = 0
    return rows, amplitude


def smoothstep(x: Floats, start: float, end: float) -> Floats:
    """Interpolate smoothly from 0 to 1.

    Args:
        x: Values.
        start: Value at which the result is 0.
        end: Value at which the result is 1.

    Returns:
        Array of the shape of `x`.
    """
    t: Floats = np.clip((x - np.float32(start)) / np.float32(end - start), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Floats, width: float) -> Floats:
    """Evaluate a Gaussian of height 1.

    Args:
        x: Distances from its middle.
        width: Distance at which it falls to 1/e.

    Returns:
        Array of the shape of `x`.
    """
    curve: Floats = np.exp(-((x / np.float32(width)) ** 2))
    return curve


def wiggle(rng: Rng, x: Floats, wavelength: float) -> Floats:
    """Evaluate a smooth random curve, the sum of three sines.

    Args:
        rng: Random generator.
        x: Positions along the curve.
        wavelength: Longest wavelength, in the unit of `x`.

    Returns:
        Values of about -1 to 1, of the shape of `x`.
    """
    total = np.zeros_like(x)
    for weight, ratio in ((0.6, 1.0), (0.4, 0.55), (0.25, 0.31)):
        length = np.float32(wavelength * ratio * rng.uniform(0.85, 1.2))
        total += np.float32(weight) * np.sin(
            np.float32(2 * np.pi) / length * x + np.float32(rng.uniform(0, 2 * np.pi))
        )
    return total


def wander(
    rng: Rng,
    start: tuple[float, float],
    bearing: float,
    length: float,
    *,
    steps: int,
    turn: float,
) -> npt.NDArray[np.float64]:
    """Generate a path that follows a bearing with random turns.

    Args:
        rng: Random generator.
        start: First point as (u, v).
        bearing: Mean bearing in degrees.
        length: Length in frames.
        steps: Number of segments.
        turn: Standard deviation of the turns in degrees.

    Returns:
        Array of shape (steps + 1, 2) of (u, v).
    """
    swing = np.convolve(rng.normal(0, turn, steps + 4), np.ones(5) / 5**0.5, mode="valid")
    headings = np.radians(bearing + swing[:steps])
    moves = np.stack([np.sin(headings), -np.cos(headings)], axis=1) * (length / steps)
    return np.concatenate([[start], np.asarray(start) + np.cumsum(moves, axis=0)])


def sample_spaced_points(
    rng: Rng, count: int, distance: float, reach: float
) -> Iterator[tuple[float, float]]:
    """Generate random points with a minimum distance from each other.

    Args:
        rng: Random generator.
        count: Maximum number of points.
        distance: Minimum distance.
        reach: Maximum absolute value of both coordinates.

    Yields:
        Points (u, v).
    """
    chosen: list[tuple[float, float]] = []
    for _ in range(8 * count):
        u, v = rng.uniform(-reach, reach, 2)
        if all((u - a) ** 2 + (v - b) ** 2 >= distance**2 for a, b in chosen):
            chosen.append((float(u), float(v)))
            yield chosen[-1]
            if len(chosen) == count:
                return


def cells(
    ground: Ground, rng: Rng, spacing: float, *, jitter: float
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Divide the ground into Voronoi cells.

    Args:
        ground: The ground.
        rng: Random generator.
        spacing: Mean width of a cell in frames.
        jitter: Random displacement of the centres, relative to the spacing.

    Returns:
        Three arrays of shape (rows, columns): distance to the nearest centre; difference of the
        distances to the two nearest centres, which is 0 on a border; cell number.
    """
    bend = np.float32(0.05 * spacing)
    u = ground.u + bend * ground.noise(rng, spacing, spacing / 3)
    v = ground.v + bend * ground.noise(rng, spacing, spacing / 3)
    nearest = np.full(ground.height.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    number = np.zeros(ground.height.shape, dtype=np.int64)
    for index, (at_u, at_v) in enumerate(ground.scatter(rng, spacing, jitter).astype(np.float32)):
        square = (u - at_u) ** 2 + (v - at_v) ** 2
        number[square < nearest] = index
        np.minimum(second, np.maximum(square, nearest), out=second)
        np.minimum(nearest, square, out=nearest)
    nearest = np.sqrt(nearest)
    return nearest, np.sqrt(second) - nearest, number


@dataclass(frozen=True, slots=True)
class Light:
    """Direction of the sunlight. CTX passes in mid-afternoon, so its images are lit from the west.

    Attributes:
        azimuth: Degrees clockwise from north.
        elevation: Degrees above the horizon.
    """

    azimuth: float = 288.0
    elevation: float = 35.0


def shade(height: Floats, albedo: Floats, light: Light) -> Floats:
    """Compute brightness by Lambert's cosine law, relative to flat ground, which has about 0.5.

    Slopes turned away from the Sun are black; no shadows are cast.

    Args:
        height: Heights in pixels, shape (rows, columns).
        albedo: Relative albedo of the same shape.
        light: Direction of the sunlight.

    Returns:
        Brightness of the same shape.
    """
    padded = np.pad(height, 1, mode="reflect", reflect_type="odd")
    east = (padded[1:-1, 2:] - padded[1:-1, :-2]) * np.float32(0.5)
    south = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * np.float32(0.5)
    azimuth, elevation = np.radians(light.azimuth), np.radians(light.elevation)
    to_east = np.float32(np.sin(azimuth) / np.tan(elevation))
    to_south = np.float32(-np.cos(azimuth) / np.tan(elevation))
    cosine = (1 - east * to_east - south * to_south) / np.sqrt(1 + east**2 + south**2)
    lit = np.maximum(cosine, 0)
    bright = np.float32(0.5) * (1 + albedo) * (0.12 + 0.88 * lit)
    # A soft shoulder keeps slopes that face the Sun from saturating.
    return np.where(bright < 0.75, bright, 0.75 + 0.25 * np.tanh((bright - 0.75) / 0.25))


def expose(bright: Floats, rng: Rng, *, noise: float = 0.012) -> npt.NDArray[np.uint8]:
    """Convert brightness to grey levels, with camera noise.

    Args:
        bright: Brightness (0 to 1).
        rng: Random generator.
        noise: Standard deviation of the noise.

    Returns:
        uint8 array of values 1 to 255; 0 is reserved for "no data", as in the mosaic.
    """
    grain = np.float32(noise) * rng.standard_normal(bright.shape, dtype=np.float32)
    levels: npt.NDArray[np.uint8] = np.clip(np.rint((bright + grain) * 255), 1, 255).astype(
        np.uint8
    )
    return levels


@dataclass(frozen=True, slots=True)
class Traits:
    """Properties of a drawn landform; sizes in frames, bearings in degrees clockwise from north.

    Attributes:
        size: Largest extent.
        count: Number of objects, or None if they cannot be counted.
        bearing: Bearing of the flow or of the long axis.
        flows: Whether the bearing has a sense: downslope or downwind.
        detail: Further description that can follow the landform's name in a caption.
    """

    size: float
    count: int | None = None
    bearing: float | None = None
    flows: bool = False
    detail: str = ""


def layered_deposits(ground: Ground, rng: Rng) -> Traits:
    """Draw terraces like contour lines: cliffs and benches, bright and dark beds in turn.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    beds = rng.uniform(6, 12)
    bearing = float(rng.uniform(0, 360))
    along, _ = ground.axes(bearing)
    tilt = np.float32(rng.uniform(1.4, 2.2))
    relief = 0.22 * ground.noise(rng, 1.5, 0.2, 2.0) - tilt * along
    level = relief * np.float32(beds / 2.2)
    step = np.floor(level)
    share = level - step
    stairs = (step + smoothstep(share, 0.6, 1.0)) * np.float32(2.2 / beds)
    ground.lift(0.1 * stairs)
    pale = rng.normal(0, 0.07, 257)[step.astype(np.int64) % 257].astype(np.float32)
    ground.tint(pale + 0.06 * bump(share - 0.5, 0.12))
    return Traits(
        size=0.9,
        bearing=bearing,
        flows=True,
        detail="with thin beds" if beds > 9 else "with thick beds",
    )
