"""Map windows for given positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.plotting import PLANET, window

spots = st.lists(st.tuples(st.floats(-180, 360), st.floats(-90, 90)), min_size=1, max_size=20)


@given(spots)
def test_every_position_is_on_the_map(positions: list[tuple[float, float]]) -> None:
    lon, lat = np.array(positions).T
    assert window(lon, lat).contains(lon, lat).all()


def test_the_shorter_way_round() -> None:
    box = window([179, -179], [0, 0])
    assert box.width < 10 and box.contains(180, 0)[0]
    assert (box.west + box.width / 2) % 360 == pytest.approx(180)


def test_wide_and_empty_ones_show_the_planet() -> None:
    assert window([0, 150], [0, 0]) == PLANET
    assert window([0, 0], [-70, 70]) == PLANET
    assert window([], []) == PLANET
    assert window([np.nan, 5], [2, np.nan]) == PLANET


def test_window_around_a_single_position() -> None:
    box = window([10], [60])
    assert box.height >= 2 and box.width >= 4  # two degrees of a great circle
    pole = window([10], [89.9])
    assert pole.north == 90 and pole.height == pytest.approx(2)


def test_positions_around_a_pole_show_its_cap() -> None:
    box = window([0, 90, 180, -90], [75, 80, 70, 85])
    assert (box.north, box.width) == (90, 360) and 60 < box.south < 70
    south = window([0, 120, -120], [-80, -70, -85])
    assert (south.south, south.width) == (-90, 360) and -70 < south.north < -60
