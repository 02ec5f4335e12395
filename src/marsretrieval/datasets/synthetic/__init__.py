"""Synthetic Mars: seeded terrain with landforms at known locations.

It is written in the layouts of the real datasets, so that everything runs without them. Every
folder states that its content is synthetic.
"""

from __future__ import annotations

from marsretrieval.datasets.synthetic.captions import sample_pair
from marsretrieval.datasets.synthetic.registry import BENCHMARK, LANDFORMS
from marsretrieval.datasets.synthetic.scene import Attributes, sample
from marsretrieval.datasets.synthetic.writer import (
    PlanetRecord,
    Summary,
    describe_planet,
    find_planet,
    write_planet,
)

__all__ = [
    "BENCHMARK",
    "LANDFORMS",
    "Attributes",
    "PlanetRecord",
    "Summary",
    "describe_planet",
    "find_planet",
    "sample",
    "sample_pair",
    "write_planet",
]
