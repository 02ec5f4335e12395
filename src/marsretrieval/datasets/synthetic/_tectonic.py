"""Broken and folded crust: wrinkle ridges, graben, pit chains, chaos."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic._cells import cells
from marsretrieval.datasets.synthetic._ground import (
    Ground,
    Rng,
    bump,
    smoothstep,
    wiggle,
)
from marsretrieval.datasets.synthetic._impact import bowl
from marsretrieval.datasets.synthetic._traits import Traits


def wrinkle_ridge(ground: Ground, rng: Rng) -> Traits:
    """A broad low arch with a narrow crenulated crest that wanders from one side to the other."""
    bearing = ground.heading(rng) % 180
    length = 1.3 * float(ground.u[0, -1] - ground.u[0, 0]) + 0.4
    along, across = ground.axes(bearing)
    middle = 0.07 * wiggle(rng, along, 0.9)
    aside = across - middle
    side = np.float32(rng.choice([-1.0, 1.0]))
    arch = np.where(aside * side > 0, bump(aside, 0.05), bump(aside, 0.15))
    crest = bump(aside - 0.03 * wiggle(rng, along, 0.55), 0.017)
    fade = 1 - smoothstep(np.abs(along), length / 2 - 0.1, length / 2)
    ground.lift(fade * (0.042 * arch + 0.016 * crest * (0.75 + 0.25 * wiggle(rng, along, 0.2))))
    return Traits(size=1.0, bearing=bearing, count=1, detail="sinuous and asymmetric")


def graben(ground: Ground, rng: Rng) -> Traits:
    """Long straight troughs with flat floors between two sharp parallel faults."""
    bearing = ground.heading(rng) % 180
    count = int(rng.integers(1, 5))
    crossing = bool(count > 2 and rng.random() < 0.35)
    depth = np.zeros_like(ground.height)
    for index in range(count):
        turned = bearing + (rng.uniform(45, 75) if crossing and index == 0 else rng.normal(0, 2.5))
        along, across = ground.axes(turned)
        shift = (index - (count - 1) / 2) * 0.2 + rng.uniform(-0.03, 0.03)
        half = rng.uniform(0.032, 0.06)
        edge = np.float32(half) - np.abs(
            across - np.float32(shift) + 0.004 * wiggle(rng, along, 0.7)
        )
        np.maximum(depth, smoothstep(edge, -0.01, 0.012), out=depth)
    ground.lift(-0.032 * depth)
    ground.tint(-0.02 * depth)
    return Traits(
        size=1.0,
        bearing=bearing,
        count=count,
        detail="crossing each other" if crossing else "straight, with flat floors",
    )


def pit_chain(ground: Ground, rng: Rng) -> Traits:
    """Rimless collapse pits in a straight row, often along a shallow trough."""
    bearing = ground.heading(rng) % 180
    count = int(rng.integers(5, 10))
    along, across = ground.axes(bearing)
    inside = 1 - smoothstep(np.abs(along), 0.4, 0.5)
    ground.lift(-0.008 * inside * smoothstep(0.06 - np.abs(across), -0.04, 0.02))
    gap = 0.92 / count
    for index in range(count):
        u, v = ground.place(
            bearing, (index - (count - 1) / 2) * gap + rng.normal(0, 0.006), rng.normal(0, 0.006)
        )
        spot = ground.spot(u, v, gap * rng.uniform(0.34, 0.48), 1.2)
        if spot is not None:
            bowl(spot, depth=0.45, rim=0.0, wobble=0.03, phase=rng.uniform(0, 6))
    return Traits(size=0.92, bearing=bearing, count=count, detail="in a straight row")


def chaos_terrain(ground: Ground, rng: Rng) -> Traits:
    """A floor broken into angular blocks of different heights, wide lows between them."""
    spacing = rng.uniform(0.2, 0.32)
    _, gap, number = cells(ground, rng, spacing, jitter=0.9)
    heights = rng.uniform(0.4, 1.0, 512)[number % 512].astype(np.float32)
    lean = rng.normal(0, 0.05, (2, 512))[:, number % 512].astype(np.float32)
    wide = rng.uniform(0.2, 0.4) * spacing
    block = smoothstep(gap + 0.012 * ground.noise(rng, 0.2, 0.04, 1.3), wide, wide + 0.05)
    tilt = lean[0] * np.sin(ground.u * 7) + lean[1] * np.sin(ground.v * 7)
    debris = ground.noise(rng, 0.09, 0.03, 1.0)
    ground.lift(block * (0.085 * heights + 0.2 * tilt) + 0.004 * debris * (1 - block) - 0.04)
    ground.tint(0.04 * block)
    return Traits(size=0.9, detail="with large blocks" if spacing > 0.26 else "with small blocks")
