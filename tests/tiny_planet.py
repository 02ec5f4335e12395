"""The smallest synthetic planet, made once a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval.datasets.synthetic import write_planet

__all__ = ["tiny_planet"]


@pytest.fixture(scope="session")
def tiny_planet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    planet = tmp_path_factory.mktemp("tiny") / "planet"
    write_planet(planet, size="tiny")
    return planet
