"""The commands of inventories, from `new` to the exports."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from marsretrieval.datasets.ground_truth import read_points
from marsretrieval.inventory.report import draw_sheet
from tests.fakes import FakeEncoder
from tests.search.places import make_store

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 tiles of 0.2 degrees in 20 rows and 20 columns."""
    folder = tmp_path_factory.mktemp("commands")
    positions = [(0.1 + 0.2 * (n % 20), 0.1 + 0.2 * (n // 20), 0.2) for n in range(400)]
    make_store(folder / "store", positions)
    np.save(folder / "query.npy", FakeEncoder().encode_texts(["pitted cones"]))
    return folder / "store"


@pytest.fixture
def name(tmp_path: Path, store: Path, marsretrieval: Run) -> Path:
    path = tmp_path / "cones"
    vector = store.parent / "query.npy"
    marsretrieval(
        "inventory", "new", path, "--store", store, "--vector", vector, "--landform", "cones"
    )
    return path


def tile(number: int) -> str:
    return f"tile-{number:06d}"


def test_from_a_vector_to_an_estimate(name: Path, store: Path, marsretrieval: Run) -> None:
    def run(*arguments: object) -> Any:
        return json.loads(marsretrieval("inventory", *arguments, "--json").stdout)

    truth = {tile(number) for number in range(0, 400, 6)}
    page = run("next", name, "-n", 40)["tiles"]
    assert {"id", "lon", "lat", "score", "rank"} <= {*page[0]}
    answers = [f"{t['id']}={'yes' if t['id'] in truth else 'no'}" for t in page]
    assert run("mark", name, *answers)["saved"] == 40
    learned = run("learn", name)
    assert Path(learned["vector"]).is_file() and sum(learned["marked"].values()) == 40
    started = run("audit", name, "start", "--target", 0.3, "--seed", 5)
    assert started["domain"] == 400 and sum(started["strata"]) == 360
    while tiles := run("next", name)["tiles"]:
        assert "score" not in tiles[0]
        run("mark", name, *(f"{t['id']}={'yes' if t['id'] in truth else 'no'}" for t in tiles))
    result = run("estimate", name)
    assert result["tiles"]["low"] <= len(truth) <= result["tiles"]["high"]
    assert result["domain"] == 400 and result["audited"] > 40
    assert {"estimate", "low", "high"} <= {*result["places"]} & {*result["recall"]}
    assert result["elsewhere"]["high"] == 0
    assert result["marked"]["yes"] + result["marked"]["no"] > 80
    assert run("audit", name, "close")["state"] == "closed"
    text = marsretrieval("inventory", "estimate", name).stdout
    assert "95 % interval" in text and "hit rate" in text


def test_exports(name: Path, tmp_path: Path, marsretrieval: Run) -> None:
    marks = [f"{tile(number)}=yes" for number in (0, 1, 205)]
    marsretrieval("inventory", "mark", name, *marks, f"{tile(7)}=no", "--note", "=1+1, a note")
    truth, negatives = tmp_path / "ground_truth.csv", tmp_path / "negatives.csv"
    report, page = tmp_path / "report.md", tmp_path / "report.html"
    outputs = [option for path in (truth, negatives, report, page) for option in ("-o", path)]
    marsretrieval("inventory", "export", name, *outputs)
    points = read_points(truth)
    assert sorted(zip(points.lon, points.lat, strict=True)) == [
        pytest.approx((0.1, 0.1)), pytest.approx((0.3, 0.1)), pytest.approx((1.1, 2.1)),
    ]  # fmt: skip
    assert not points.skipped
    with negatives.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == tile(7) and row["note"].startswith("'=")
    text = report.read_text()
    assert "3 tiles of 400 are confirmed to show cones" in text
    assert "Fay and Feuer" in text and "set hash" in text
    assert "<table>" in page.read_text()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet", ".fgb"])
def test_layers_of_places(name: Path, tmp_path: Path, marsretrieval: Run, suffix: str) -> None:
    geopandas = pytest.importorskip("geopandas")
    marsretrieval("inventory", "mark", name, *(f"{tile(number)}=yes" for number in (0, 1, 205)))
    path = tmp_path / f"places{suffix}"
    marsretrieval("inventory", "export", name, "-o", path)
    read = geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file
    frame = read(path)
    assert sorted(frame["tiles"]) == [1, 2]
    assert frame.crs.name == "Mars (2015) - Sphere / Ocentric"
    bounds = frame.set_index("tiles").geometry.bounds
    assert list(bounds.loc[2]) == pytest.approx([0, 0, 0.4, 0.2])
    assert list(bounds.loc[1]) == pytest.approx([1.0, 2.0, 1.2, 2.2])


@pytest.mark.parametrize("option", ["count", "tiles"])
def test_count_that_the_marks_file_cannot_hold(
    name: Path, tmp_path: Path, marsretrieval: Run, option: str
) -> None:
    table = tmp_path / "marks.csv"
    table.write_text(f"id,mark,{option}\n{tile(3)},yes,{10**30}\n")
    refused = marsretrieval("inventory", "mark", name, "--from", table, code=2).output
    assert f"{option} of {tile(3)} must be 1 to 2^62" in refused
    totals = marsretrieval("inventory", "mark", name, f"{tile(3)}=yes").output
    assert "1 yes" in totals


@pytest.mark.parametrize(
    ("rows", "problem", "remedy"),
    [
        (f"{tile(3)},yes,1.5", "count is '1.5', not a whole number", "Use digits only"),
        (",yes,", "no id", "Give every line an id and a mark"),
    ],
)
def test_remedy_for_a_line_of_a_table(
    name: Path, tmp_path: Path, marsretrieval: Run, rows: str, problem: str, remedy: str
) -> None:
    table = tmp_path / "marks.csv"
    table.write_text(f"id,mark,count\n{rows}\n")
    refused = marsretrieval("inventory", "mark", name, "--from", table, code=1).output
    assert f"{table}, line 2: {problem}" in refused and remedy in refused


@pytest.mark.parametrize(
    ("rows", "line", "problem", "remedy"),
    [
        (f"{tile(2)},yes\n{tile(3)},Maybe", 3, "'Maybe' is not a mark", "Use yes, no, unsure"),
        (f"{tile(2)},yes\ntile-x,no", 3, "holds no tile 'tile-x'", "Did you mean"),
        (
            f"{tile(3)},yes\n{tile(4)},no\n{tile(3)}.png,no",
            4,
            f"{tile(3)} is marked twice (first: {{table}}, line 2)",
            "Give one answer per tile",
        ),
    ],
)
def test_line_of_an_invalid_mark(
    name: Path,
    tmp_path: Path,
    marsretrieval: Run,
    rows: str,
    line: int,
    problem: str,
    remedy: str,
) -> None:
    table = tmp_path / "marks.csv"
    table.write_text(f"id,mark\n{rows}\n")
    refused = marsretrieval("inventory", "mark", name, "--from", table, code=2).output
    assert f"{table}, line {line}: " in refused
    assert problem.format(table=table) in refused and remedy in refused
    assert not (name.parent / "cones.inventory" / "marks.jsonl").exists()


def test_damaged_list_of_shown_tiles_is_kept(name: Path, marsretrieval: Run) -> None:
    folder = name.parent / "cones.inventory"
    for number, text in enumerate(("{", '{"tiles": 3}'), 1):
        (folder / "shown.json").write_text(text)
        refused = marsretrieval("inventory", "mark", name, f"{tile(3)}=yes", code=1).output
        assert "shown.json" in refused and "inventory next" in refused
        shown = marsretrieval("inventory", "next", name, "-n", 3)
        aside = folder / f"shown.damaged-{number}.json"
        assert aside.read_text() == text and f"renamed to {aside.name}" in shown.stderr
        assert len(json.loads((folder / "shown.json").read_text())["tiles"]) == 3
    assert "warning" not in marsretrieval("inventory", "next", name).stderr


def test_marks_from_a_table(name: Path, tmp_path: Path, marsretrieval: Run) -> None:
    table = tmp_path / "marks.csv"
    table.write_text(f"id,mark,tiles,note,colour\n{tile(1)},yes,3,clear,red\n{tile(2)},no,,,\n")
    done = marsretrieval("inventory", "mark", name, "--from", table)
    assert "2 marks saved; 1 yes, 1 no, 0 unsure" in done.stdout
    assert f"note: {table}: columns not read: colour" in done.stderr
    table.write_text(f"tile,mark\n{tile(1)},yes\n")
    assert (
        "no column id" in marsretrieval("inventory", "mark", name, "--from", table, code=1).output
    )
    table.write_text(f"id,mark,tiles\n{tile(1)},yes,many\n")
    refused = marsretrieval("inventory", "mark", name, "--from", table, code=1).output
    assert "line 2: tiles is 'many'" in refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mark", "NAME", "tile-000001"], 2, "is not a mark"),
        (["mark", "NAME", "tile-000001=perhaps"], 2, "'perhaps' is not a mark"),
        (["mark", "NAME", "tile-00001=yes"], 2, "Did you mean"),
        (["mark", "NAME"], 2, "no marks given"),
        (["mark", "NAME", "tile-000001=yes", "tile-000002=no", "--tiles", "2"], 2, "one tile"),
        (["learn", "NAME"], 2, "no tile is marked"),
        (["audit", "NAME", "stop"], 2, "not start or close"),
        (["audit", "NAME", "close"], 2, "no audit is open"),
        (["audit", "NAME", "close", "--seed", "1"], 2, "--seed goes with start"),
        (["audit", "NAME", "start", "--target", "2"], 2, "target 2"),
        (["estimate", "nowhere"], 1, "no inventory here"),
        (["export", "NAME", "-o", "list.csv"], 2, "--what"),
        (["export", "NAME", "-o", "places.pdf"], 2, "'.pdf'|does not say"),
        (["export", "NAME", "-o", "negatives.csv"], 1, "no tile is marked no"),
        (["export", "NAME", "-o", "marks.csv", "-o", "marks.csv"], 2, "named twice"),
        (["new", "NAME", "--store", "STORE", "--similar-to", "tile-000001"], 1, "exists already"),
        (["new", "other", "--store", "STORE"], 2, "nothing to search for"),
        (["new", "other", "--store", "STORE", "--vector", "nothing.npy"], 1, "no such file"),
    ],
)  # fmt: skip
def test_wrong_use(
    name: Path,
    store: Path,
    marsretrieval: Run,
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [{"NAME": str(name), "STORE": str(store)}.get(word, word) for word in arguments]
    output = marsretrieval("inventory", *words, code=code).output
    assert any(part in output for part in message.split("|")), output
    assert "Traceback" not in output


def test_a_torn_line_is_reported(name: Path, marsretrieval: Run) -> None:
    marsretrieval("inventory", "mark", name, f"{tile(1)}=yes")
    with name.with_name("cones.inventory").joinpath("marks.jsonl").open("a") as file:
        file.write('{"id": "ti')
    done = marsretrieval("inventory", "mark", name, f"{tile(2)}=no")
    assert "warning:" in done.output and "incomplete" in done.output
    assert "1 yes, 1 no" in done.output


def test_another_store_is_refused(name: Path, tmp_path: Path, marsretrieval: Run) -> None:
    make_store(tmp_path / "other", [(0.1, 0.1, 0.2)] * 3)
    refused = marsretrieval("inventory", "next", name, "--store", tmp_path / "other", code=1)
    assert "has shrunk from 400 to 3 tiles" in refused.output
    assert "inventory update" in refused.output


def test_a_search_with_the_learned_vector(name: Path, store: Path, marsretrieval: Run) -> None:
    marsretrieval("inventory", "mark", name, f"{tile(1)}=yes", f"{tile(2)}=no")
    marsretrieval("inventory", "learn", name)
    vector = name.with_name("cones.inventory") / "learned.npy"
    done = marsretrieval("search", "--store", store, "--vector", vector, "-k", 5, "--json")
    hits = json.loads(done.stdout)["hits"]
    tiles = json.loads(marsretrieval("inventory", "next", name, "-n", 1, "--json").stdout)["tiles"]
    assert tiles[0]["id"] == next(h["id"] for h in hits if h["id"] not in (tile(1), tile(2)))


def test_a_contact_sheet_shows_the_page_and_counts_missing_images(
    name: Path, tmp_path: Path, marsretrieval: Run
) -> None:
    path = tmp_path / "page.png"
    done = marsretrieval("inventory", "sheet", name, "-n", 7, "-o", path)
    assert "7 tiles" in done.stdout
    assert "7 of 7 images not readable" in done.output  # the tiles of this store have no files
    with Image.open(path) as sheet:
        assert sheet.width > sheet.height > 600
    marsretrieval("inventory", "sheet", name, "-o", tmp_path / "page.txt", code=2)


def test_a_contact_sheet_reads_files_and_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "red.png"
    Image.new("RGB", (300, 300), (200, 0, 0)).save(image)
    with tarfile.open(tmp_path / "tiles.tar", "w") as archive:
        archive.add(image, "a.png")
    tiles = [
        {"id": "x" * 60, "lon": 1.0, "lat": 2.0, "source": str(image)},
        {"id": "b", "lon": None, "lat": None, "source": "tiles.tar:a.png"},
        {"id": "c", "lon": 1.0, "lat": 2.0, "source": "tiles.tar:none.png"},
    ]
    (problem,) = draw_sheet(tiles, tmp_path / "page.png")
    assert problem.startswith("c: ")
    with Image.open(tmp_path / "page.png") as sheet:
        assert [sheet.getpixel((100 + 268 * column, 100)) for column in range(2)] == [
            (200, 0, 0)
        ] * 2


def test_names_with_control_characters_are_refused(
    tmp_path: Path, store: Path, marsretrieval: Run
) -> None:
    verb = ("inventory", "new", tmp_path / "i", "--store", store)
    vector = ("--vector", store.parent / "query.npy")
    for name, shown in (("a\nb", r"a\nb"), ("a\x1b[2J", r"a\x1b[2J"), ("a\tb", r"a\tb")):
        refused = marsretrieval(*verb, *vector, "--landform", name, code=2).stderr
        assert f"'{shown}', has control characters" in refused and "one line" in refused
        refused = marsretrieval("search", "--store", store, "--text", name, code=2).stderr
        assert f"'{shown}' has control characters" in refused and "one line" in refused
    assert not (tmp_path / "i.inventory").exists()
