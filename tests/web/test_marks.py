"""Marks, learning, audits and exports over HTTP."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import marsretrieval as mr
from marsretrieval.api.inventory import open_inventory
from marsretrieval.errors import UsageError
from marsretrieval.inventory import InventoryError, estimate_files
from marsretrieval.web.app import create_app
from marsretrieval.web.images import MapImages
from marsretrieval.web.map_inventory import MapInventory
from marsretrieval.web.state import Server
from marsretrieval.web.workspace import MapStore

API = "/api/v1"


@pytest.fixture
def inventory(map_store: MapStore, tmp_path: Path) -> Iterator[MapInventory]:
    opened = MapInventory.open(tmp_path / "cones", [map_store], landform="pitted cones")
    yield opened
    opened.close()


@pytest.fixture
def client(server: Server, inventory: MapInventory) -> Any:
    server.inventory = inventory
    return TestClient(create_app(server), base_url="http://127.0.0.1:8765")


def log(inventory: MapInventory) -> list[dict[str, Any]]:
    path = Path(inventory.summary()["path"]) / "marks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def search(client: Any, **query: Any) -> dict[str, Any]:
    response = client.post(f"{API}/searches", json=query)
    assert response.status_code == 200, response.text
    return response.json()


def mark(client: Any, tile: str, value: str, **details: Any) -> dict[str, int]:
    response = client.put(f"{API}/marks/{tile}", json={"mark": value, **details})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_mark_is_saved_with_its_origin(client, inventory, map_store):
    answer = search(client, text=["pitted cones"])
    hit = answer["hits"][4]
    details = {"search": answer["key"], "rank": hit["rank"], "score": hit["score"]}
    assert mark(client, hit["id"], "yes", count=3, tiles=2, note="a chain", **details) == {
        "yes": 1, "no": 0, "unsure": 0,
    }  # fmt: skip
    (line,) = log(inventory)
    assert {line[key] for key in ("how", "mark")} == {"search", "yes"}
    assert (line["rank"], line["score"], line["count"], line["note"]) == (
        5, hit["score"], 3, "a chain",
    )  # fmt: skip
    folder = Path(inventory.summary()["path"]) / "searches"
    vector = np.load(folder / f"{line['search']}.npy")
    store = mr.open_store(map_store.store.path, device="cpu")
    assert vector == pytest.approx(store.search("pitted cones", k=1).query)
    assert json.loads((folder / f"{line['search']}.json").read_text())["text"] == "pitted cones"
    # It is shown with the tile everywhere.
    assert client.get(f"{API}/marks").json() == [
        {"id": hit["id"], "lon": hit["lon"], "lat": hit["lat"], "mark": "yes"}
    ]
    assert search(client, text=["pitted cones"])["hits"][4]["mark"] == "yes"
    assert client.get(f"{API}/tiles/{hit['id']}").json()["mark"] == "yes"
    assert client.delete(f"{API}/marks/{hit['id']}").json() == {"yes": 0, "no": 0, "unsure": 0}
    assert client.get(f"{API}/marks").json() == []


def test_invalid_marks(client, map_store):
    name = map_store.tiles.ids([0])[0]
    url = f"{API}/marks/{name}"
    assert client.put(url, json={"mark": "maybe"}).status_code == 422
    assert client.put(url, json={"mark": "yes", "count": 0}).status_code == 422
    assert "Did you mean" in client.put(f"{url}x", json={"mark": "yes"}).json()["remedy"]
    response = client.put(url, json={"mark": "yes", "audit": 1, "showing": 1})
    assert response.json()["error"] == "audit 1 is not open"
    # A search that the server has forgotten does not prevent a mark.
    assert mark(client, name, "yes", search="0" * 16, rank=1)["yes"] == 1


def test_a_full_disk_is_reported_and_nothing_is_marked(client, inventory, map_store, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    name = map_store.tiles.ids([0])[0]
    monkeypatch.setattr(os, "fsync", full)
    response = client.put(f"{API}/marks/{name}", json={"mark": "yes"})
    assert response.status_code == 507
    assert "NOT saved" in response.json()["error"]
    monkeypatch.undo()
    assert client.get(f"{API}/marks").json() == []
    assert log(inventory) == []


def test_learning_ranks_all_tiles_anew(client, inventory):
    assert "both yes and no" in client.post(f"{API}/learn", json={}).json()["error"]
    assert "learn" in client.post(f"{API}/searches", json={"learned": True}).json()["remedy"]
    hits = search(client, text=["pitted cones"])["hits"]
    for hit in hits[:3]:
        mark(client, hit["id"], "yes")
    assert client.post(f"{API}/learn", json={}).status_code == 422
    for hit in hits[100:106]:
        mark(client, hit["id"], "no")
    answer = client.post(f"{API}/learn", json={}).json()
    assert client.get(f"{API}/searches/{answer['key']}/raster").status_code == 200
    assert answer["title"] == "learned from the marks"
    assert "learned.npy" in answer["cli"]
    assert client.get(f"{API}/inventory").json()["learned"]
    again = search(client, learned=True)
    assert [hit["id"] for hit in again["hits"]] == [hit["id"] for hit in answer["hits"]]
    score = {hit["id"]: hit["score"] for hit in answer["hits"]}
    assert max(score.get(hit["id"], -1) for hit in hits[100:106]) < score[hits[0]["id"]]
    response = client.post(f"{API}/searches", json={"learned": True, "text": ["dunes"]})
    assert response.status_code == 422


def test_an_audit_shows_tiles_blindly_until_it_is_complete(client, inventory, map_store):
    answer = search(client, text=["pitted cones"])
    truth = {hit["id"] for hit in answer["hits"][:8]}
    for hit in answer["hits"][:3]:
        mark(client, hit["id"], "yes")
    assert client.get(f"{API}/audits/1/page").status_code == 422
    assert client.post(f"{API}/audits", json={"domain": 60, "target": 1}).status_code == 422
    audit = client.post(f"{API}/audits", json={"domain": 60}).json()
    assert (audit["number"], audit["domain"], audit["done"]) == (1, 60, 0)
    assert client.post(f"{API}/audits", json={"domain": 60}).status_code == 422
    tile_count = pages = 0
    while tiles := (page := client.get(f"{API}/audits/1/page").json())["tiles"]:
        pages += 1
        assert page["done"] == tile_count
        assert page["planned"] >= tile_count + len(tiles)
        assert all(tile["score"] is None and tile["rank"] == 0 for tile in tiles)
        if pages == 1:
            # Half of a page is answered; the other half comes again.
            tile = client.get(f"{API}/tiles/{tiles[0]['id']}?search={answer['key']}").json()
            assert tile["score"] is None and tile["mark"] is None
            half = tiles[: len(tiles) // 2]
        else:
            half = tiles
        for tile in half:
            value = "yes" if tile["id"] in truth else "no"
            mark(client, tile["id"], value, audit=1, showing=tile["showing"])
        tile_count += len(half)
    assert page["done"] == page["planned"] == tile_count
    info = client.get(f"{API}/inventory").json()
    assert info["audit"]["complete"] and info["held_back"] > 0
    estimate = info["estimate"]
    assert estimate["tiles"]["low"] <= 8 <= estimate["tiles"]["high"]
    assert "pitted cones" in estimate["sentence"]
    response = client.put(
        f"{API}/marks/{answer['hits'][-1]['id']}", json={"mark": "no", "audit": 1, "showing": 1}
    )
    assert "not on page 1" in response.json()["error"]
    closed = client.post(f"{API}/audits/1/close", json={}).json()
    assert closed["audit"] is None and closed["held_back"] == 0
    assert client.post(f"{API}/audits/1/close", json={}).status_code == 422
    details = client.get(f"{API}/estimate").json()
    with open_inventory(inventory.summary()["path"], read_only=True) as again:
        expected = estimate_files(again.files)
    assert details["tiles"] == expected["tiles"] and details["audit"] == expected["audit"]


def test_a_search_does_not_answer_the_open_page_of_an_audit(client, inventory, map_store):
    answer = search(client, text=["pitted cones"])
    client.post(f"{API}/audits", json={"domain": 60})
    tiles = client.get(f"{API}/audits/1/page").json()["tiles"]
    first, second = tiles[0], tiles[1]
    for details in ({"search": answer["key"]}, {}):  # a search that was forgotten, too
        response = client.put(f"{API}/marks/{first['id']}", json={"mark": "yes", **details})
        assert response.status_code == 422
        assert "open page of audit 1" in response.json()["error"]
        assert "close the audit" in response.json()["remedy"]
    assert client.get(f"{API}/marks").json() == []
    mark(client, first["id"], "no", audit=1, showing=first["showing"])
    assert client.put(f"{API}/marks/{first['id']}", json={"mark": "yes"}).status_code == 422
    # Taking an answer back only means that the tile is shown again.
    assert client.delete(f"{API}/marks/{first['id']}").status_code == 200
    remaining = client.get(f"{API}/audits/1/page").json()["tiles"]
    assert {tile["id"] for tile in remaining} == {tile["id"] for tile in tiles}
    other = next(hit for hit in answer["hits"] if hit["id"] not in {tile["id"] for tile in tiles})
    mark(client, other["id"], "yes", search=answer["key"])
    # After the audit, a mark of a tile without an answer is a mark like any other.
    client.post(f"{API}/audits/1/close", json={})
    mark(client, second["id"], "yes", search=answer["key"])
    assert [line.get("audit") for line in log(inventory)] == [1, 1, None, None]


def test_exports_are_written_and_fetched(client, inventory):
    response = client.post(f"{API}/exports", json={"format": "places.geojson"})
    assert response.status_code == 409 and "nothing to export" in response.json()["error"]
    hits = search(client, text=["pitted cones"])["hits"]
    for hit in hits[:3]:
        mark(client, hit["id"], "yes")
    for name in ("places.geojson", "ground_truth.csv", "report.md"):
        written = client.post(f"{API}/exports", json={"format": name}).json()
        data = client.get(f"{API}/exports/{written['name']}").content
        assert data == Path(written["path"]).read_bytes()
    assert written["name"] == "report.md" and b"pitted cones" in data
    layer = client.get(f"{API}/exports/places.geojson").json()
    assert "49900" in json.dumps(layer["crs"])
    assert client.post(f"{API}/exports", json={"format": "../x.csv"}).status_code == 422
    for name in ("marks.csv", "..%2Finventory.json", "inventory.json"):
        assert client.get(f"{API}/exports/{name}").status_code == 404


def test_a_second_server_only_looks(client, inventory, map_store, tmp_path):
    lines: list[str] = []
    path = inventory.summary()["path"]
    second = MapInventory.open(path, [map_store], report=lines.append)
    assert "another process is writing" in lines[0]
    server = Server({"mars": map_store}, {"mars": MapImages(map_store)}, inventory=second)
    reader = TestClient(create_app(server), base_url="http://127.0.0.1")
    info = reader.get(f"{API}/store").json()
    assert info["read_only"] and "looked at" in info["read_only_reason"]
    name = map_store.tiles.ids([0])[0]
    response = reader.put(f"{API}/marks/{name}", json={"mark": "yes"})
    assert response.status_code == 403 and response.json()["code"] == "read-only"
    assert reader.post(f"{API}/learn", json={}).status_code == 403
    mark(client, name, "yes")
    assert [one["id"] for one in reader.get(f"{API}/marks").json()] == [name]
    assert reader.get(f"{API}/inventory").json()["marked"]["yes"] == 1


def test_opening_an_inventory(map_store, tmp_path):
    with pytest.raises(InventoryError, match="no inventory here") as error:
        MapInventory.open(tmp_path / "none", [map_store])
    assert "--landform" in (error.value.remedy or "")
    path = tmp_path / "cones.inventory"
    MapInventory.open(path, [map_store], landform="cones").close()
    with pytest.raises(UsageError, match="is about cones, not dunes"):
        MapInventory.open(path, [map_store], landform="dunes")
    opened = MapInventory.open(path, [map_store], landform="cones", read_only=True)
    assert opened.name == "cones" and "--read-only" in opened.read_only


def test_an_inventory_belongs_to_one_of_several_stores(server, inventory, map_store, tiny_planet):
    tiles = tiny_planet / "Mars-Global-Geolocalization" / "tiles"
    path = map_store.store.path.parent / "other.store"
    if not path.exists():
        mr.build_store("mars-nano-untrained", tiles, path, device="cpu")
    other = MapStore(mr.open_store(path, device="cpu"), "other")
    with pytest.raises(InventoryError, match="another encoder"):
        MapInventory.open(inventory.summary()["path"], [other], read_only=True)
    both = {"other": other, "mars": map_store}
    opened = MapInventory.open(inventory.summary()["path"], list(both.values()), read_only=True)
    assert opened.store is map_store
    server = Server(both, {name: MapImages(store) for name, store in both.items()}, opened)
    server.inventory = opened
    client = TestClient(create_app(server), base_url="http://127.0.0.1")
    assert client.get(f"{API}/store").json()["inventory"] is None
    info = client.get(f"{API}/store?store=mars").json()
    assert info["inventory"] == "cones" and info["stores"] == ["other", "mars"]
    name = map_store.tiles.ids([0])[0]
    first = search(client, like=[name])
    second = search(client, like=[name], store="mars")
    assert first["hits"][0]["score"] != second["hits"][0]["score"]
    assert client.post(f"{API}/searches", json={"learned": True}).status_code == 422


def test_without_an_inventory(server):
    client = TestClient(create_app(server), base_url="http://127.0.0.1")
    response = client.get(f"{API}/inventory")
    assert response.status_code == 404 and "--inventory" in response.json()["remedy"]
    assert client.put(f"{API}/marks/x", json={"mark": "yes"}).status_code == 404
