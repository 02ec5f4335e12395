"""Impact craters and tectonic landforms."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic.ground import (
    Ground,
    Rng,
    Traits,
    bump,
    cells,
    sample_spaced_points,
    smoothstep,
    wiggle,
)


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
    """Draw a crater whose radius is the frame of `spot`.

    Args:
        spot: Ground centred on the crater.
        depth: Depth in radii.
        rim: Height of the rim in radii.
        floor: Radius of the flat floor in radii.
        hollow: Exponent of the wall's profile; larger values steepen it towards the rim.
        peak: Height of the central peak in radii.
        squash: Relative compression in the east-west direction.
        wobble: Unevenness of the outline.
        phase: Phase of that unevenness in radians.
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
    """Draw a round depression with a raised rim, sometimes with terraces and a central peak.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    radius = rng.uniform(0.16, 0.34)
    u, v = rng.uniform(-0.08, 0.08, 2)
    complex_ = radius > 0.23 and rng.random() < 0.6
    spot = ground.crop(u, v, radius, 2.8)
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
    """Draw layered ejecta: petals that end in a raised margin.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    radius = rng.uniform(0.12, 0.19)
    spot = ground.crop(0, 0, radius, 4.2)
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
    """Draw secondaries: many small bowls thrown together, often drawn out along one direction.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 180))
    narrow = rng.uniform(0.35, 1.0)
    count = 0
    for along, across in sample_spaced_points(rng, int(rng.integers(9, 22)), 0.1, 0.42):
        radius = rng.uniform(0.028, 0.07)
        u, v = ground.to_uv(bearing, along, across * narrow)
        spot = ground.crop(u, v, radius, 2.2)
        if spot is not None:
            bowl(spot, depth=rng.uniform(0.3, 0.42), rim=0.13, squash=rng.uniform(-0.1, 0.1))
        count += ground.contains(u, v)
    drawn_out = narrow < 0.6
    return Traits(
        size=0.84,
        count=count,
        bearing=bearing if drawn_out else None,
        detail="drawn out in a band" if drawn_out else "crowded together",
    )


def wrinkle_ridge(ground: Ground, rng: Rng) -> Traits:
    """Draw a broad low arch with a narrow crenulated crest that wanders from one side to the other.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
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
    """Draw long straight troughs with flat floors between two sharp parallel faults.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
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
    """Draw rimless collapse pits in a straight row, often along a shallow trough.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = ground.heading(rng) % 180
    count = int(rng.integers(5, 10))
    along, across = ground.axes(bearing)
    inside = 1 - smoothstep(np.abs(along), 0.4, 0.5)
    ground.lift(-0.008 * inside * smoothstep(0.06 - np.abs(across), -0.04, 0.02))
    gap = 0.92 / count
    for index in range(count):
        u, v = ground.to_uv(
            bearing, (index - (count - 1) / 2) * gap + rng.normal(0, 0.006), rng.normal(0, 0.006)
        )
        spot = ground.crop(u, v, gap * rng.uniform(0.34, 0.48), 1.2)
        if spot is not None:
            bowl(spot, depth=0.45, rim=0.0, wobble=0.03, phase=rng.uniform(0, 6))
    return Traits(size=0.92, bearing=bearing, count=count, detail="in a straight row")


def chaos_terrain(ground: Ground, rng: Rng) -> Traits:
    """Draw a floor broken into angular blocks of different heights, wide lows between them.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
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
