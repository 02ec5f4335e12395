from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import marsretrieval
from tests.fakes import FakeEncoder
from tests.search.places import make_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 x 4 tiles of 0.2 degrees on both sides of the antimeridian."""
    path = tmp_path_factory.mktemp("api") / "store"
    lons = [179.7, 179.9, -179.9, -179.7]
    make_store(path, [(lon, 0.1 + 0.2 * row, 0.2) for row in range(5) for lon in lons])
    return path


@pytest.fixture
def store(folder: Path) -> Any:
    return marsretrieval.open_store(folder, encoder=FakeEncoder())
