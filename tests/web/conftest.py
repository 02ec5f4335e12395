"""A map server over a small store, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

import marsretrieval as mr
from marsretrieval.web.app import create_app
from marsretrieval.web.images import MapImages
from marsretrieval.web.state import Server
from marsretrieval.web.workspace import MapStore


@pytest.fixture(scope="session")
def tile_store(tiny_planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiles of the tiny planet, embedded."""
    path = tmp_path_factory.mktemp("map") / "mars.store"
    tiles = tiny_planet / "Mars-Global-Geolocalization" / "tiles"
    mr.build_store("mars-nano", tiles, path, device="cpu")
    return path


@pytest.fixture(scope="module")
def map_store(tile_store: Path) -> MapStore:
    store = MapStore(mr.open_store(tile_store, device="cpu"), "mars")
    store.load_model()
    return store


@pytest.fixture
def server(map_store: MapStore) -> Server:
    return Server({"mars": map_store}, {"mars": MapImages(map_store)})


@pytest.fixture
def client(server: Server) -> Any:
    return TestClient(create_app(server), base_url="http://127.0.0.1:8765")
