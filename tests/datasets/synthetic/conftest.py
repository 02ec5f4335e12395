from __future__ import annotations

import pytest

from marsretrieval.datasets.synthetic.planet import SIZES, PlanetSize, TerrainRegion


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> str:
    """Size that is generated in a tenth of a second, for tests of folders."""
    region = TerrainRegion(0, 40, 1, 1, {"pitted_cones": 3, "yardangs": 2}, ("mounds",))
    classes = ("mounds", "pitted_cones", "yardangs")
    monkeypatch.setitem(SIZES, "micro", PlanetSize(4, 9, (24, 32), classes, 16, (region,), 1))
    return "micro"
