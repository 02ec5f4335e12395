"""Tests of the options and output files of the search command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from marsretrieval.geo import tile_name
from tests.cli.commands import MODEL, ROOT, call, called, tiles
from tests.fakes import png_bytes

HERE = tile_name(1.2, 0.2)  # row 1 of tar 1
ON_IT = "1.3,0.3"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mars")
    call("embed", "-m", MODEL, "--images", tiles(folder / "tiles"), "--store", folder / "store")
    return folder / "store"


def test_search_by_tile_or_position(store: Path) -> None:
    by_id = call("search", "--store", store, "--like", HERE, "--json")
    assert "loading" not in by_id.stderr
    result = json.loads(by_id.stdout)
    assert len(result["hits"]) == 11 and result["like"] == [HERE] and result["files"] == []
    assert HERE not in {hit["id"] for hit in result["hits"]}
    at = called("search", "--store", store, "--like-at", ON_IT)
    assert at["hits"] == result["hits"]
    with_example = called("search", "--store", store, "--like", HERE, "--keep-examples", "-k", 1)
    assert with_example["hits"][0]["id"] == HERE
    assert with_example["hits"][0]["quad"] == "E000_N00"


def test_negative_texts_images_and_tiles(store: Path, tmp_path: Path) -> None:
    example = tmp_path / "example.png"
    example.write_bytes(png_bytes(11))
    verb = ("search", "--store", store, "--text", "dunes")
    plain = called(*verb)
    ranks = {hit["id"]: hit["rank"] for hit in plain["hits"]}
    assert plain["not_weight"] is None
    for option, value in (("--not-image", example), ("--not-like", HERE)):
        away = called(*verb, option, value, "--not-weight", 0.9)
        assert {hit["id"]: hit["rank"] for hit in away["hits"]}[HERE] >= ranks[HERE]
        assert away["not_weight"] == 0.9
        same = called(*verb, option, value, "--not-weight", 0)
        assert [hit["id"] for hit in same["hits"]] == [hit["id"] for hit in plain["hits"]]
    assert called(*verb, "--not-text", "ice", "--not-text", "rock")["not_text"] == ["ice", "rock"]


def test_regions_and_merged_hits(store: Path, tmp_path: Path) -> None:
    ring = [[1.2, 0.2], [1.6, 0.2], [1.6, 0.4], [1.2, 0.4], [1.2, 0.2]]
    region = tmp_path / "region.geojson"
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    verb = ("search", "--store", store, "--text", "dunes", "--region", region)
    result = called(*verb)
    assert {(hit["lon"], hit["lat"]) for hit in result["hits"]} == {(1.3, 0.3), (1.5, 0.3)}
    assert result["region"] == str(region)
    (cluster,) = called(*verb, "--merge-deg", 0.3)["hits"]
    assert cluster["tiles"] == 2
    merged = call(*verb, "--merge-deg", 0.3)
    assert "  2 tiles" in merged.stdout and "note: 2 hits merged into 1 place" in merged.stderr
    assert called(*verb, "--merge-deg", 0.3)["merged_hits"] == 2


def test_output_format_follows_file_name(store: Path, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    names = ["a.gpkg", "b.fgb", "c.shp", "d.shp.zip", "e.csv", "f.png", "g.parquet"]
    heats = ["h.tif", "i.png"]
    outs = [word for name in names for word in ("-o", tmp_path / name)]
    heat = [word for name in heats for word in ("--heatmap", tmp_path / name)]
    verb = ("search", "--store", store, "--like", HERE, "-k", 5, *outs, *heat, "--style", "dark")
    text = call(*verb).stdout
    assert f"{tmp_path / 'a.gpkg'}: 5 hits" in text and "b.qml: style for QGIS" in text
    assert "e.csv.json: record of the search" in text
    assert "h.tif: scores of all tiles" in text
    result = called(*verb)
    assert {Path(file).name for file in result["files"]} == {
        *names, *heats, "b.qml", "c.qml", "d.qml", "g.qml", "h.qml",
        "b.fgb.json", "c.shp.json", "d.shp.zip.json", "e.csv.json",
    }  # fmt: skip
    assert all(Path(file).stat().st_size for file in result["files"])
    frame = geopandas.read_file(tmp_path / "a.gpkg", layer="a")
    assert frame["id"].tolist() == [hit["id"] for hit in result["hits"]]
    call("search", "--store", store, "--like", HERE, "--heatmap", tmp_path / "c.tif",
         "--heatmap-cell", 0.4)  # fmt: skip


def test_dry_run_prints_the_plan(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "hits.csv"
    verb = ("search", "--store", store, "--text", "dunes", "--not-text", "ice", "-o", out)
    plan = called(*verb, "--dry-run")
    assert (plan["rows"], plan["loads_model"], plan["files"]) == (12, True, [str(out)])
    assert not out.exists()
    text = call(*verb, "--raw", "--dry-run").stdout
    assert f"12 images by {MODEL} (loaded)" in text
    assert "dunes (as it is)" in text and "ice" in text and "the best 500" in text
    like = call("search", "--store", store, "--like", HERE, "--bbox", "0,0,2,2", "--dry-run")
    assert "(not needed)" in like.stdout and "0,0,2,2" in like.stdout
    assert "loading" not in like.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--like", "E1_6_N0_9"), 2, "Did you mean E1_6_N0_4"),
        (("--like-at", "120,3"), 2, "The nearest is"),
        (("--like-at", "here"), 2, "is not a position"),
        (("--like", HERE, "--region", "gone.geojson"), 1, "gone.geojson: no such file"),
        (("--like", HERE, "--merge-deg", "0"), 2, "above 0"),
        (("--like", HERE, "--heatmap", "a.jpg"), 2, "Use .tif"),
        (("--like", HERE, "--heatmap-cell", "1"), 2, "requires --heatmap"),
        (("--like", HERE, "--style", "sepia"), 2, "light or dark"),
        (("--like", HERE, "--style", "dark"), 2, "apply only to maps"),
        (("--like", HERE, "--basemap", "none", "-o", "a.csv"), 2, "apply only to maps"),
        (("--like", HERE, "--not-weight", "3"), 2, "--not-weight"),
        (("--like", HERE, "--checkpoint", "gone"), 2, "--checkpoint gone"),
        (("--not-text", "ice"), 2, "nothing to search for"),
        (("--text", ""), 2, "text is empty"),
    ],
)
def test_usage_errors(store: Path, options: Sequence[str], code: int, message: str) -> None:
    result = call("search", "--store", store, *options, code=code)
    assert message in result.stderr and result.stdout == ""


def test_outputs_are_checked_before_the_search(store: Path, tmp_path: Path) -> None:
    folder, picture = tmp_path / "a.csv", tmp_path / "a.png"
    folder.mkdir()
    verb = ("search", "--store", store, "--like", HERE, "--dry-run")
    assert "a.csv: cannot be written" in call(*verb, "-o", folder, code=1).stderr
    assert "a.csv/b.png: cannot" not in call(*verb, "-o", folder / "b.png").stderr
    twice = call(*verb, "-o", picture, "--heatmap", picture, code=2)
    assert "a.png: named twice" in twice.stderr
    nowhere = call(*verb, "--heatmap", picture, "--bbox", "50,50,60,60", code=2)
    assert "nothing to map" in nowhere.stderr and not picture.exists()


def test_written_files_and_missing_hits_are_reported(store: Path, tmp_path: Path) -> None:
    verb = ("search", "--store", store, "--like", HERE)
    out, heat = tmp_path / "hits.png", tmp_path / "heat.png"
    output = call(*verb, "-o", out, "--heatmap", heat).stdout
    assert f"{out}: 11 hits\n" in output and f"{heat}: scores of all tiles\n" in output
    nowhere = call(*verb, "--bbox", "50,50,60,60").stdout
    assert nowhere.startswith(f"no hits: {store} has no other tile centred in the box 50,50,60,60")
    assert "with a cosine of 2 or more" in call(*verb, "--min-score", 2).stdout


def test_hits_without_a_position_are_counted(store: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        (images / f"{seed}.png").write_bytes(png_bytes(seed))
    call("embed", "-m", MODEL, "--images", images, "--store", tmp_path / "unplaced")
    verb = ("search", "--store", tmp_path / "unplaced", "--like", "0")
    written = call(*verb, "-o", tmp_path / "hits.geojson")
    assert "note: 2 of 2 hits have no position, and no geometry in the files" in written.stderr
    assert called(*verb)["without_position"] == 2
    placed = call("search", "--store", store, "--like", HERE, "-o", tmp_path / "hits.csv")
    assert "no position" not in placed.stderr


def test_layers_of_one_name_share_a_style_reported_once(store: Path, tmp_path: Path) -> None:
    files = [tmp_path / "hits.geojson", tmp_path / "hits.parquet"]
    result = called("search", "--store", store, "--like", HERE, "-o", files[0], "-o", files[1])
    assert result["files"] == [str(path) for path in (files[0], tmp_path / "hits.qml", files[1])]


def test_folder_of_stores_lists_them(store: Path) -> None:
    result = call("search", "--store", store.parent, "--like", HERE, code=1)
    assert f"Stores in its subfolders: {store}" in result.stderr


def test_vision_only_models_search_by_tiles(tmp_path: Path) -> None:
    images, folder = tiles(tmp_path / "tiles"), tmp_path / "store"
    call("embed", "-m", "tests.fakes:FakeVisionEncoder", "--images", images, "--store", folder)
    assert len(called("search", "--store", folder, "--like", HERE)["hits"]) == 11
    for options in (("--text", "x"), ("--like", HERE, "--not-text", "x")):
        assert "vision-only" in call("search", "--store", folder, *options, code=2).stderr


def test_missing_extras_name_the_install_command(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    verb = ("search", "--store", store, "--like", HERE)
    result = call(*verb, "-o", tmp_path / "a.gpkg", code=1)
    assert "pip install 'marsretrieval[gis]'" in result.stderr
    result = call(*verb, "--heatmap", tmp_path / "a.tif", code=1)
    assert "pip install 'marsretrieval[geotiff]'" in result.stderr


def test_damaged_index_is_reported_once(store: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(store, tmp_path / "store")
    call("store", "index", folder)
    intact = called("search", "--store", folder, "--like", HERE)
    (plane,) = folder.glob("view/*/plane.npy")
    plane.write_bytes(b"")
    done = call("search", "--store", folder, "--like", HERE, "--json")
    assert json.loads(done.stdout) == intact
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: search index not used: ") and "plane.npy" in line


def test_no_deep_learning_library_is_loaded_for_a_tile(store: Path) -> None:
    code = (
        "import sys\nfrom marsretrieval.cli import main\n"
        f"sys.argv = ['marsretrieval', 'search', '--store', {str(store)!r}, '--like', '{HERE}']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'matplotlib', 'scipy', 'pandas', 'geopandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_hits_beside_a_catalogue(store: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "cones.csv"
    catalogue.write_text("cone;west;breite\nA;358,7;0,3\nB;;\n")
    columns = ("--lon-column", "west", "--lat-column", "breite", "--lon-west")
    search = ("search", "--store", store, "--like-at", ON_IT, "-k", 3, "--keep-examples")
    against = ("--against", catalogue, *columns, "--name-column", "cone", "--against-km", 5)
    done = call(*search, *against, "--json")
    result = json.loads(done.stdout)
    assert result["hits"][0]["id"] == HERE
    assert [hit["known"] for hit in result["hits"]] == [True, False, False]
    assert result["hits"][0]["nearest_name"] == "A" and result["hits"][0]["nearest_km"] == 0
    assert result["against"] | {"notes": []} == {
        "file": str(catalogue), "points": 1, "skipped": 1, "columns": ["west", "breite"],
        "west": True, "notes": [], "km": 5, "known": 1, "new": 2, "without_position": 0,
    }  # fmt: skip
    assert "1 row without a position left out (line 3)" in done.stderr
    table = call(*search, *against)
    assert f"1 of 3 hits is known (within 5 km of {catalogue}), 2 new" in table.stdout
    assert "known      0.0 km from A" in table.stdout
    plan = called(*search, *against, "--dry-run", "--json")
    assert plan["against"]["points"] == 1 and plan["against"]["km"] == 5


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--against-km", "3"), 2, "--against CATALOGUE"),
        (("--layer", "a"), 2, "--against CATALOGUE"),
        (("--region-layer", "a"), 2, "without the file of a region"),
        (("--against", "none.csv"), 1, "no such file"),
        (("--against", "a.csv"), 1, "--lon-column"),
        (("--image-weight", "0.5"), 2, "requires a text and an example"),
        (("--negative-weight", "0.5"), 2, "requires a negative"),
        (("--no-templates",), 2, "requires a text"),
        (("--vector", "a.csv"), 1, "not a NumPy array"),
    ],
)
def test_invalid_options(
    options: tuple[str, ...], code: int, message: str, store: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("where,what\n1,2\n")
    done = call("search", "--store", store, "--like", HERE, *options, code=code)
    assert message in done.stderr
    assert [path.name for path in Path().iterdir()] == ["a.csv"]


def test_every_format_is_written_without_hits(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["b.csv", "b.html", "b.geojson"]
    outputs = [option for name in names for option in ("-o", name)]
    done = call(
        "search", "--store", store, "--like", HERE, "--min-score", "5", *outputs, "--sheet", "b.png"
    )
    assert "no hits" in done.stdout and "b.png: contact sheet" in done.stdout
    assert all(Path(name).is_file() for name in [*names, "b.png"])


def test_options_of_a_model_that_is_not_loaded_are_reported(store: Path) -> None:
    done = call("search", "--store", store, "--like", HERE, "--device", "cpu", "--json")
    assert "note: --device ignored" in done.stderr
    assert json.loads(done.stdout)["ignored_options"] == ["--device"]
