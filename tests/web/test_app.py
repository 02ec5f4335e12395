"""Every endpoint, with right and wrong requests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import marsretrieval as mr
from marsretrieval.web.app import create_app
from marsretrieval.web.images import MapImages
from marsretrieval.web.state import Server
from marsretrieval.web.workspace import MapStore

API = "/api/v1"


def search(client: Any, **query: Any) -> dict[str, Any]:
    response = client.post(f"{API}/searches", json=query)
    assert response.status_code == 200, response.text
    return response.json()


def problem(response: Any, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "remedy", "code"}
    assert "Traceback" not in body["error"]
    return body


def test_store_describes_tiles_model_and_raster(client, map_store):
    info = client.get(f"{API}/store").json()
    assert info["tiles"] == len(map_store.store)
    assert info["model"] == {"id": "mars-nano", "state": "ready", "reason": "", "text": True}
    assert info["pictures"] == info["sampled"] == 20
    assert info["raster"]["cell_lon"] == 0.2
    assert problem(client.get(f"{API}/store?store=moon"), 404)["remedy"] == "Use one of: mars."


def test_search_gives_the_exact_ranking(client, tile_store):
    answer = search(client, text=["pitted cones"])
    result = mr.open_store(tile_store, device="cpu").search("pitted cones", k=200)
    assert [hit["id"] for hit in answer["hits"]] == result.hits.ids
    assert answer["hits"][0]["score"] == pytest.approx(result[0].score, abs=1e-7)
    assert answer["total"] == sum(answer["counts"]) == len(result.store)
    assert answer["title"] == "pitted cones"
    assert "--text 'pitted cones'" in answer["cli"]


def test_raster_shows_the_best_tile_with_the_highest_code(client):
    info = client.get(f"{API}/store").json()["raster"]
    answer = search(client, text=["landslides"])
    response = client.get(f"{API}/searches/{answer['key']}/raster")
    assert "immutable" in response.headers["cache-control"]
    raster = np.frombuffer(response.content, np.uint8).reshape(info["rows"], info["columns"])
    best = answer["hits"][0]
    column = int(((best["lon"] - info["west"]) % 360) / info["cell_lon"])
    row = int((info["north"] - best["lat"]) / info["cell_lat"])
    assert raster[row, column] == raster.max()
    counts = np.bincount(raster.ravel(), minlength=256)[1:]
    assert counts.tolist() == answer["counts"][1:]


def test_example_tiles_need_no_model(tile_store):
    store = MapStore(mr.open_store(tile_store, device="cpu"), "mars")
    client = TestClient(
        create_app(Server({"mars": store}, {"mars": MapImages(store)})), base_url="http://localhost"
    )
    tile = store.tiles.ids([5])[0]
    answer = search(client, like=[tile], not_like=[store.tiles.ids([9])[0]])
    assert tile not in [hit["id"] for hit in answer["hits"]]
    body = problem(client.post(f"{API}/searches", json={"text": ["dunes"]}), 422)
    assert "still loading" in body["error"]


def test_region_limits_hits_and_raster(client, map_store):
    lon, lat = map_store.tiles.positions().T
    box = [float(lon.min()) - 0.1, float(lat.min()) - 0.1, float(lon.min()) + 0.95, 90.0]
    answer = search(client, text=["dunes"], bbox=box)
    assert 0 < answer["total"] < len(map_store.store)
    assert all(box[0] <= hit["lon"] <= box[2] for hit in answer["hits"])
    ring = [[box[0], -89], [box[2], -89], [box[2], 89], [box[0], 89], [box[0], -89]]
    polygon = search(client, text=["dunes"], region={"type": "Polygon", "coordinates": [ring]})
    assert [hit["id"] for hit in polygon["hits"]] == [hit["id"] for hit in answer["hits"]]


def test_hits_come_in_pages(client, tile_store):
    answer = search(client, text=["gullies"])
    result = mr.open_store(tile_store, device="cpu").search("gullies", k=300)
    url = f"{API}/searches/{answer['key']}/hits"
    page = client.get(f"{url}?offset=190&limit=100").json()
    assert [hit["id"] for hit in page["hits"]] == result.hits.ids[190:290]
    assert page["more"]
    merged_hits = client.get(f"{url}?merge_deg=1&limit=500").json()["hits"]
    assert sum(merged_hit["tiles"] for merged_hit in merged_hits) == len(result.store)
    cut = client.get(f"{url}?merge_deg=1&cut=90").json()["hits"]
    assert sum(merged_hit["tiles"] for merged_hit in cut) == sum(answer["counts"][90:])
    problem(client.get(f"{url}?limit=0"), 422)


def test_forgotten_searches_are_gone(client):
    first = search(client, text=["dunes"])["key"]
    for number in range(8):
        search(client, text=[f"dunes {number}"])
    assert problem(client.get(f"{API}/searches/{first}/raster"), 410)["remedy"] == "Search again."
    problem(client.get(f"{API}/searches/nothing/hits"), 410)


def test_a_newer_search_of_the_same_page_wins(server):
    import threading
    from concurrent.futures import ThreadPoolExecutor

    gate = threading.Event()
    server.worker.submit(gate.wait)  # holds both searches back
    app = create_app(server)
    with (
        TestClient(app, base_url="http://127.0.0.1") as client,
        ThreadPoolExecutor(2) as pool,
    ):
        old = pool.submit(
            client.post, f"{API}/searches", json={"text": ["a"]}, headers={"x-page": "p"}
        )
        while not server.newest.get("p"):
            pass
        new = pool.submit(
            client.post, f"{API}/searches", json={"text": ["b"]}, headers={"x-page": "p"}
        )
        while server.newest["p"] < 2:
            pass
        gate.set()
        assert problem(old.result(), 409)["code"] == "superseded"
        assert new.result().status_code == 200


def test_tile_has_its_neighbours_and_links(client, map_store):
    row = len(map_store.store) // 2
    name = map_store.tiles.ids([row])[0]
    tile = client.get(f"{API}/tiles/{name}").json()
    assert tile["id"] == tile["neighbours"][2][2] == name
    east = tile["neighbours"][2][3]
    if east:
        info = client.get(f"{API}/tiles/{east}").json()
        assert info["lon"] == pytest.approx(tile["lon"] + 0.2, abs=1e-4)
    assert all(link["url"].startswith("https://") for link in tile["links"])
    key = search(client, like=[name])["key"]
    assert client.get(f"{API}/tiles/{name}?search={key}").json()["score"] == pytest.approx(
        1, abs=2e-3
    )
    body = problem(client.get(f"{API}/tiles/{name[:-1]}"), 404)
    assert "Did you mean" in body["remedy"]


def test_images_in_the_offered_sizes(client, map_store):
    name = map_store.tiles.ids([3])[0]
    full = client.get(f"{API}/tiles/{name}/image")
    assert full.headers["content-type"] == "image/png"
    small = Image.open(io.BytesIO(client.get(f"{API}/tiles/{name}/image?size=96").content))
    assert max(small.size) == min(96, *Image.open(io.BytesIO(full.content)).size)
    problem(client.get(f"{API}/tiles/{name}/image?size=97"), 422)


def test_images_that_are_missing_or_changed_are_refused(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    mr.build_store("mars-nano", "images", "some.store", device="cpu")
    store = MapStore(mr.open_store("some.store", device="cpu"), "some")
    assert store.raster is None
    assert MapImages(store).sample() == (3, 3)
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / "images")
    assert MapImages(store).load(0, 0).data is None
    moved = MapImages(store, [tmp_path / "elsewhere"])
    assert moved.sample() == (3, 3)
    (tmp_path / "elsewhere" / "images" / "1.png").write_bytes(b"other")
    reasons = [MapImages(store, [tmp_path / "elsewhere"]).load(row, 0).reason for row in range(3)]
    assert sorted(reasons) == ["", "", "the file has changed since it was embedded"]
    client = TestClient(
        create_app(Server({"some": store}, {"some": MapImages(store)})), base_url="http://localhost"
    )
    name = store.tiles.ids([0])[0]
    assert client.get(f"{API}/store").json()["raster"] is None
    assert client.get(f"{API}/store").json()["pictures"] == 0
    assert "--images" in problem(client.get(f"{API}/tiles/{name}/image"), 404)["remedy"]
    key = search(client, like=[name])["key"]
    problem(client.get(f"{API}/searches/{key}/raster"), 404)
    assert client.get(f"{API}/tiles/{name}").json()["links"] == []


def test_position_finds_its_tile(client, map_store):
    columns = map_store.tiles.take([7])
    lon, lat = float(columns.lon[0]), float(columns.lat[0])
    assert client.get(f"{API}/at?lon={lon + 0.05}&lat={lat}").json()["id"] == columns.ids[0]
    problem(client.get(f"{API}/at?lon=0&lat=-89"), 404)
    problem(client.get(f"{API}/at?lon=0&lat=91"), 422)


def test_tiles_of_a_view(client, map_store):
    columns = map_store.tiles.take([7])
    lon, lat = float(columns.lon[0]), float(columns.lat[0])
    box = f"{lon - 0.01},{lat - 0.01},{lon + 0.01},{lat + 0.01}"
    tiles = client.get(f"{API}/tiles?bbox={box}").json()
    assert columns.ids[0] in [tile["id"] for tile in tiles]
    assert len(tiles) <= 9
    problem(client.get(f"{API}/tiles?bbox=1,2,3"), 422)


def test_uploaded_images_are_searched_with(client, map_store):
    name = map_store.tiles.ids([3])[0]
    image = client.get(f"{API}/tiles/{name}/image").content
    answer = client.post(f"{API}/pictures", files=[("pictures", ("a.png", image, "image/png"))])
    (key,) = answer.json()["ids"]
    hits = search(client, pictures=[key])["hits"]
    assert hits[0]["id"] == name
    assert "--image IMAGE" in search(client, pictures=[key])["cli"]
    problem(client.post(f"{API}/searches", json={"pictures": ["0" * 16]}), 422)
    text = [("pictures", ("a.png", b"not an image", "image/png"))]
    assert "a.png" in problem(client.post(f"{API}/pictures", files=text), 422)["error"]
    problem(
        client.post(f"{API}/pictures", files=[("pictures", ("a", image, "image/png"))] * 11), 422
    )


def test_invalid_searches(client):
    problem(client.post(f"{API}/searches", json={}), 422)
    problem(client.post(f"{API}/searches", json={"text": "dunes"}), 422)
    problem(client.post(f"{API}/searches", json={"text": ["dunes"], "colour": "red"}), 422)
    problem(client.post(f"{API}/searches", json={"like": ["no such tile"]}), 422)
    problem(client.post(f"{API}/searches", json={"text": ["dunes"], "mix": 2}), 422)
    problem(client.post(f"{API}/searches", content=b"{"), 422)
    problem(client.get(f"{API}/nothing"), 404)


def test_features_events_and_basemap(client, server, tmp_path):
    names = {feature["name"] for feature in client.get(f"{API}/features").json()}
    assert "Olympus Mons" in names
    assert '"state":"ready"' in client.get(f"{API}/events").text
    problem(client.get(f"{API}/basemap"), 404)
    server.basemap = tmp_path / "map.png"
    Image.new("L", (8, 4)).save(server.basemap)
    assert client.get(f"{API}/basemap").headers["content-type"] == "image/png"


def test_openapi_lists_every_endpoint(client):
    paths = client.get(f"{API}/openapi.json").json()["paths"]
    assert {f"{API}/store", f"{API}/searches", f"{API}/searches/{{key}}/raster"} <= set(paths)
