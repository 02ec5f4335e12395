"""A map server over a small store, without a network."""

from __future__ import annotations

import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

import marsretrieval as mr
from marsretrieval.web.app import create_app
from marsretrieval.web.images import MapImages
from marsretrieval.web.server import MapServer, ServeOptions
from marsretrieval.web.state import Server
from marsretrieval.web.workspace import MapStore


@pytest.fixture(scope="session")
def plain_store(tiny_planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images without positions, embedded."""
    folder = tmp_path_factory.mktemp("plain")
    with tarfile.open(
        min((tiny_planet / "Mars-Global-Geolocalization" / "tiles").rglob("*.tar"))
    ) as tar:
        members = [member for member in tar if member.name.endswith((".jpg", ".png"))][:12]
        (folder / "images").mkdir()
        for number, member in enumerate(members):
            data = tar.extractfile(member)
            assert data is not None
            image = folder / "images" / f"image{number:02d}{Path(member.name).suffix}"
            image.write_bytes(data.read())
    mr.build_store("mars-nano", folder / "images", folder / "plain.store", device="cpu")
    return folder / "plain.store"


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


@pytest.fixture(scope="session")
def map_url(
    tile_store: Path, plain_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a running server of two stores, the first with an inventory; models are loaded."""
    if not files("marsretrieval.web").joinpath("static/index.html").is_file():
        pytest.skip("the page is not built (cd frontend && npm ci && node build.mjs)")
    inventory = tmp_path_factory.mktemp("inventory") / "cones.inventory"
    server = MapServer(
        ServeOptions(
            [tile_store, plain_store],
            port=0,
            inventory=inventory,
            landform="pitted cones",
            device="cpu",
        )
    )
    for store in server.stores:
        store.load_model()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    urllib.request.urlopen(f"{server.url}api/v1/store", timeout=60).close()
    yield server.url
    server.stop()
    thread.join(timeout=30)
