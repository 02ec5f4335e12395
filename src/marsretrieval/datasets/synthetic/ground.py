"""A piece of land under construction, and the tools that every landform is made with."""

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

    `u` (1, columns) grows eastward, `v` (rows, 1) southward, from the landform's place in units
    of its `frame`. Slopes therefore do not depend on the resolution. Heights are in pixels, so
    that a difference between neighbours is a slope; albedo is relative, 0 being the ordinary.
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
        self.centre = centre  # (x, y) in pixels
        self.frame = frame  # pixels
        self.trend = trend  # bearing that winds and faults of the region have in common
        self.u = ((np.arange(columns, dtype=np.float32) + 0.5 - centre[0]) / frame)[None, :]
        self.v = ((np.arange(rows, dtype=np.float32) + 0.5 - centre[1]) / frame)[:, None]

    def lift(self, frames: Floats | float) -> None:
        """Raise the ground by so many frames."""
        self.height += self.frame * frames

    def tint(self, albedo: Floats | float) -> None:
        self.albedo += albedo

    def radius(self) -> Floats:
        """Distance from the landform's place in frames."""
        distance: Floats = np.hypot(self.u, self.v)
        return distance

    def heading(self, rng: Rng) -> float:
        """A bearing for what winds or faults align: near the trend of the region, if it has one."""
        return float(rng.uniform(0, 360) if self.trend is None else rng.normal(self.trend, 5) % 360)

    def holds(self, u: float, v: float) -> bool:
        """Does the point lie on this ground?"""
        rows, columns = self.height.shape
        x, y = self.centre[0] + u * self.frame, self.centre[1] + v * self.frame
        return bool(0 <= x < columns and 0 <= y < rows)

    def axes(self, bearing: float) -> tuple[Floats, Floats]:
        """(along, across) a bearing in degrees clockwise from north; across is to its right."""
        sine = np.float32(np.sin(np.radians(bearing)))
        cosine = np.float32(np.cos(np.radians(bearing)))
        return self.u * sine - self.v * cosine, self.u * cosine + self.v * sine

    def place(self, bearing: float, along: float, across: float) -> tuple[float, float]:
        """(u, v) of a point given on the axes of a bearing."""
        sine, cosine = float(np.sin(np.radians(bearing))), float(np.cos(np.radians(bearing)))
        return along * sine + across * cosine, across * sine - along * cosine

    def spot(self, u: float, v: float, size: float, reach: float) -> Ground | None:
        """A view of the surroundings of (u, v) with a frame of its own, `size` of this one's.

        It extends `reach` of its frames each way; None where that is outside this ground.
        """
        x, y = self.centre[0] + u * self.frame, self.centre[1] + v * self.frame
        half = size * self.frame * reach
        rows, columns = self.height.shape
        left, right = max(0, int(x - half)), min(columns, int(x + half) + 1)
        top, bottom = max(0, int(y - half)), min(rows, int(y + half) + 1)
        if left >= right or top >= bottom:
            return None
        window = np.s_[top:bottom, left:right]
        return Ground(
            self.height[window],
            self.albedo[window],
            centre=(x - left, y - top),
            frame=size * self.frame,
        )

    def noise(self, rng: Rng, longest: float, shortest: float, fall: float = 2.0) -> Floats:
        """Noise of unit deviation with wavelengths between two lengths in frames."""
        return band_noise(rng, self.height.shape, longest * self.frame, shortest * self.frame, fall)

    def scatter(self, rng: Rng, spacing: float, jitter: float = 0.8) -> npt.NDArray[np.float64]:
        """(n, 2) places (u, v) about `spacing` frames apart, all over this ground and its edge."""
        first_u, last_u = float(self.u[0, 0]) - spacing, float(self.u[0, -1]) + spacing
        first_v, last_v = float(self.v[0, 0]) - spacing, float(self.v[-1, 0]) + spacing
        us, vs = np.arange(first_u, last_u, spacing), np.arange(first_v, last_v, spacing)
        grid = np.stack(np.meshgrid(us, vs), axis=-1).reshape(-1, 2)
        grid[:, 0] += 0.5 * spacing * (np.round((grid[:, 1] - first_v) / spacing) % 2)
        return grid + spacing * jitter * (rng.random(grid.shape) - 0.5)

    def to_path(self, path: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
        """Distance to a polyline (n, 2) of (u, v), and where along it (0 to 1) the nearest is."""
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
        """Squared distance to a segment, and the share of it (0 to 1) at the nearest point."""
        du, dv = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
        u, v = self.u - np.float32(start[0]), self.v - np.float32(start[1])
        share = np.clip((u * du + v * dv) / max(du * du + dv * dv, np.float32(1e-12)), 0, 1)
        return (u - share * du) ** 2 + (v - share * dv) ** 2, share


def band_noise(
    rng: Rng, shape: tuple[int, ...], longest: float, shortest: float, fall: float
) -> Floats:
    """Noise of unit deviation, amplitude wavelength**fall, between two lengths in pixels."""
    spectrum = _amplitudes(shape, round(longest, 3), round(shortest, 3), round(fall, 2)) * np.exp(
        np.complex64(2j * np.pi) * rng.random((shape[0], shape[1] // 2 + 1), dtype=np.float32)
    )
    field = np.fft.irfft2(spectrum, s=shape).astype(np.float32, copy=False)
    deviation = float(field.std())
    return field / np.float32(deviation) if deviation > 0 else field


@lru_cache(maxsize=64)
def _amplitudes(shape: tuple[int, ...], longest: float, shortest: float, fall: float) -> Floats:
    lines = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    lines[0, 0] = np.inf
    high = np.exp(-((lines * max(shortest, 1e-3)) ** 4))
    low = 1 / (1 + (1 / (lines * longest)) ** 4)
    amplitude: Floats = (high * low * lines**-fall).astype(np.float32)
    amplitude[0, 0] = 0
    return amplitude


def smoothstep(x: Floats, start: float, end: float) -> Floats:
    """0 at `start`, 1 at `end`, smooth between."""
    t: Floats = np.clip((x - np.float32(start)) / np.float32(end - start), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Floats, width: float) -> Floats:
    """A Gaussian of height 1."""
    curve: Floats = np.exp(-((x / np.float32(width)) ** 2))
    return curve


def wiggle(rng: Rng, x: Floats, wavelength: float) -> Floats:
    """A smooth random curve over x, within about -1 to 1: three sines."""
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
    """A path (steps + 1, 2) of (u, v) that keeps its bearing but for turns of some degrees."""
    swing = np.convolve(rng.normal(0, turn, steps + 4), np.ones(5) / 5**0.5, mode="valid")
    headings = np.radians(bearing + swing[:steps])
    moves = np.stack([np.sin(headings), -np.cos(headings)], axis=1) * (length / steps)
    return np.concatenate([[start], np.asarray(start) + np.cumsum(moves, axis=0)])


def apart(rng: Rng, count: int, distance: float, reach: float) -> Iterator[tuple[float, float]]:
    """Up to `count` places within `reach` of the origin, none nearer than `distance` to another."""
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
    """Voronoi cells about `spacing` frames wide: distance to the own centre, gap and cell number.

    The gap is the difference of the distances to the nearest two centres: 0 on a border.
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
    """Where the Sun stands, in degrees: clockwise from north, and above the horizon.

    CTX passes in mid-afternoon local time, so its pictures are lit from the west.
    """

    azimuth: float = 288.0
    elevation: float = 35.0


def shade(height: Floats, albedo: Floats, light: Light) -> Floats:
    """Brightness of the land: Lambert's cosine law relative to flat ground, which has about 0.5.

    Heights are in pixels. Slopes turned away from the Sun are black; no shadows are cast.
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
    """Grey levels 1 to 255 with the camera's noise; 0 is kept for "no data", as in the mosaic."""
    grain = np.float32(noise) * rng.standard_normal(bright.shape, dtype=np.float32)
    levels: npt.NDArray[np.uint8] = np.clip(np.rint((bright + grain) * 255), 1, 255).astype(
        np.uint8
    )
    return levels


@dataclass(frozen=True, slots=True)
class Traits:
    """Sizes are in frames, bearings in degrees clockwise from north."""

    size: float  # largest extent
    count: int | None = None  # where the things can be counted
    bearing: float | None = None  # of the flow, or of the long axis
    flows: bool = False  # the bearing has a sense: downslope or downwind
    detail: str = ""  # what else there is to see, fit to follow the name


def layered_deposits(ground: Ground, rng: Rng) -> Traits:
    """Terraces like contour lines: cliffs and benches, bright and dark beds in turn."""
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
