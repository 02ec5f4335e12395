from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from marsretrieval.datasets.synthetic import write_planet
from marsretrieval.datasets.synthetic.planet import SIZES, PlanetSize, TerrainRegion

REGION = TerrainRegion(0, 40, 1, 1, {"pitted_cones": 3, "yardangs": 2}, ("mounds",))
CLASSES = ("mounds", "pitted_cones", "yardangs")
MICRO = PlanetSize(4, 9, (24, 32), CLASSES, 16, (REGION,), 1)


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> str:
    """Size that is generated in a tenth of a second, for tests of folders."""
    monkeypatch.setitem(SIZES, "micro", MICRO)
    return "micro"


@pytest.fixture(scope="session")
def whole_micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the planet of size `micro` and seed 0 once; tests must not change it."""
    folder = tmp_path_factory.mktemp("micro") / "planet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "micro", MICRO)
        write_planet(folder, size="micro")
    return folder


@pytest.fixture
def planet(whole_micro: Path, tmp_path: Path) -> Path:
    """Copy the planet of size `micro` and seed 0, for a test that changes it."""
    return Path(shutil.copytree(whole_micro, tmp_path / "planet"))
