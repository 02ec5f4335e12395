"""Galleries: thumbnails that were written with the hits, and counts of missing ones."""

from __future__ import annotations

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.report.html import gallery, write_html
from marsretrieval.report.result_files import ResultFile
from marsretrieval.tasks import Outcome
from marsretrieval.tasks.thumbnails import PAIRED, shown_hits
from tests.report.made import make_geolocalization, make_landform, make_paired, result, write
from tests.report.pages import Page, page_of

CAPTION = "A <b>crater</b> with <script>alert(1)</script> in it, {}"


def write_thumbnails(path: Path, outcome: Outcome, examples: dict[str, int] | None = None) -> int:
    """Write the ids as fake thumbnails and return the number of items."""
    hits = shown_hits(outcome.hits.to_table())
    ids = [row["query"] for row in hits if row["group"] in PAIRED] + [row["id"] for row in hits]
    rows = [
        {"query": "", "id": key, "caption": CAPTION.format(key), "image": key.encode()}
        for key in dict.fromkeys(ids)
    ]
    items = len(rows)
    for query, count in (examples or {}).items():
        rows += [{"query": query, "id": f"{n}", "caption": None, "image": f"{query} {n}".encode()}
                 for n in range(count)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".thumbnails.parquet"))
    return items


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    made = make_paired(0.6, pairs=40)
    path = write(result("paired-image-text", "model", made), made, tmp_path / "model")
    write_thumbnails(path, made)
    return path


def images(page: Page) -> dict[str, str]:
    """Map the keys of thumbnails to their fake images."""
    return {
        image.attributes["id"]: base64.b64decode(
            image.attributes["href"].partition(",")[2]
        ).decode()
        for image in page.all("image")
        if "-image-" in image.attributes.get("id", "")
    }


def notices(page: Page) -> str:
    return " ".join(item.text for item in page.all("p", class_="notice"))


def test_hit_is_shown_with_its_thumbnail(paired: Path, tmp_path: Path) -> None:
    page = page_of([paired], tmp_path / "report.html")
    hits, of_key = page.all("li", class_="hit"), images(page)
    assert len(hits) == 6 * 6 and len(page.all("article", class_="query")) == 6 + 4
    for hit in hits:
        assert of_key[hit.one("use").attributes["href"][1:]] == hit.attributes["title"]
    assert len(set(of_key.values())) == len(of_key)
    assert not page.all("span", class_="noimg") and notices(page) == ""
    captions = [item.text for item in page.all("blockquote")]
    assert CAPTION.format("pair-0000") in captions and len(page.all("script")) == 1
    assert "6 of 40 captions, 4 of 40 images" in page.section("paired-image-text-1-examples").text


def test_right_and_wrong_differ_by_more_than_colour(paired: Path, tmp_path: Path) -> None:
    page = page_of([paired], tmp_path / "report.html")
    hits = page.all("li", class_="hit")
    assert {hit.attributes["class"] for hit in hits} == {"hit right", "hit wrong"}
    for hit in hits:
        verdict = hit.attributes["class"].split()[1]
        assert f", {verdict}, score " in hit.one("svg").attributes["aria-label"]
        assert ("✓" if verdict == "right" else "✗") in hit.text
    texts = page.all("ol", class_="texts")[0].all("li")
    assert all("right" in text.text or "wrong" in text.text for text in texts)


def test_results_without_thumbnails_show_ids_and_a_count(paired: Path, tmp_path: Path) -> None:
    paired.with_suffix(".thumbnails.parquet").unlink()
    report = write_html([ResultFile.read(paired)], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    missing = {item.text for item in page.all("span", class_="noimg")}
    assert report.images == 0 and not images(page)
    assert f"{len(missing)} of {len(missing)} images of Made-paired-image-text have no" in (
        notices(page)
    )
    assert "run --force" in report.notes[0]


def test_images_without_a_thumbnail_are_counted(paired: Path, tmp_path: Path) -> None:
    path = paired.with_suffix(".thumbnails.parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(3), path)
    page = page_of([paired], tmp_path / "report.html")
    assert images(page) and "images of Made-paired-image-text have no thumbnail" in notices(page)


@pytest.mark.parametrize("damage", ["bytes", "columns", "numbers"])
def test_damaged_thumbnails_are_named(paired: Path, tmp_path: Path, damage: str) -> None:
    path = paired.with_suffix(".thumbnails.parquet")
    if damage == "bytes":
        path.write_bytes(b"PAR1 and no more")
    else:
        table = pq.read_table(path).drop_columns(["image"])
        if damage == "numbers":
            table = table.append_column("image", pa.array(range(len(table))))
        pq.write_table(table, path)
    report = write_html([ResultFile.read(paired)], tmp_path / "report.html")
    assert path.name in report.damaged[0] and report.images == 0


def test_thumbnails_can_be_left_out(paired: Path, tmp_path: Path) -> None:
    page = page_of([paired], tmp_path / "report.html", thumbnails=False)
    assert not images(page) and "Without thumbnails" in notices(page)


def test_thumbnails_stay_within_the_budget(
    paired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "BUDGET", 100)
    page = page_of([paired], tmp_path / "report.html")
    assert len(images(page)) == 100 // len("pair-0000")
    assert "to keep this file small" in notices(page)


def test_results_of_one_set_share_their_thumbnails(paired: Path, tmp_path: Path) -> None:
    made = make_paired(0.9, pairs=40)
    other = write(result("paired-image-text", "other", made), made, tmp_path / "other")
    write_thumbnails(other, made)
    page = page_of([other, paired], tmp_path / "report.html")
    assert len(set(images(page).values())) == len(images(page))
    assert len(page.all("li", class_="hit")) == 2 * 6 * 6
    assert not page.all("span", class_="noimg")


def test_every_class_has_its_average_precision(tmp_path: Path) -> None:
    made = make_landform(1.0, names=["cones", "dunes", "pits"])
    path = write(result("landform", "model", made), made, tmp_path)
    items = write_thumbnails(path, made)
    page = page_of([path], tmp_path / "report.html")
    assert [item.one("h4").text for item in page.all("div", class_="ask")] == [
        "cones", "dunes", "pits",
    ]  # fmt: skip
    assert len(images(page)) == items
    assert all("AP " in item.text for item in page.all("div", class_="strip"))


def test_example_images_precede_their_queries(tmp_path: Path) -> None:
    made = make_geolocalization(landforms=("cones", "slides"), modes=("image",))
    path = write(result("geolocalization", "model", made), made, tmp_path)
    write_thumbnails(path, made, {"cones": 5})
    page = page_of([path], tmp_path / "report.html")
    (examples,) = page.all("p", class_="examples")
    labels = [item.attributes["aria-label"] for item in examples.all("svg")]
    assert labels == [f"example image {number} of cones" for number in range(1, 6)]
    of_key = images(page)
    assert of_key[examples.all("use")[0].attributes["href"][1:]] == "cones 0"


def test_folders_of_images_are_no_longer_searched(paired: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["report", str(paired), "-o", str(tmp_path / "a.html"), "--images", str(tmp_path)]
    )
    assert done.exit_code == 0
    assert "--images: 1 path ignored" in done.stderr
