"""The nearest of many points for every pixel: cracks, blocks, cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic._ground import Floats, Ground, Rng


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
