"""Tests of the embed, store and search commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from marsretrieval.embeddings import open_store
from marsretrieval.geo import tile_name
from tests.cli.commands import MODEL, ROOT, call, called, tiles
from tests.fakes import png_bytes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mars")
    call("embed", "-m", MODEL, "--images", tiles(folder / "tiles"), "--store", folder / "store")
    return folder / "store"


def test_embed_dry_run_build_and_rerun(tmp_path: Path) -> None:
    images = tiles(tmp_path / "tiles", corrupt=True)
    verb = ("embed", "-m", MODEL, "--images", images, "--store", tmp_path / "store")
    plan = called(*verb, "--dry-run")
    assert (plan["shards"], plan["shards_done"], plan["shards_to_do"]) == (3, 0, 3)
    assert not (tmp_path / "store").exists()
    assert "to do: an unknown number of images in 3 shards" in call(*verb, "--dry-run").stdout

    first = called(*verb, "--shard", "2/2")
    assert (first["rows"], first["complete"]) == (4, False)
    report = called(*verb)
    assert (report["rows"], report["embedded"], report["reused"]) == (11, 7, 4)
    assert report["complete"] and report["timings"]["images_per_s"] > 0
    (lost,) = report["skipped"]
    assert lost["id"] == "E1_0_N0_0" and "not an image" in lost["reason"]
    assert called(*verb)["embedded"] == 0
    again = call(*verb).stdout
    assert "11 images, 0 embedded now, 11 already done" in again
    assert "1 left out (first: " in again


def test_embed_with_several_models(tmp_path: Path) -> None:
    images, store = tiles(tmp_path / "tiles"), tmp_path / "stores"
    verb = ("embed", "-m", MODEL, "-m", "tests.fakes:FakeVisionEncoder", "--images", images)
    plans = called(*verb, "--store", store, "--dry-run")["stores"]
    folders = ["tests.fakes-FakeEncoder", "tests.fakes-FakeVisionEncoder"]
    assert [plan["store"] for plan in plans] == [str(store / folder) for folder in folders]
    reports = called(*verb, "--store", store)["stores"]
    assert [report["embedded"] for report in reports] == [12, 12]
    assert all(open_store(store / folder).complete for folder in folders)
    text = call(*verb, "--store", store).stdout
    assert text.count("12 images, 0 embedded now, 12 already done") == 2
    twice = call(*verb, "-m", MODEL, "--store", store, code=2).stderr
    assert "named twice" in twice
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"")
    both = call(*verb, "--store", store, "--checkpoint", weights, code=2).stderr
    assert "--checkpoint applies to one model only" in both


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "dask"), "unknown engine 'dask'"),
        (("--ray-address", "auto"), "requires --engine ray"),
        (("--engine", "ray", "--shard", "1/2"), "cannot be combined"),
        (("--engine", "ray", "--device", "cuda:1"), "--device cuda:1 cannot be combined with"),
    ],
)
def test_embed_refuses_invalid_options(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    verb = ("embed", "-m", MODEL, "--images", tmp_path, "--store", tmp_path / "store")
    assert message in call(*verb, *options, code=2).stderr


def test_embed_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    images, store = tiles(tmp_path / "tiles", corrupt=True), tmp_path / "store"
    verb = ("embed", "-m", MODEL, "--images", images, "--store", store, "--engine", "ray")
    report = called(*verb, "--workers", 2)
    assert (report["rows"], report["embedded"], report["complete"]) == (11, 11, True)
    assert called("store", "verify", store)["problems"] == []
    assert "11 already done" in call(*verb).stdout
    error = call(*verb[:-2], "--engine", "ray", "--force", "--ray-address", "127.0.0.1:1", code=2)
    assert "cannot connect to a Ray cluster at 127.0.0.1:1" in error.stderr


def test_embed_stores_float32_on_request(tmp_path: Path) -> None:
    images = tiles(tmp_path / "tiles", tars=1)
    verb = ("embed", "-m", MODEL, "--images", images, "--store", tmp_path / "store")
    call(*verb, "--vectors", "float32")
    assert open_store(tmp_path / "store").dtype == "float32"
    error = call(*verb, code=1).stderr
    assert "dtype: float32 in the store, float16 now" in error and "--force" in error
    call(*verb, "--force")
    assert open_store(tmp_path / "store").dtype == "float16"


def test_info_verify_export(store: Path, tmp_path: Path) -> None:
    info = called("store", "info", store)
    assert (info["rows"], info["complete"], info["dtype"]) == (12, True, "float16")
    assert info["set_hash"] == open_store(store).set_hash
    assert info["images_per_s"] > 0 and 0 <= info["device_idle"] <= 1
    text = call("store", "info", store).stdout
    assert " images/s, device idle " in text
    assert "12 images in 3 shards, complete" in text and info["set_hash"] in text
    assert called("store", "verify", store)["problems"] == []
    assert "12 rows in 3 shards, all checksums match" in call("store", "verify", store).stdout
    out = tmp_path / "planet.parquet"
    assert called("store", "export", store, "-o", out)["rows"] == 12
    assert pq.read_table(out).num_rows == 12
    assert "12 rows" in call("store", "export", store, "-o", out).stdout


def test_verify_fails_on_damage(tmp_path: Path) -> None:
    images = tiles(tmp_path / "tiles")
    call("embed", "-m", MODEL, "--images", images, "--store", tmp_path / "store")
    shard = tmp_path / "store" / "shards" / "000001.arrow"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (problem,) = called("store", "verify", tmp_path / "store", code=1)["problems"]
    assert problem.startswith("shard 000001: ")
    output = call("store", "verify", tmp_path / "store", code=1).stdout
    assert "shard 000001: " in output and "--repair" in output
    repaired = called("store", "verify", tmp_path / "store", "--repair")
    assert repaired["dropped"] == repaired["to_embed"] == ["000001"]
    output = call("store", "verify", tmp_path / "store", "--repair").stdout
    assert "embed 1 shard again" in output
    again = called("embed", "-m", MODEL, "--images", images, "--store", tmp_path / "store")
    assert again["embedded"] == 4
    assert called("store", "verify", tmp_path / "store")["problems"] == []


def test_search_by_text_image_and_both(store: Path, tmp_path: Path) -> None:
    result = called("search", "--store", store, "--text", "pitted cones")
    assert (len(result["hits"]), result["rows"], result["model"]) == (
        12,
        12,
        "tests.fakes:FakeEncoder",
    )
    scores = [hit["score"] for hit in result["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert scores != [
        hit["score"]
        for hit in called("search", "--store", store, "--text", "pitted cones", "--raw")["hits"]
    ]

    example = tmp_path / "example.png"
    example.write_bytes(png_bytes(21))
    (best, *_) = called("search", "--store", store, "--image", example, "-k", 3)["hits"]
    assert best["id"] == tile_name(1.2, 0.4)
    assert best["score"] == pytest.approx(1, abs=1e-3)
    assert (best["lon"], best["lat"]) == (1.3, 0.5)
    both = called("search", "--store", store, "--image", example, "--text", "dunes", "--mix", 1)
    assert both["hits"][0]["id"] == best["id"] and both["mix"] == 1.0

    text = call("search", "--store", store, "--image", example).stdout
    header, first = text.splitlines()[:2]
    assert header.split() == ["rank", "score", "z", "percentile", "lon", "lat", "id"]
    assert first.split() == ["1", f"{best['score']:.4f}", f"{best['z']:.1f}",
                             f"{best['percentile']:.2f}", "1.300", "E", "0.500", "N",
                                            best["id"]]  # fmt: skip


def test_search_in_a_box_and_to_files(store: Path, tmp_path: Path) -> None:
    verb = ("search", "--store", store, "--text", "dunes", "--bbox", "1.2,0.2,1.6,0.4")
    hits = called(*verb)["hits"]
    assert {(hit["lon"], hit["lat"]) for hit in hits} == {(1.3, 0.3), (1.5, 0.3)}
    for name in ("hits.geojson", "hits.parquet", "hits.csv"):
        output = call(*verb, "-o", tmp_path / name, "--lon", 360).stdout
        assert f"{name}: 2 hits" in output
    assert "no hits" in call(*verb[:-1], "50,50,60,60").stdout
    assert called(*verb, "--min-score", 0.99)["hits"] == []
    collection = json.loads((tmp_path / "hits.geojson").read_text())
    assert collection["marsretrieval"]["bbox"] == "1.2,0.2,1.6,0.4"


def test_text_query_to_a_vision_only_model_is_refused_before_loading(tmp_path: Path) -> None:
    images, folder = tiles(tmp_path / "tiles"), tmp_path / "store"
    call("embed", "-m", "tests.fakes:FakeVisionEncoder", "--images", images, "--store", folder)
    result = call("search", "--store", folder, "--text", "dunes", code=2)
    assert "vision-only" in result.stderr and "loading" not in result.stderr
    example = tmp_path / "example.png"
    example.write_bytes(png_bytes(3))
    assert len(called("search", "--store", folder, "--image", example)["hits"]) == 12


def test_a_store_of_another_model_version_is_refused(tmp_path: Path) -> None:
    images, folder = tiles(tmp_path / "tiles"), tmp_path / "store"
    call("embed", "-m", MODEL, "--images", images, "--store", folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["encoder"]["weights_sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    # Its shards belong to what the manifest said before, so nothing of it is searched.
    result = call("search", "--store", folder, "--text", "dunes", code=1)
    assert "weights_sha256" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "--store", "STORE"], 2, "Give a text (--text), an image"),
        (["search", "--store", "STORE", "--text", "x", "--bbox", "1,2,3"], 2, "is not a box"),
        (["search", "--store", "STORE", "--text", "x", "-k", "0"], 2, "-k"),
        (["search", "--store", "STORE", "--text", "x", "--lon", "90"], 2, "Use 180 or 360"),
        (["search", "--store", "STORE", "--text", "x", "-o", "hits.xyz"], 2, ".geojson"),
        (["search", "--store", "STORE", "--image", "none.png"], 1, "none.png: cannot be read"),
        (["search", "--store", "nowhere", "--text", "x"], 1, "no such folder"),
        (["search", "--store", "STORE", "--text", "x", "--mix", "2"], 2, "--mix"),
        (["store", "info", "nowhere"], 1, "no such folder"),
        (["store", "verify", "nowhere"], 1, "no such folder"),
        (["store", "export", "STORE", "--to", "shp", "-o", "x"], 2, "--to parquet"),
        (["embed", "-m", "nonsense", "--images", "IMAGES", "--store", "s"], 2, "unknown model"),
        (["embed", "-m", "MODEL", "--images", "gone", "--store", "s"], 1, "no such file or folder"),
        (["embed", "-m", "MODEL", "--images", "IMAGES", "--store", "s", "--shard", "0/2"], 2,
         "1/2"),
        (["embed", "-m", "MODEL", "--images", "IMAGES", "--store", "s", "--shard", "x"], 2, "I/N"),
        (["embed", "-m", "MODEL", "--images", "IMAGES", "--store", "s", "--vectors", "int8"], 2,
         "Use float16 or float32"),
        (["embed", "-m", "MODEL", "--images", "IMAGES", "--store", "s", "--prompts", "own"], 2,
         "Use paper or official"),
        (["embed", "-m", "MODEL", "--images", "IMAGES", "--store", "s", "--checkpoint", "gone"], 2,
         "no such file or folder"),
        (["embed", "-m", "MODEL", "--images", "IMAGES", "--store", "IMAGES"], 1, "other files"),
    ],
)  # fmt: skip
def test_usage_errors(store: Path, arguments: Sequence[str], code: int, message: str) -> None:
    names = {"STORE": store, "IMAGES": store.parent / "tiles", "MODEL": MODEL}
    result = call(*(names.get(argument, argument) for argument in arguments), code=code)
    assert message in result.stderr
    assert result.stdout == ""


def test_ctrl_c_saves_completed_work(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "from tests.fakes import FakeEncoder\n"
        "class Slow(FakeEncoder):\n"
        "    def __init__(self):\n"
        "        super().__init__(delay=0.2)\n"
    )
    images = tiles(tmp_path / "tiles", tars=20)
    process = subprocess.Popen(
        [sys.executable, "-m", "marsretrieval", "embed", "-m", "slow:Slow", "--images", images,
         "--store", tmp_path / "store", "--batch-size", "4"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list((tmp_path / "store" / "shards").glob("*.json")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error and "completed work is saved" in error
    store = open_store(tmp_path / "store")
    assert 4 <= store.rows < 80 and not store.complete
    call("embed", "-m", MODEL, "--images", images, "--store", tmp_path / "store", code=1)


def test_embed_several_sources_into_one_store(tmp_path: Path) -> None:
    first, second = tiles(tmp_path / "north"), tiles(tmp_path / "south", tars=1)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(png_bytes(90))
    verb = ("embed", "-m", MODEL, "--store", tmp_path / "store", "--images", first)
    assert called(*verb)["rows"] == 12
    done = call(*verb, "--images", second, "--json")
    report = json.loads(done.stdout)
    assert (report["rows"], report["embedded"], report["reused"]) == (16, 4, 12)
    assert report["repeated_ids"] == 4 and "4 ids from several sources" in done.stderr
    assert called(*verb, "--images", second)["embedded"] == 0
    dropped = call(*verb, code=1)
    assert "of its 4 shards" in dropped.stderr
    mixed = called(*verb[:4], tmp_path / "mixed", "--images", folder, "--images", second)
    assert (mixed["rows"], mixed["repeated_ids"]) == (5, 0)
    ids, _ = open_store(tmp_path / "mixed").load()
    assert ids[0] == "a" and ids[1] == "E1_0_N0_0"
    assert "given twice" in call(*verb, "--images", first, code=2).stderr


def test_search_for_several_texts(store: Path) -> None:
    combined = called("search", "--store", store, "--text", "dunes", "--text", "ice", "-k", 3)
    assert (combined["text"], combined["texts"]) == ("dunes; ice", ["dunes", "ice"])
    alone = called("search", "--store", store, "--text", "dunes", "-k", 3)
    assert alone["texts"] == ["dunes"]
    assert [hit["score"] for hit in alone["hits"]] != [hit["score"] for hit in combined["hits"]]
