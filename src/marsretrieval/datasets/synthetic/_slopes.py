"""What comes down a slope: landslides, streaks in dust."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic._ground import Ground, Rng, bump, smoothstep, wiggle
from marsretrieval.datasets.synthetic._traits import Traits


def landslides(ground: Ground, rng: Rng) -> Traits:
    """A bite out of a high wall, slumped blocks below it, a grooved lobe with a steep margin."""
    bearing = float(rng.uniform(0, 360))
    along, across = ground.axes(bearing)
    bite, mouth = rng.uniform(0.16, 0.24), rng.uniform(0.15, 0.21)
    spurs = 0.025 * wiggle(rng, across, 0.4) + 0.006 * ground.noise(rng, 0.25, 0.08, 1.5)
    wall_line = spurs - 0.1 - bite * smoothstep(mouth - np.abs(across), -0.06, 0.1)
    behind = wall_line - along
    plateau = smoothstep(behind, -0.13, 0.01) * (1 - 0.6 * smoothstep(-along, 0.3, 1.0))
    ground.lift(rng.uniform(0.14, 0.18) * plateau)

    front = rng.uniform(0.34, 0.46)
    share = np.clip((along + 0.1 + bite) / (front + 0.1 + bite), 0, 1.2)
    width = np.float32(0.95 * mouth) + np.float32(rng.uniform(0.08, 0.22)) * share**1.3
    sideways = across / width
    toe = np.float32(front) - 0.16 * sideways**2 + 0.02 * wiggle(rng, sideways, 1.0) - along
    margin = np.minimum(toe, 0.8 * (width - np.abs(across)))
    margin = margin + 0.01 * ground.noise(rng, 0.3, 0.1, 1.8)
    inside = smoothstep(margin, -0.005, 0.04) * (1 - smoothstep(behind, -0.06, 0.0))
    grooves = wiggle(rng, sideways + 0.06 * wiggle(rng, along, 0.4), 0.34)
    blocks = np.sin(np.float32(2 * np.pi / 0.085) * (behind + 0.015 * wiggle(rng, across, 0.2)))
    rough = ground.noise(rng, 0.14, 0.03, 1.0)
    surface = (
        0.045
        + 0.009 * grooves * smoothstep(share, 0.25, 0.6)
        + 0.011 * blocks * bump(behind + 0.12, 0.08)
        + 0.003 * rough
        + 0.012 * bump(margin - 0.04, 0.03)
    )
    ground.lift(inside * surface)
    ground.tint(np.float32(rng.uniform(-0.05, 0.03)) * inside)
    detail = "with a deep alcove" if bite > 0.2 else "with a shallow alcove"
    return Traits(size=front + 0.1 + bite, bearing=bearing, flows=True, count=1, detail=detail)


def slope_streaks(ground: Ground, rng: Rng) -> Traits:
    """Dark fans that start at a point high on a dusty slope and widen a little downhill."""
    bearing = float(rng.uniform(0, 360))
    along, across = ground.axes(bearing)
    crest = along + 0.03 * wiggle(rng, across, 0.5)
    ground.lift(
        0.15 * (1 - smoothstep(crest, -0.36, 0.42)) * bump(np.minimum(crest + 0.36, 0), 0.3)
    )
    ground.tint(0.12)
    count = int(rng.integers(4, 11))
    places = (np.arange(count) - (count - 1) / 2) * 0.72 / count
    for place in places + rng.uniform(-0.03, 0.03, count):
        top, length = rng.uniform(-0.32, -0.12), rng.uniform(0.22, 0.48)
        share = (crest - np.float32(top)) / np.float32(length)
        aside = across - np.float32(place) + 0.006 * wiggle(rng, along, 0.3)
        width = np.float32(rng.uniform(0.02, 0.045)) * np.clip(share * 1.6, 0, 1) ** 0.8
        streak = smoothstep(width - np.abs(aside), -0.006, 0.01)
        streak = streak * smoothstep(share, 0.0, 0.08) * (1 - smoothstep(share, 0.86, 1.0))
        ground.tint(-np.float32(rng.uniform(0.22, 0.5)) * streak)
    return Traits(size=0.75, bearing=bearing, flows=True, count=count, detail="dark and parallel")
