"""Volcanoes small and flat: pitted cones, lava flows, and mounds that resemble cones."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic._ground import (
    Ground,
    Rng,
    apart,
    bump,
    smoothstep,
    wander,
)
from marsretrieval.datasets.synthetic._traits import Traits


def pitted_cones(ground: Ground, rng: Rng) -> Traits:
    """Small steep cones, each with a pit at its top, scattered or in chains."""
    wanted = int(rng.integers(4, 15))
    middle = rng.uniform(0.05, 0.085)
    chain = bool(rng.random() < 0.3)
    bearing = float(rng.uniform(0, 180))
    bright = rng.uniform(0.0, 0.1)
    count = 0
    for along, across in apart(rng, wanted, 2.0 * middle, 0.42):
        u, v = ground.place(bearing, along, across * (0.35 if chain else 1))
        radius = middle * rng.uniform(0.75, 1.35)
        spot = ground.spot(u, v, radius, 1.7)
        if spot is None:
            continue
        rho = np.hypot(spot.u * np.float32(rng.uniform(0.88, 1.12)), spot.v)
        pit = rng.uniform(0.36, 0.46)
        flank = np.clip((1.15 - rho) / np.float32(1.15 - pit), 0, 1) ** 1.2
        spot.lift(
            0.52 * flank * (rho >= pit) + (rho < pit) * (0.52 - 0.42 * (1 - (rho / pit) ** 2))
        )
        spot.lift(0.03 * bump(rho, 1.6))
        spot.tint(bright * smoothstep(1.1 - rho, 0, 0.3) - 0.1 * bump(rho, 0.7 * pit))
        count += ground.holds(u, v)
    return Traits(
        size=0.8,
        count=count,
        bearing=bearing if chain else None,
        detail="aligned in a chain" if chain else "scattered",
    )


def mounds(ground: Ground, rng: Rng) -> Traits:
    """Rounded knobs without a pit."""
    wanted, middle = int(rng.integers(4, 13)), rng.uniform(0.05, 0.1)
    count = 0
    for u, v in apart(rng, wanted, 2.0 * middle, 0.42):
        spot = ground.spot(u, v, middle * rng.uniform(0.75, 1.4), 1.5)
        if spot is None:
            continue
        angle, phase = np.arctan2(spot.v, spot.u), rng.uniform(0, 6, 2).astype(np.float32)
        rho = spot.radius()
        rho = rho * (1 + 0.12 * np.sin(2 * angle + phase[0]) + 0.07 * np.sin(3 * angle + phase[1]))
        spot.lift(0.5 * np.clip(1 - rho**2, 0, 1) ** 1.5)
        spot.tint(0.04 * smoothstep(1 - rho, 0, 0.4))
        count += ground.holds(u, v)
    return Traits(size=0.84, count=count, detail="rounded, without pits")


def lava_flow(ground: Ground, rng: Rng) -> Traits:
    """A long lobe with a steep lobate margin, a channel between levees, a ropy rough top."""
    bearing = float(rng.uniform(0, 360))
    start = ground.place(bearing, -0.75, rng.uniform(-0.1, 0.1))
    path = wander(rng, start, bearing, rng.uniform(1.0, 1.3), steps=10, turn=16)
    away, where = ground.to_path(path)
    half = rng.uniform(0.1, 0.15)
    lobes = 0.2 * ground.noise(rng, 0.4, 0.08, 1.6)
    width = np.float32(half) * (0.85 + 0.5 * bump(where - 0.92, 0.16) + lobes)
    edge = width - away
    inside = smoothstep(edge, -0.006, 0.022)
    channel = bump(away, 0.16 * half) * (1 - smoothstep(where, 0.75, 0.95))
    levee = bump(away - np.float32(0.32 * half), 0.12 * half) * (1 - smoothstep(where, 0.75, 0.95))
    ropes = np.sin(where * np.float32(2 * np.pi * 30) - 60 * away**2 / np.float32(half))
    rough = ground.noise(rng, 0.06, 0.015, 0.8)
    ground.lift(inside * (0.032 - 0.016 * channel + 0.01 * levee + 0.002 * rough + 0.0012 * ropes))
    ground.tint(-np.float32(rng.uniform(0.04, 0.16)) * inside)
    return Traits(size=1.0, bearing=bearing, flows=True, detail="with lobate margins")
