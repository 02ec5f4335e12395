"""Run or dry-run every command line of the docs on the synthetic planet."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.cli.app import app
from marsretrieval.embeddings import open_store
from tests.doc_pages import MARSRETRIEVAL, WALKED, write_orthoimage

# Asks the hub even when dry, or checks weights that are not here: these are only parsed.
NETWORK = re.compile(r"data download|models check (pe-core|marscope|my_clip|mteb:)")
# MTEB's tasks are the real pairs: tests/report/test_exports.py. Of the demos, the tiny one is run.
# A server runs until it is stopped: tests/web/test_server.py. Embeddings and runs of
# another program have to be those of the task: tests/evaluation/test_external.py and _runs.py.
REFUSED = re.compile(r"export mteb|demo$|marsretrieval serve\b|score \w+ --(embeddings|run)")
# Where work is not worth doing in a test, or needs weights, the plan of it is shown.
DRY = re.compile(r"^(run|embed)\b|^data tiles (--bbox|--quads)")
STANDING_FOR = {
    "137.4,-4.6": "-178.3,-1.9",  # the synthetic planet has no Gale
    "my_package.my_module": "my_module",
    "RESULTS/MODEL": "results/mars-nano",
    "RESULTS...": "results",
    "DIR": "exported",
    "$model": "mars-nano",
    "$MODEL": "mars-nano",
    "$TILES": "tiles",
    "$IMAGES": "tiles",
    "$STORE": "mars.store",
    "$what": "yardangs",
    "$where": "-180,-4,-176,0",
    "$count": "5",
    "$out/$name": "found",
    "$part/$SLURM_ARRAY_TASK_COUNT": "1/2",
}
CLASS = """
class MyEncoder:
    def encode_images(self, images):
        return [[*image.convert("L").resize((3, 3)).tobytes()] for image in images]

    def encode_texts(self, texts):
        return [[text.count(letter) + 1 for letter in "aeiounrst"] for text in texts]
"""


def remaining() -> Iterator[str]:
    """Yield the commands with the files of the stage in place of those of the pages."""
    walked = {f"docs/{page}" for page in WALKED}
    for page, line in MARSRETRIEVAL:
        if page not in walked and not (NETWORK.search(line) or REFUSED.search(line)):
            for text, real in STANDING_FOR.items():
                line = line.replace(text, real)
            yield shlex.join(shlex.split(line, comments=True))


@pytest.fixture(scope="module")
def stage(tiny_planet: Path, tile_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with all files that the pages mention."""
    folder = tmp_path_factory.mktemp("stage")
    tiles = tiny_planet / "Mars-Global-Geolocalization" / "tiles"
    pictures = sorted((tiles.parent / "image_queries" / "pitted_cones").iterdir())
    (folder / "data").symlink_to(tiny_planet)
    (folder / "planet").symlink_to(tiny_planet)
    (folder / "tiles").symlink_to(tiles)
    (folder / "quads").mkdir()
    quad = min((tiny_planet / "ctx").iterdir())
    (folder / "quads" / quad.name).symlink_to(quad)
    for name in ("cone1.png", "cone2.png", "a.png"):
        (folder / name).symlink_to(pictures[0])
    (folder / "my_module.py").write_text(CLASS)
    for name in ("my.pt", "epoch_10.pt", "intermediate.pem"):
        (folder / name).write_bytes(b"not empty")
    _embeddings(folder)
    _raster(folder / "image.tif")
    write_orthoimage(folder / "ESP_020245_2190_RED.JP2")
    planet, results = str(tiny_planet), str(folder / "results")
    call("run", "-m", "mars-nano", "-t", "all", "--resamples", "200",
         "--data", planet, "--results", results, "--store", str(tile_store))  # fmt: skip
    (folder / "mars.store").symlink_to(tile_store)
    for name, box in (("north", "-180,-2,180,90"), ("south", "-180,-90,180,-2")):
        call("store", "subset", str(folder / "mars.store"), "-o", str(folder / f"{name}.store"),
             f"--bbox={box}")  # fmt: skip
    _inventory(folder)
    # The models that the pages compare.
    for theirs in ("pe-core-l-14-336", "marscope", "mars-nano-untrained"):
        for path in (folder / "results" / "mars-nano").glob("*.json"):
            other = folder / "results" / theirs / path.name
            other.parent.mkdir(exist_ok=True)
            result = json.loads(path.read_text())
            result["model"]["id"] = theirs
            other.write_text(json.dumps(result))
            for kind in ("queries", "hits"):
                table = f"{path.stem}.{kind}.parquet"
                shutil.copy(path.parent / table, other.parent / table)
    (folder / "A").symlink_to(folder / "results" / "mars-nano")
    (folder / "B").symlink_to(folder / "results" / "marscope")
    return folder


def _inventory(folder: Path) -> None:
    store, path = folder / "mars.store", folder / "cones.inventory"
    call("inventory", "new", str(path), "--store", str(store), "--text", "pitted cones")
    ids = open_store(store).ids([0, 1, 2])
    call("inventory", "mark", str(path), f"{ids[0]}=yes", f"{ids[1]}=no")
    (folder / "marks.csv").write_text(f"id,mark\n{ids[2]},no\n")
    call("inventory", "learn", str(path))


def _raster(path: Path) -> None:
    import rasterio

    values = np.random.default_rng(0).integers(1, 255, (64, 64), dtype=np.uint8)
    crs = "+proj=eqc +lat_ts=0 +lon_0=0 +R=3396190 +units=m +no_defs"
    shape = {"width": 64, "height": 64, "count": 1, "dtype": "uint8"}
    transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape) as file:
        file.write(values, 1)


def _embeddings(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, rows in (("I", 12), ("T", 12), ("Q", 3)):
        vectors = rng.normal(size=(rows, 8))
        np.save(folder / f"{name}.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    labels = {
        "labels": [["fans", "cones", "dunes"][row % 3] for row in range(12)],
        "image_ids": [f"{row}" for row in range(12)],
        "query_names": ["fans", "cones", "dunes"],
    }
    (folder / "L.json").write_text(json.dumps(labels))
    tiles = "".join(f"E{x}_0_N0_0.png,0.{9 - x},{x},0\n" for x in range(9))
    (folder / "P.csv").write_text("image_name,similarity,lon,lat\n" + tiles)
    (folder / "G.csv").write_text("lon,lat\n1.1,0.1\n5.1,0.1\n")


def call(*words: str) -> None:
    assert not app(list(words), standalone_mode=False), shlex.join(words)


@pytest.mark.parametrize("line", dict.fromkeys(remaining()))
def test_the_command_works(
    line: str, stage: Path, tiny_planet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, verb, *words = shlex.split(line)
    makes = verb == "embed" or (verb == "data" and words[0] == "tiles")
    for path in stage.iterdir():
        if not (makes and path.name in ("mars.store", "tiles" if verb == "data" else "")):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if verb == "inventory":  # which changes its folder
        Path("cones.inventory").unlink()
        if words[0] != "new":
            shutil.copytree(stage / "cones.inventory", "cones.inventory")
        if words[-1] == "close":
            call(verb, *words[:-1], "start")
        if words[0] == "mark" and "--from" not in words:
            ids = open_store(stage / "mars.store").ids([5, 6, 7])
            words = [*words[:2], *(f"{name}=yes" for name in ids)]
    if DRY.search(shlex.join([verb, *words])) and "--dry-run" not in words:
        words.append("--dry-run")
    call(verb, *words)
    if verb == "demo":  # which writes the planet of the same seed again
        assert (tmp_path / "small" / "report.html").stat().st_size > 100_000
        planet, again = content(tiny_planet), content(tmp_path / "small" / "planet")
        assert planet.keys() == again.keys()
        assert [name for name in planet if planet[name] != again[name]] == []


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
