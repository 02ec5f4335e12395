"""Impact craters, alone, with flowed ejecta, and in swarms of secondaries."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic._ground import Ground, Rng, apart, bump, smoothstep, wiggle
from marsretrieval.datasets.synthetic._traits import Traits


def bowl(
    spot: Ground,
    *,
    depth: float = 0.3,
    rim: float = 0.08,
    floor: float = 0.0,
    hollow: float = 1.7,
    peak: float = 0.0,
    squash: float = 0.0,
    wobble: float = 0.0,
    phase: float = 0.0,
) -> None:
    """A crater whose radius is the frame of `spot`; depth, rim and peak in radii.

    `floor` is the radius of its flat floor, `wobble` the unevenness of its outline; with a
    higher `hollow` the wall steepens towards the rim.
    """
    rho = np.hypot(spot.u * np.float32(1 + squash), spot.v)
    if wobble:
        angle = np.arctan2(spot.v, spot.u)
        rho = rho * (1 + np.float32(wobble) * np.sin(3 * angle + np.float32(phase)))
        rho = rho * (1 + np.float32(0.5 * wobble) * np.sin(5 * angle - np.float32(2.3 * phase)))
    wall = np.clip((rho - floor) / (1 - floor), 0, 1) ** hollow
    outside = np.float32(rim) * (np.maximum(rho, 1) ** -4.5 - np.float32(0.012))
    spot.lift(np.where(rho < 1, (depth + rim) * wall - depth, np.maximum(outside, 0)))
    if peak:
        spot.lift(np.float32(peak) * bump(rho, 0.17))


def impact_crater(ground: Ground, rng: Rng) -> Traits:
    radius = rng.uniform(0.16, 0.34)
    u, v = rng.uniform(-0.08, 0.08, 2)
    complex_ = radius > 0.23 and rng.random() < 0.6
    spot = ground.spot(u, v, radius, 2.8)
    if spot is not None:
        rho = spot.radius()
        rough = spot.noise(rng, 0.8, 0.12, 1.3)
        ejecta = bump(rho - 1.05, 0.55) * smoothstep(rho, 0.9, 1.05)
        bowl(
            spot,
            depth=rng.uniform(0.2, 0.28) if complex_ else rng.uniform(0.34, 0.44),
            rim=rng.uniform(0.09, 0.14),
            floor=rng.uniform(0.35, 0.5) if complex_ else rng.uniform(0.0, 0.15),
            hollow=2.4 if complex_ else 1.6,
            peak=0.11 if complex_ else 0.0,
            wobble=rng.uniform(0.01, 0.035),
            phase=rng.uniform(0, 6),
        )
        spot.lift(0.012 * ejecta * rough)
        if complex_:  # terraces of the slumped wall
            spot.lift(0.012 * np.sin(28 * rho + rough) * bump(rho - 0.8, 0.12))
        spot.tint(rng.uniform(-0.02, 0.08) * ejecta)
    detail = "with a central peak" if complex_ else rng.choice(["bowl-shaped", "with a sharp rim"])
    return Traits(size=2 * radius, detail=str(detail), count=1)


def rampart_crater(ground: Ground, rng: Rng) -> Traits:
    """Layered ejecta: petals that end in a raised margin."""
    radius = rng.uniform(0.12, 0.19)
    spot = ground.spot(0, 0, radius, 4.2)
    petals = int(rng.integers(4, 9))
    if spot is not None:
        rho, angle = spot.radius(), np.arctan2(spot.v, spot.u)
        edge = rng.uniform(1.9, 2.3) * (
            1
            + 0.14 * np.abs(np.sin(petals / 2 * angle + rng.uniform(0, 3)))
            + 0.05 * wiggle(rng, angle, 1.1)
        )
        inside = smoothstep(edge - rho, 0.0, 0.16)
        radial = np.sin(angle * rng.integers(26, 40) + 2 * spot.noise(rng, 2, 0.5))
        spot.lift(inside * (0.07 + 0.008 * radial * smoothstep(rho, 1.0, 1.4)))
        spot.lift(0.05 * bump(rho - (edge - 0.18), 0.13))
        spot.tint(0.04 * inside)
        bowl(spot, depth=0.4, rim=0.13, floor=0.2, wobble=0.02, phase=rng.uniform(0, 6))
    detail = "with a few broad lobes" if petals < 6 else "with many narrow lobes"
    return Traits(size=4.2 * radius, detail=detail, count=1)


def crater_cluster(ground: Ground, rng: Rng) -> Traits:
    """Secondaries: many small bowls thrown together, often drawn out along one direction."""
    bearing = float(rng.uniform(0, 180))
    narrow = rng.uniform(0.35, 1.0)
    count = 0
    for along, across in apart(rng, int(rng.integers(9, 22)), 0.1, 0.42):
        radius = rng.uniform(0.028, 0.07)
        u, v = ground.place(bearing, along, across * narrow)
        spot = ground.spot(u, v, radius, 2.2)
        if spot is not None:
            bowl(spot, depth=rng.uniform(0.3, 0.42), rim=0.13, squash=rng.uniform(-0.1, 0.1))
        count += ground.holds(u, v)
    drawn_out = narrow < 0.6
    return Traits(
        size=0.84,
        count=count,
        bearing=bearing if drawn_out else None,
        detail="drawn out in a band" if drawn_out else "crowded together",
    )
