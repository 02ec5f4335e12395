from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.inventory import Inventory
from tests.fakes import FakeEncoder
from tests.search.places import make_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """600 tiles of 0.2 degrees in 20 rows and 30 columns."""
    positions = [
        (0.1 + 0.2 * column, 0.1 + 0.2 * row, 0.2) for row in range(20) for column in range(30)
    ]
    return make_store(tmp_path_factory.mktemp("inventory") / "store", positions)


@pytest.fixture
def query() -> np.ndarray:
    return FakeEncoder().encode_texts(["pitted cones"])[0]


@pytest.fixture
def inventory(tmp_path: Path, store: EmbeddingStore, query: np.ndarray) -> Iterator[Inventory]:
    path = tmp_path / "cones.inventory"
    with Inventory.create(path, store, landform="pitted cones", query=query) as opened:
        yield opened


@pytest.fixture
def run_audit() -> Callable[[Inventory, set[str]], int]:
    """Answer the pages of the open audit truthfully; returns the number of tiles shown."""

    def run(inventory: Inventory, truth: set[str]) -> int:
        tile_count = 0
        while tiles := inventory.next().tiles:
            names = [tile["id"] for tile in tiles]
            inventory.mark({name: "yes" if name in truth else "no" for name in names})
            tile_count += len(names)
        return tile_count

    return run
