"""The page is self-contained, complete, safe and reproducible."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.errors import DataError, OutputError, UsageError
from marsretrieval.report.compare import compare_results
from marsretrieval.report.html import write_html
from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_geolocalization, make_landform, make_paired, result, write
from tests.report.pages import Page, page_of

EVIL = '</style><script>alert("x")</script><img src=x onerror=alert(1)> $a$ & \' {{ 7 * 7 }}'


@pytest.fixture(scope="module")
def page(results: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(results, tmp_path_factory.mktemp("page") / "report.html")


def test_page_loads_no_external_resources(page: Page) -> None:
    for element in page.elements:
        for name in ("src", "href", "action", "poster", "data", "srcset"):
            value = element.attributes.get(name, "#")
            assert value.startswith(("#", "data:image/webp;base64,")), f"{element.tag} {value}"
    style = "".join(item.text for item in page.all("style"))
    assert "@import" not in style and not re.search(r"url\((?!#)", style)
    assert not page.all("link") and not page.all("iframe")


def test_links_resolve_and_ids_are_unique(page: Page) -> None:
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = {
        element.attributes["href"] for element in page.elements if "href" in element.attributes
    }
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert {"#summary", "#time", "#left-out", "#reproduction"} <= links


def test_only_the_script_of_the_page_may_run(page: Page) -> None:
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256("".join(script.texts).encode()).digest()).decode()
    (policy,) = [
        item.attributes["content"]
        for item in page.all("meta")
        if item.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")
    assert not any(
        name.startswith("on") for element in page.elements for name in element.attributes
    )


def test_tables_are_accessible_to_screen_readers(page: Page) -> None:
    tables = page.all("table")
    assert len(tables) > 10
    for table in tables:
        assert table.one("caption").text
        assert all("scope" in head.attributes for head in table.all("th"))
    pictures = [element for element in page.elements if element.attributes.get("role") == "img"]
    assert pictures and all(picture.attributes["aria-label"].strip() for picture in pictures)
    for item in page.all("div", class_="scroll"):
        assert item.attributes["tabindex"] == "0" and item.attributes["aria-label"]
    levels = [
        int(element.tag[1]) for element in page.elements if re.fullmatch("h[1-6]", element.tag)
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_summary_lists_models_and_data(page: Page) -> None:
    cards = [card.text for card in page.section("summary").all("article")]
    assert len(cards) == 3
    assert "Made-landform" in cards[1] and "80 images, 8 classes" in cards[1]
    assert "2026-03-01" in cards[1] and "sharp-1" in cards[1] and f"{80:064x}"[:16] in cards[1]
    assert "592 tiles, 2 landforms" in cards[2]
    assert "3 models, 3 tasks, 7 results" in page.source


def test_the_same_results_give_the_same_bytes(results: list[Path], tmp_path: Path) -> None:
    written = []
    for name, paths in (("a", results), ("b", results[::-1])):
        report = write_html([ResultFile.read(path) for path in paths], tmp_path / name)
        written.append((tmp_path / name).read_bytes())
        assert report.size == len(written[-1]) and report.path == tmp_path / name
    assert written[0] == written[1]


def test_values_from_results_are_escaped(tmp_path: Path) -> None:
    made = make_landform(names=[EVIL, "b", "c"])
    geo = make_geolocalization(landforms=(EVIL.replace("/", "|"), "b"), modes=("text",))
    skipped = [{"id": EVIL, "source": EVIL, "reason": EVIL}]
    paths = [
        write(result(task, EVIL, outcome, data={"name": EVIL, "skipped": skipped}), outcome, folder)
        for task, outcome, folder in (
            ("landform", made, tmp_path / "a"),
            ("geolocalization", geo, tmp_path / "a"),
            ("paired-image-text", make_paired(), tmp_path / "a"),
        )
    ]
    value = json.loads(paths[0].read_text())
    value["versions"][EVIL] = value["hardware"]["platform"] = value["data"]["repository"] = EVIL
    value["model"] |= {"licence": EVIL, "checkpoint": EVIL}
    value["data"]["set_hash"] = EVIL
    paths[0].write_text(json.dumps(value))
    page = page_of(paths, tmp_path / "report.html", title=EVIL, left_out=[EVIL])
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1 and not page.all("img")
    assert page.all("h1")[0].text == " ".join(EVIL.split())
    assert "49" not in page.all("h1")[0].text
    assert not any(
        name.startswith("on") for element in page.elements for name in element.attributes
    )


def test_results_without_tables_still_show_metrics(results: list[Path], tmp_path: Path) -> None:
    bare = []
    for number, path in enumerate(results[:3]):
        bare.append(tmp_path / str(number) / path.name)
        bare[-1].parent.mkdir()
        bare[-1].write_bytes(path.read_bytes())
    page = page_of(bare, tmp_path / "report.html")
    notices = " ".join(item.text for item in page.all("p", class_="notice"))
    assert "paired-image-text.queries.parquet" in notices and "landform.hits.parquet" in notices
    assert "geolocalization.hits.parquet" in notices
    assert len(page.all("table", class_="results-table")) == 6
    assert page.all("svg", class_="chart") and not page.all("article", class_="query")


def test_empty_tables_are_treated_as_missing(results: list[Path], tmp_path: Path) -> None:
    paths = []
    for path in results[:3]:
        paths.append(tmp_path / path.name)
        paths[-1].write_bytes(path.read_bytes())
        for kind in ("hits", "queries"):
            table = pq.read_table(path.with_suffix(f".{kind}.parquet"))
            pq.write_table(table.slice(0, 0), paths[-1].with_suffix(f".{kind}.parquet"))
    page = page_of(paths, tmp_path / "report.html")
    assert not page.all("article", class_="query") and not page.all("figure", class_="map")


def _copied(result: Path, folder: Path) -> Path:
    for path in result.parent.glob(f"{result.stem}.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / result.name


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more"])
def test_damaged_table_is_reported_and_its_charts_omitted(
    results: list[Path], tmp_path: Path, damage: bytes
) -> None:
    path = _copied(results[1], tmp_path)
    path.with_suffix(".hits.parquet").write_bytes(damage)
    report = write_html([ResultFile.read(path)], tmp_path / "report.html")
    (line,) = report.damaged
    assert line.startswith(f"{path.with_suffix('.hits.parquet')}: not a readable Parquet file")
    page = page_of([path], tmp_path / "report.html")
    assert "landform.hits.parquet" in page.section("left-out").text
    assert page.all("table", class_="results-table") and not page.all("article", class_="query")


def test_table_of_another_kind_is_reported(results: list[Path], tmp_path: Path) -> None:
    path = _copied(results[1], tmp_path)
    path.with_suffix(".hits.parquet").write_bytes(path.with_suffix(".queries.parquet").read_bytes())
    report = write_html([ResultFile.read(path)], tmp_path / "report.html")
    assert "no column 'query'" in report.damaged[0]


@pytest.mark.parametrize("column", ["group", "rank", "id", "score", "relevant", "lon", "lat"])
@pytest.mark.parametrize("how", ["gone", "words", "gaps"])
def test_table_with_other_columns_gives_no_traceback(
    results: list[Path], tmp_path: Path, column: str, how: str
) -> None:
    path = _copied(results[2], tmp_path)
    table = pq.read_table(path.with_suffix(".hits.parquet"))
    index, field = table.column_names.index(column), table.schema.field(column)
    if how == "gone":
        table = table.remove_column(index)
    elif how == "gaps":
        table = table.set_column(index, column, pa.nulls(len(table), field.type))
    else:
        words = [["x"]] * len(table)  # no column of ours holds lists
        table = table.set_column(index, column, pa.array(words))
    pq.write_table(table, path.with_suffix(".hits.parquet"))
    report = write_html([ResultFile.read(path)], tmp_path / "report.html")
    assert f"column '{column}'" in report.damaged[0]
    with pytest.raises(DataError, match=f"column '{column}'"):
        compare_results(ResultFile.read(results[2]), ResultFile.read(path))


@pytest.mark.parametrize(
    "change",
    [{"task": ["counting"]}, {"metrics": {}}, {"metrics": {"all": {"n": {}}}}, {"data": {"n": {}}}],
)
def test_incomplete_result_is_named(
    results: list[Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(json.loads(results[1].read_text()) | change))
    with pytest.raises(
        DataError,
        match=r"odd\.json: (not a complete result|missing field|'task' is .*valid string)",
    ):
        write_html([ResultFile.read(path)], tmp_path / "report.html")


def test_no_results_and_unwritable_output_are_errors(results: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        write_html([], tmp_path / "report.html")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_html([ResultFile.read(results[1])], tmp_path / "file" / "report.html")


def test_page_of_one_result_has_no_comparison(results: list[Path], tmp_path: Path) -> None:
    page = page_of([results[1]], tmp_path / "report.html")
    assert not page.all("strong")
    assert "highest" not in page.section("summary").text


def test_unreadable_files_are_listed_on_the_page(results: list[Path], tmp_path: Path) -> None:
    page = page_of(results[:1], tmp_path / "report.html", left_out=["old.json: of another schema"])
    assert "old.json: of another schema" in page.section("left-out").text


def test_unused_damaged_table_is_named(results: list[Path], tmp_path: Path) -> None:
    for number, path in enumerate(results[:3]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / path.name).write_bytes(path.read_bytes())
        for kind in ("queries", "hits"):
            (folder / path.with_suffix(f".{kind}.parquet").name).write_bytes(b"PAR1 damaged PAR1")
        page = tmp_path / f"{number}.html"
        done = CliRunner().invoke(app, ["report", str(folder), "-o", str(page), "--no-thumbnails"])
        assert done.exit_code == 1
        for kind in ("queries", "hits"):
            assert f"{path.stem}.{kind}.parquet: not a readable Parquet file" in done.stderr
            assert f"{path.stem}.{kind}.parquet: not a readable" in page.read_text()
