"""Where a region lies in a search view: as runs of places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from marsretrieval.geo import Box, Region, wrap_lon
from marsretrieval.search.view import SearchView
from marsretrieval.search.view._layout import BANDS, band_of

_MARGIN_DEG = 1e-6  # wider than the tolerance of a box's edges


@dataclass(frozen=True, slots=True)
class Run:
    """Places start..end - 1. whole: all of them lie in the region; else each must be asked."""

    start: int
    end: int
    whole: bool


def runs_of(view: SearchView, region: Region) -> list[Run]:
    """Runs that hold every row of the region, in ascending order and without overlap."""
    spans = sorted(span for box in region.boxes for span in _spans(view, box))
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [Run(start, end, whole=False) for start, end in merged]


def _spans(view: SearchView, box: Box) -> Iterator[tuple[int, int]]:
    """For each latitude band that `box` touches, the rows within its longitudes."""
    first, last = band_of([box.south - _MARGIN_DEG, box.north + _MARGIN_DEG]).tolist()
    parts = _longitudes(box)
    for band in range(max(0, first), min(BANDS - 1, last) + 1):
        start, end = int(view.starts[band]), int(view.starts[band + 1])
        if start == end:
            continue
        lon = view.lon[start:end]
        for west, east in parts:
            low, high = np.searchsorted(lon, (west, east), side="left").tolist()
            if low < high:
                yield start + low, start + high


def _longitudes(box: Box) -> list[tuple[float, float]]:
    """Half-open ranges within -180..180 that hold all longitudes of `box`, and a little more."""
    if box.width >= 360 - 4 * _MARGIN_DEG:
        return [(-180.0, np.inf)]
    west = float(wrap_lon(box.west - _MARGIN_DEG))
    east = float(wrap_lon(box.east + _MARGIN_DEG))
    return [(west, east)] if west <= east else [(-180.0, east), (west, np.inf)]
