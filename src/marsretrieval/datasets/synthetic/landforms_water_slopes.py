"""Landforms of water, slopes and volcanism."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic.ground import (
    Floats,
    Ground,
    Rng,
    Traits,
    bump,
    sample_spaced_points,
    smoothstep,
    wander,
    wiggle,
)


def alluvial_fans(ground: Ground, rng: Rng) -> Traits:
    """Draw aprons spreading from notches in a crater wall, their channels radiating from the apex.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    bend = rng.uniform(0.6, 0.95)  # radius of the crater whose wall this is
    depth = rng.uniform(0.1, 0.13)
    along, across = ground.axes(bearing)
    down = along - np.float32(bend - 0.24)
    rho = np.hypot(down, across) / np.float32(bend)
    rho = rho * (1 + 0.015 * wiggle(rng, np.arctan2(across, -down), 0.5))
    wall = smoothstep(rho, 0.78, 1.0)
    ground.lift(depth * (wall * np.where(rho > 1, np.minimum(1, rho**-4.0), 1) - 0.25))
    crest = bump(rho - 0.95, 0.08)
    ground.lift(0.007 * crest * ground.noise(rng, 0.25, 0.04, 1.5))

    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    turns = (np.arange(count) - (count - 1) / 2) * rng.uniform(0.4, 0.5) / bend
    for turn in turns:
        size = rng.uniform(0.36, 0.5) if count == 1 else rng.uniform(0.26, 0.36)
        around = float(turn + rng.normal(0, 0.03))
        apex = (bend - 0.24 - 0.9 * bend * np.cos(around), 0.9 * bend * np.sin(around))
        apex_along, apex_across = along - np.float32(apex[0]), across - np.float32(apex[1])
        cosine, sine = np.float32(np.cos(around)), np.float32(np.sin(around))
        ahead, aside = (
            apex_along * cosine - apex_across * sine,
            apex_along * sine + apex_across * cosine,
        )
        _fan(ground, rng, ahead, aside, size, rng.uniform(0.8, 1.15), bend)
    words = {1: "with radiating channels", 2: "side by side", 3: "coalescing into a bajada"}
    return Traits(size=0.7, bearing=bearing, flows=True, count=count, detail=words[count])


def _fan(
    ground: Ground,
    rng: Rng,
    ahead: Floats,
    aside: Floats,
    size: float,
    opening: float,
    bend: float,
) -> None:
    reach = np.hypot(ahead, aside) / np.float32(size)
    angle = np.arctan2(aside, ahead)
    lobes = wiggle(rng, angle, 1.1)
    toe = 1 + 0.07 * lobes - 0.3 * (angle / opening) ** 2 - reach
    sector = smoothstep(opening - np.abs(angle), 0.0, 0.4)
    body = smoothstep(toe, 0.0, 0.1) * sector
    channels = wiggle(rng, angle + 0.05 * wiggle(rng, reach, 0.5), opening * 0.22)
    spread = smoothstep(reach, 0.1, 0.35)
    ground.lift(size * body * (0.07 * np.clip(toe, 0, 1) + 0.025 + 0.008 * channels * spread))
    ground.tint(body * (np.float32(rng.uniform(0.08, 0.16)) + 0.08 * channels * spread))
    # The catchment behind the apex: a funnel that narrows to the notch.
    behind = -ahead / np.float32(0.12 * bend)
    mouth = 0.016 + 0.06 * np.clip(behind, 0, 1.2)
    notch = smoothstep(behind, -0.3, 0.2) * (1 - smoothstep(behind, 1.2, 1.7))
    ground.lift(-0.065 * notch * np.exp(-((aside / mouth) ** 2)))


def valley_network(ground: Ground, rng: Rng) -> Traits:
    """Draw branching valleys that join downstream, like a tree lying on its side.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    mouth = ground.to_uv(bearing, 0.62, rng.uniform(-0.1, 0.1))
    dense = bool(rng.random() < 0.5)
    carved = np.zeros_like(ground.height)
    _carve(ground, rng, carved, mouth, bearing + 180, 1.1, 0.036, 3 if dense else 2)
    ground.lift(-0.045 * carved)
    ground.tint(-0.06 * carved)
    detail = "densely branching" if dense else "sparsely branching"
    return Traits(size=1.0, bearing=bearing, flows=True, detail=detail)


def _carve(
    ground: Ground,
    rng: Rng,
    carved: Floats,
    mouth: tuple[float, float],
    upstream: float,
    length: float,
    width: float,
    orders: int,
) -> None:
    """Carve a valley from its mouth up to its head, with tributaries of lower orders."""
    steps = 10 if length > 0.6 else 5
    path = wander(rng, mouth, upstream, length, steps=steps, turn=20)
    away, where = ground.to_path(path)
    breadth = np.float32(width) * (1 - 0.6 * where)
    np.maximum(carved, breadth / np.float32(0.036) * np.exp(-((away / breadth) ** 2)), out=carved)
    if orders == 1:
        return
    side = int(rng.choice([-1, 1]))
    for joint in range(2, steps, 1 if length > 0.6 else 2):
        if rng.random() < 0.15:
            continue
        side = -side
        start = (float(path[joint][0]), float(path[joint][1]))
        reach = length * rng.uniform(0.28, 0.45) * (1 - 0.35 * joint / steps)
        heading = upstream + side * rng.uniform(30, 60)
        thinner = 0.62 * width * (1 - 0.4 * joint / steps)
        _carve(ground, rng, carved, start, heading, reach, thinner, orders - 1)


def gullies(ground: Ground, rng: Rng) -> Traits:
    """Draw alcove, channel and apron, several side by side, on one steep slope.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    along, across = ground.axes(bearing)
    crest = along + 0.02 * wiggle(rng, across, 0.5) + np.float32(rng.uniform(-0.5, 0.5)) * across**2
    plateau = 1 - 0.5 * smoothstep(-crest, 0.3, 0.9)
    ground.lift(0.2 * (1 - smoothstep(crest, -0.3, 0.16)) * plateau)
    ground.lift(0.02 * bump(crest + 0.29, 0.035))
    count = int(rng.integers(4, 9))
    offsets = (np.arange(count) - (count - 1) / 2) * rng.uniform(0.1, 0.13)
    for offset in offsets + rng.uniform(-0.02, 0.02, count):
        top, foot = rng.uniform(-0.31, -0.25), rng.uniform(0.04, 0.1)
        toe = foot + rng.uniform(0.14, 0.22)
        bend = 0.012 * wiggle(rng, crest, 0.3) * smoothstep(crest, top, top + 0.15)
        aside = across - np.float32(offset) + bend
        share = np.clip((crest - np.float32(top)) / 0.17, 0, 1)
        alcove = smoothstep(0.045 * (1 - share) + 0.006 - np.abs(aside), -0.008, 0.014)
        alcove = alcove * smoothstep(crest, top - 0.01, top + 0.03) * (1 - share**2)
        channel = smoothstep(crest, top + 0.05, top + 0.12) * (1 - smoothstep(crest, foot, toe))
        channel = channel * bump(aside, 0.01)
        fan = np.clip((crest - np.float32(foot)) / np.float32(toe - foot), 0, 1)
        apron = smoothstep(0.01 + 0.05 * fan - np.abs(aside), -0.012, 0.014)
        apron = apron * smoothstep(fan, 0.0, 0.15) * (1 - smoothstep(crest, toe - 0.03, toe + 0.01))
        ground.lift(-0.034 * alcove - 0.012 * channel + 0.007 * apron)
        ground.tint(0.14 * apron - 0.12 * channel - 0.08 * alcove)
    return Traits(
        size=0.7, bearing=bearing, flows=True, count=count, detail="with alcoves and aprons"
    )


def streamlined_islands(ground: Ground, rng: Rng) -> Traits:
    """Draw teardrop mesas that stand out of a flood-scoured channel floor, tails downstream.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    along, across = ground.axes(bearing)
    scour = wiggle(rng, across + 0.03 * wiggle(rng, along, 0.7), 0.09)
    lifted = np.zeros_like(ground.height)
    count = 0
    for u, v in sample_spaced_points(rng, int(rng.integers(1, 4)), 0.36, 0.26):
        length, width = rng.uniform(0.26, 0.4), rng.uniform(0.07, 0.11)
        sine, cosine = float(np.sin(np.radians(bearing))), float(np.cos(np.radians(bearing)))
        ahead = along - np.float32(u * sine - v * cosine)
        aside = across - np.float32(u * cosine + v * sine)
        share = np.clip((ahead + 0.45 * length) / length, 0, 1)
        outline = np.float32(width) * (np.sqrt(share) * (1 - share) * 2.6)
        edge = outline - np.abs(aside)
        inside = smoothstep(edge, -0.008, 0.02) * (share > 0) * (share < 1)
        terrace = smoothstep(edge, 0.03, 0.045)
        np.maximum(lifted, inside * (0.7 + 0.3 * terrace), out=lifted)
        count += ground.contains(u, v)
    ground.lift(
        0.05 * lifted + 0.0022 * scour * (1 - lifted) * (0.7 + 0.3 * ground.noise(rng, 1, 0.4))
    )
    ground.tint(0.05 * lifted - 0.03)
    return Traits(size=0.7, bearing=bearing, flows=True, count=count, detail="teardrop-shaped")


def landslides(ground: Ground, rng: Rng) -> Traits:
    """Draw a bite out of a high wall, slumped blocks below it, a grooved lobe with a steep margin.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
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
    """Draw dark fans that start at a point high on a dusty slope and widen a little downhill.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    along, across = ground.axes(bearing)
    crest = along + 0.03 * wiggle(rng, across, 0.5)
    ground.lift(
        0.15 * (1 - smoothstep(crest, -0.36, 0.42)) * bump(np.minimum(crest + 0.36, 0), 0.3)
    )
    ground.tint(0.12)
    count = int(rng.integers(4, 11))
    offsets = (np.arange(count) - (count - 1) / 2) * 0.72 / count
    for offset in offsets + rng.uniform(-0.03, 0.03, count):
        top, length = rng.uniform(-0.32, -0.12), rng.uniform(0.22, 0.48)
        share = (crest - np.float32(top)) / np.float32(length)
        aside = across - np.float32(offset) + 0.006 * wiggle(rng, along, 0.3)
        width = np.float32(rng.uniform(0.02, 0.045)) * np.clip(share * 1.6, 0, 1) ** 0.8
        streak = smoothstep(width - np.abs(aside), -0.006, 0.01)
        streak = streak * smoothstep(share, 0.0, 0.08) * (1 - smoothstep(share, 0.86, 1.0))
        ground.tint(-np.float32(rng.uniform(0.22, 0.5)) * streak)
    return Traits(size=0.75, bearing=bearing, flows=True, count=count, detail="dark and parallel")


def pitted_cones(ground: Ground, rng: Rng) -> Traits:
    """Draw small steep cones, each with a pit at its top, scattered or in chains.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    target = int(rng.integers(4, 15))
    middle = rng.uniform(0.05, 0.085)
    chain = bool(rng.random() < 0.3)
    bearing = float(rng.uniform(0, 180))
    bright = rng.uniform(0.0, 0.1)
    count = 0
    for along, across in sample_spaced_points(rng, target, 2.0 * middle, 0.42):
        u, v = ground.to_uv(bearing, along, across * (0.35 if chain else 1))
        radius = middle * rng.uniform(0.75, 1.35)
        spot = ground.crop(u, v, radius, 1.7)
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
        count += ground.contains(u, v)
    return Traits(
        size=0.8,
        count=count,
        bearing=bearing if chain else None,
        detail="aligned in a chain" if chain else "scattered",
    )


def mounds(ground: Ground, rng: Rng) -> Traits:
    """Draw rounded knobs without a pit.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    target, middle = int(rng.integers(4, 13)), rng.uniform(0.05, 0.1)
    count = 0
    for u, v in sample_spaced_points(rng, target, 2.0 * middle, 0.42):
        spot = ground.crop(u, v, middle * rng.uniform(0.75, 1.4), 1.5)
        if spot is None:
            continue
        angle, phase = np.arctan2(spot.v, spot.u), rng.uniform(0, 6, 2).astype(np.float32)
        rho = spot.radius()
        rho = rho * (1 + 0.12 * np.sin(2 * angle + phase[0]) + 0.07 * np.sin(3 * angle + phase[1]))
        spot.lift(0.5 * np.clip(1 - rho**2, 0, 1) ** 1.5)
        spot.tint(0.04 * smoothstep(1 - rho, 0, 0.4))
        count += ground.contains(u, v)
    return Traits(size=0.84, count=count, detail="rounded, without pits")


def lava_flow(ground: Ground, rng: Rng) -> Traits:
    """Draw a long lobe with a steep lobate margin, a channel between levees, a ropy rough top.

    Args:
        ground: Ground to modify.
        rng: Random generator.

    Returns:
        Properties of the landform.
    """
    bearing = float(rng.uniform(0, 360))
    start = ground.to_uv(bearing, -0.75, rng.uniform(-0.1, 0.1))
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
