"""Synthetic Mars: seeded terrain with landforms at known locations.

It is written in the layouts of the real datasets, so that everything runs without them. Every
folder states that its content is synthetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.datasets.records import PlanetRecord, find_planet
    from marsretrieval.datasets.synthetic.dataset_files import sample_pair
    from marsretrieval.datasets.synthetic.registry import BENCHMARK, LANDFORMS
    from marsretrieval.datasets.synthetic.scene import Attributes, sample
    from marsretrieval.datasets.synthetic.writer import Summary, describe_planet, write_planet

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

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.datasets.synthetic.dataset_files": ("sample_pair",),
        "marsretrieval.datasets.synthetic.registry": (
            "BENCHMARK",
            "LANDFORMS",
        ),
        "marsretrieval.datasets.synthetic.scene": (
            "Attributes",
            "sample",
        ),
        "marsretrieval.datasets.records": ("PlanetRecord", "find_planet"),
        "marsretrieval.datasets.synthetic.writer": ("Summary", "describe_planet", "write_planet"),
    },
)
