"""Landforms of ice, frozen ground and wind."""

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
    wander,
    wiggle,
)
from marsretrieval.datasets.synthetic.landforms_impact_tectonic import bowl


def glacier_like_form(ground: Ground, rng: Rng) -> Traits:
    """Draw a viscous tongue out of an alcove between two ridges: arcs inside, a moraine around.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    along, across = ground.axes(bearing)
    across = across + np.float32(rng.uniform(-0.35, 0.35)) * along**2
    half, end = rng.uniform(0.09, 0.14), rng.uniform(0.24, 0.36)
    widen = rng.uniform(0.9, 1.6)

    share = np.clip((along + 0.42) / (end + 0.42), 0, 1)
    width = half * (1.15 - 0.35 * bump(share - 0.45, 0.3) + (widen - 1.0) * share**2)
    past = np.maximum(along - np.float32(end - half), 0) + np.maximum(-0.36 - along, 0)
    edge = width - np.hypot(across, past) + 0.008 * wiggle(rng, along, 0.3)

    envelope = bump(along + 0.2, 0.36) * bump(across, 0.48)
    rough = ground.noise(rng, 0.5, 0.06, 1.7)
    ridges = 1 - bump(across, 0.2) * smoothstep(along, -0.56, -0.38)
    ground.lift(envelope * (0.27 * ridges + 0.03 * rough * smoothstep(-edge, -0.02, 0.06)))

    inside = smoothstep(edge, -0.01, 0.05)
    arcs = np.sin(
        np.float32(2 * np.pi / rng.uniform(0.055, 0.08)) * (along - 3.2 * across**2)
        + 0.8 * wiggle(rng, across, 0.2)
    )
    lines = wiggle(rng, across / np.maximum(width, 0.02), 0.5)
    front = smoothstep(along, -0.3, 0.25)
    flow = 0.0042 * arcs * (0.3 + 0.7 * front) + 0.002 * lines
    ground.lift(inside * (0.04 + 0.02 * front + flow * smoothstep(edge, 0.0, 0.04)))
    ground.lift(0.028 * bump(edge + 0.005, 0.02) * (0.25 + 0.75 * front))
    ground.tint(inside * np.float32(rng.uniform(0.0, 0.1)))
    detail = "with a raised moraine ridge" if rng.random() < 0.5 else "with arcuate flow ridges"
    return Traits(size=end + 0.45, bearing=bearing, flows=True, count=1, detail=detail)


def polygonal_terrain(ground: Ground, rng: Rng) -> Traits:
    """Draw frost-cracked ground: a net of narrow dark troughs around convex cells.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    spacing = rng.uniform(0.11, 0.2)
    nearest, gap, _ = cells(ground, rng, spacing, jitter=rng.uniform(0.5, 0.95))
    trough = bump(gap, 0.13 * spacing)
    ground.lift(-0.09 * spacing * trough)
    ground.lift(-0.1 * nearest**2 / spacing)
    ground.tint(0.03 - np.float32(rng.uniform(0.1, 0.2)) * trough)
    return Traits(size=0.9, detail="with large cells" if spacing > 0.155 else "with small cells")


def swiss_cheese_terrain(ground: Ground, rng: Rng) -> Traits:
    """Draw flat-floored round pits that eat into a smooth bright slab of ice, and merge.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    spacing = rng.uniform(0.15, 0.24)
    depth = np.full(ground.height.shape, -1.0, dtype=np.float32)
    count = 0
    for u, v in ground.scatter(rng, spacing, 0.9):
        if rng.random() < 0.3:
            continue
        radius = spacing * rng.uniform(0.24, 0.62)
        rho = np.hypot(ground.u - np.float32(u), ground.v - np.float32(v))
        np.maximum(depth, np.float32(radius) - rho, out=depth)
        count += ground.contains(float(u), float(v))
    depth += 0.012 * ground.noise(rng, 0.5, 0.12)
    ground.lift(-0.035 * smoothstep(depth, -0.012, 0.018))
    ground.tint(0.12 - 0.2 * smoothstep(depth, 0.0, 0.03) + 0.14 * bump(depth + 0.012, 0.012))
    return Traits(size=0.9, count=count, detail="flat-floored")


def araneiform_terrain(ground: Ground, rng: Rng) -> Traits:
    """Draw spiders: dark troughs that branch outward from a centre, carved by gas under ice.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    count = 0
    for u, v in sample_spaced_points(rng, int(rng.integers(1, 4)), 0.42, 0.28):
        size = rng.uniform(0.2, 0.32) if count else rng.uniform(0.26, 0.38)
        spot = ground.crop(u, v, size, 1.25)
        if spot is None:
            continue
        legs = int(rng.integers(6, 10))
        turn = rng.uniform(0, 360)
        carved = bump(spot.radius(), 0.09)
        for leg in range(legs):
            heading = turn + 360 * leg / legs + rng.normal(0, 10)
            reach = rng.uniform(0.65, 1.05)
            path = wander(rng, (0, 0), heading, reach, steps=4, turn=16)
            paths = [(path, 0.055)]
            for joint in (1, 2, 3):
                side = heading + rng.choice([-1, 1]) * rng.uniform(30, 55)
                start = (float(path[joint][0]), float(path[joint][1]))
                paths.append((wander(rng, start, side, reach * 0.4, steps=2, turn=14), 0.035))
            for branch, width in paths:
                away, where = spot.to_path(branch)
                np.maximum(carved, (1 - 0.5 * where) * bump(away, width), out=carved)
        spot.lift(-0.06 * carved)
        spot.tint(-0.3 * carved)
        count += ground.contains(u, v)
    return Traits(size=0.7, count=count, detail="branching radially")


def yardangs(ground: Ground, rng: Rng) -> Traits:
    """Draw straight, sharp, parallel ridges, blunt upwind and tapering downwind, in soft pale rock.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = ground.heading(rng)
    along, across = ground.axes(bearing)
    across = across + 0.012 * ground.noise(rng, 2.0, 0.8)
    width, length = rng.uniform(0.085, 0.15), rng.uniform(0.4, 0.75)
    row = np.floor(across / width).astype(np.int64)
    shifts, heights, widths = rng.random(97), rng.uniform(0.25, 1, 1009), rng.uniform(0.55, 1, 1009)
    position = along / length + shifts[row % 97].astype(np.float32)
    cell = np.floor(position).astype(np.int64)
    kind = (row * 31 + cell * 7) % 1009
    forward = position - cell  # 0 at the blunt head, 1 at the tail
    taper = smoothstep(forward, 0.03, 0.14) * (1 - forward) ** 0.5
    breadth = widths[kind].astype(np.float32) * taper * 0.5
    side = np.abs(across / width - row - np.float32(0.5))
    profile = smoothstep(breadth - side, -0.03, 0.22) * smoothstep(taper, 0.0, 0.3)
    ground.lift(np.float32(0.42 * width) * heights[kind].astype(np.float32) * profile)
    ground.lift(0.003 * ground.noise(rng, 0.1, 0.02))
    ground.tint(0.06 * profile - 0.01)
    detail = "closely spaced" if width < 0.115 else "broad"
    return Traits(size=0.9, bearing=bearing, detail=detail)


def linear_dunes(ground: Ground, rng: Rng) -> Traits:
    """Draw dark ridges of sand, long and sinuous, that run on and join in Y-shaped forks.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = ground.heading(rng) % 180
    _, across = ground.axes(bearing)
    spacing = rng.uniform(0.09, 0.17)
    bend = ground.noise(rng, 1.6, 0.3, 2.2)
    forks = np.arctan2(
        ground.noise(rng, 1.2, 0.5, 2.0), ground.noise(rng, 1.2, 0.5, 2.0)
    )  # phase defects, at which a ridge begins or ends
    phase = across / np.float32(spacing) + np.float32(0.5) * bend + forks / np.float32(2 * np.pi)
    ridge = 0.5 + 0.5 * np.cos(np.float32(2 * np.pi) * phase)
    ground.lift(np.float32(0.24 * spacing) * ridge**1.5)
    ground.tint(0.05 - np.float32(rng.uniform(0.2, 0.32)) * ridge)
    detail = "finely spaced" if spacing < 0.12 else "widely spaced"
    return Traits(size=0.9, bearing=bearing, detail=detail)


def barchan_dunes(ground: Ground, rng: Rng) -> Traits:
    """Draw dark crescents with horns downwind and a steep lee face between them.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = ground.heading(rng)
    spacing = rng.uniform(0.22, 0.34)
    span = spacing * rng.uniform(0.36, 0.46)
    dark = rng.uniform(0.25, 0.4)
    count = 0
    for u, v in ground.scatter(rng, spacing, 0.6):
        if rng.random() < 0.12:
            continue
        size = span * rng.uniform(0.65, 1.15)
        spot = ground.crop(float(u), float(v), size, 1.9)
        if spot is None:
            continue
        along, across = spot.axes(bearing + rng.normal(0, 5))
        horn, body = rng.uniform(0.5, 0.8), rng.uniform(1.0, 1.3)
        parabola = across**2
        room = np.clip(1 - parabola, 0, 1)
        windward = along - (-body + (horn + body) * parabola)
        lee = along - horn * parabola
        crest = np.clip(windward / np.maximum(body * room, 0.05), 0, 1)
        sand = crest * room * (1 - smoothstep(lee, 0.0, 0.22)) * (across**2 < 1)
        spot.lift(0.42 * sand)
        spot.tint(-np.float32(dark) * smoothstep(sand, 0.02, 0.2))
        count += ground.contains(float(u), float(v))
    return Traits(size=0.9, bearing=bearing, flows=True, count=count, detail="crescent-shaped")


def dust_devil_tracks(ground: Ground, rng: Rng) -> Traits:
    """Draw thin dark curls and lines that cross each other on bright dust, without any relief.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    count = int(rng.integers(7, 18))
    bearing = ground.heading(rng) % 180
    lifted = np.zeros_like(ground.albedo)
    for _ in range(count):
        heading = bearing + rng.normal(0, 28)
        curve = rng.uniform(1.2, 6) * rng.choice([-1, 1])
        u, v = rng.uniform(-0.5, 0.5, 2)
        centre = ground.to_uv(heading + 90, curve, 0)
        along, _ = ground.axes(heading)
        rho = np.hypot(ground.u - np.float32(u + centre[0]), ground.v - np.float32(v + centre[1]))
        away = np.abs(rho - np.float32(abs(curve))) + 0.012 * wiggle(rng, along, 0.35)
        ends = 1 - smoothstep(np.abs(along - rng.uniform(-0.3, 0.3)), 0.45, 0.65)
        dark = np.float32(rng.uniform(0.2, 0.42))
        np.maximum(lifted, dark * bump(away, rng.uniform(0.01, 0.02)) * ends, out=lifted)
    ground.tint(0.1 - lifted)
    return Traits(size=0.9, bearing=bearing, count=count, detail="criss-crossing")


def wind_streaks(ground: Ground, rng: Rng) -> Traits:
    """Draw tails of bright or dark dust in the lee of small craters, all pointing the same way.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = ground.heading(rng)
    bright = bool(rng.random() < 0.55)
    count = 0
    for u, v in sample_spaced_points(rng, int(rng.integers(2, 5)), 0.28, 0.36):
        radius = rng.uniform(0.04, 0.07)
        spot = ground.crop(u, v, radius, 12)
        if spot is None:
            continue
        along, across = spot.axes(bearing + rng.normal(0, 3))
        far = np.float32(rng.uniform(6, 10))
        share = np.clip(along / far, 0, 1)
        width = 1.0 + 1.5 * share - 1.6 * share**3
        tail = smoothstep(width - np.abs(across), -0.2, 0.5) * smoothstep(along, -0.3, 0.6)
        tail = tail * (1 - share) ** 0.6
        tail = tail * (0.85 + 0.15 * spot.noise(rng, 3, 0.3, 1.4))
        spot.tint(np.float32(0.42 if bright else -0.4) * tail)
        bowl(spot, depth=0.38, rim=0.13)
        count += ground.contains(u, v)
    return Traits(
        size=0.8, bearing=bearing, flows=True, count=count, detail="bright" if bright else "dark"
    )
