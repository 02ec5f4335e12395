"""Beds laid down one over the other and cut open."""

from __future__ import annotations

import numpy as np

from marsretrieval.datasets.synthetic._ground import Ground, Rng, bump, smoothstep
from marsretrieval.datasets.synthetic._traits import Traits


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
