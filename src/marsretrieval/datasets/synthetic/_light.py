"""Sunlight on the land, and the camera that takes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic._ground import Floats, Rng


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
