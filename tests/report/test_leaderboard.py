"""The leaderboard: a page per submission, checks, and safe replacement of an earlier one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from typer.testing import Result

from marsretrieval.report.html import leaderboard
from marsretrieval.report.html.leaderboard import write_leaderboard
from tests.report.made import make_landform, make_paired, result, write

HOSTILE = '<script>alert("x")</script>/../x'


class Page(HTMLParser):
    """Collects the links, tags and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if tag == "a" and name == "href":
                self.links.append(value or "")
            elif name in ("src", "href"):
                self.sources.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two verified submissions and one with a hostile name and a changed metric."""
    folder = tmp_path_factory.mktemp("submissions")
    for name, noise in (("good", 0.4), ("weak", 1.5), ("forged", 1.0)):
        for task, outcome in (
            ("landform", make_landform(noise)),
            ("paired-image-text", make_paired(noise)),
        ):
            made = result(task, name, outcome)
            made = replace(made, request="a" * 64, settings={"resamples": 50})
            if name == "forged":
                made = replace(made, model={**made.model, "label": HOSTILE})
                if task == "landform":
                    made.metrics["all"]["strict"]["mAP"] = 0.999
            write(made, outcome, folder / name)
    return folder


@pytest.fixture(scope="module")
def site(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "board"
    write_leaderboard([folders], folder, price=2.5)
    return folder


def test_every_link_leads_to_a_file_and_nothing_is_loaded(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) == 4
    for path in pages:
        page = Page(path)
        assert not page.sources and page.tags.count("script") == 1
        for link in page.links:
            target, _, anchor = link.partition("#")
            assert not target or (path.parent / unquote(target)).is_file()
            assert not anchor or f'id="{anchor}"' in path.read_text(encoding="utf-8")


def test_a_forged_metric_is_listed_and_not_ranked(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "3 submissions, 1 of them not verified" in index
    assert "strict mAP is 0.999, but " in Page(site / "index.html").text
    assert "<script>alert" not in index
    overview = index.partition('id="overview"')[2].partition("</section>")[0]
    names = re.findall(r'class="label">([^<]*)<', overview)
    assert names == ["good", "weak", "chance"]


def test_a_page_has_metrics_facts_command_and_downloads(site: Path, folders: Path) -> None:
    folder = site / "submissions" / "good"
    page = Page(folder / "index.html")
    for text in ("R@5", "mAP@100", "1,000,000", "marsretrieval run -m good", "landform_03"):
        assert text in page.text
    assert (folder / "landform.json").read_bytes() == (
        folders / "good" / "landform.json"
    ).read_bytes()
    assert (folder / "metrics.csv").read_text(encoding="utf-8").startswith("model,task,")


def test_sets_of_one_task_are_told_apart_in_the_contents(tmp_path: Path) -> None:
    outcome = make_landform(0.4)
    for name in ("a", "b"):
        made = replace(
            result("landform", name, outcome), request="a" * 64, settings={"resamples": 50}
        )
        made = replace(made, data={**made.data, "set_hash": name * 64})
        write(made, outcome, tmp_path / "in" / name)
    write_leaderboard([tmp_path / "in"], tmp_path / "site")
    text = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    contents = text.partition('<nav class="toc"')[2].partition("</nav>")[0]
    hashes = re.findall(r"set ([0-9a-f]{8})<", contents)
    assert sorted(hashes) == ["a" * 8, "b" * 8]


def test_the_site_holds_no_path_of_this_machine(site: Path, folders: Path) -> None:
    for path in site.rglob("*.html"):
        assert str(folders) not in path.read_text(encoding="utf-8")
    assert str(folders) not in (site / "leaderboard.json").read_text(encoding="utf-8")


def test_checks_of_unchanged_files_are_reused(
    site: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "board"
    shutil.copytree(site, folder)
    monkeypatch.setattr(leaderboard, "verify_result", None)
    board = write_leaderboard([folders], folder, price=2.5)
    assert board.reused == 6 and len(board.failed) == 1
    for path in filter(Path.is_file, site.rglob("*")):
        assert (folder / path.relative_to(site)).read_bytes() == path.read_bytes()
    board = write_leaderboard([folders / "good"], folder)
    assert set(board.removed) == {"weak", HOSTILE}
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_another_folder_is_refused(
    folders: Path, tmp_path: Path, marsretrieval: Callable[..., Result]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    done = marsretrieval("report", folders, "--leaderboard", tmp_path, code=2)
    assert "not a leaderboard" in done.stderr and [*tmp_path.iterdir()] == [tmp_path / "mine.txt"]


def test_command_reports_failures(
    folders: Path, tmp_path: Path, marsretrieval: Callable[..., Result]
) -> None:
    done = marsretrieval("report", folders, "--leaderboard", tmp_path / "b", "--json", code=1)
    assert "1 not verified" in done.stderr and "landform.json" in done.stderr
    submissions = json.loads(done.stdout)["submissions"]
    assert [s["verified"] for s in submissions].count(False) == 1
    marsretrieval("report", folders, "--leaderboard", tmp_path / "b", "--md", code=2)


@pytest.mark.browser
def test_a_click_on_a_heading_sorts_the_leaderboard(browser: Any, site: Path) -> None:
    problems: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.goto((site / "index.html").as_uri())
    table = page.locator("#submissions table")
    heading = table.locator("th[data-column='0']")

    def names() -> list[str]:
        return [name.strip() for name in table.locator("tbody th").all_inner_texts()]

    for order in ("ascending", "descending", "ascending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert names() == sorted(names(), key=str.lower, reverse=order == "descending")
    assert len(names()) == 3
    overview = page.locator("#overview table.sortable").first
    for head in overview.locator("th[data-column]").all():
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") in ("ascending", "descending")
        assert overview.locator("th[aria-sort]").count() == 1
        assert page.locator("#status").inner_text().startswith("Sorted by ")
    values = "tbody:not(.foreign):not(.chance) tr:not(.group) [data-v]:nth-child(2)"
    for name in ("descending", "ascending"):
        head = overview.locator("th[data-column='1']")
        while head.get_attribute("aria-sort") != name:
            head.locator("button").click()
        numbers = [float(cell.get_attribute("data-v")) for cell in overview.locator(values).all()]
        assert len(numbers) == 2 and numbers == sorted(numbers, reverse=name == "descending")
    context.close()
    assert problems == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(browser: Any, site: Path, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    context.close()
