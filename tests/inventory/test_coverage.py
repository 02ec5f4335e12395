"""Coverage of the interval when the reader stops as soon as it is narrow enough."""

from __future__ import annotations

import pytest

pytest.importorskip("benchmarks.inventory.coverage")

from benchmarks.inventory.coverage import SETTINGS, Setting, simulate


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_interval_covers_the_truth(setting: Setting) -> None:
    result = simulate(setting, 1000)
    assert result["coverage"] >= 0.93
    assert abs(result["bias"]) < 0.05
    assert result["marks"] <= 700


def test_one_setting_in_a_moment() -> None:
    result = simulate(SETTINGS[2], 100)
    assert result["coverage"] >= 0.93
    assert 300 < result["marks"] < 600
