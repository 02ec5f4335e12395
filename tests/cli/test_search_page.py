"""search -o FILE.html and --sheet on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.report.pages import Page
from tests.search.pictures import picture_store

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    positions = [(10 + 0.2 * n, 5.0, 0.2) for n in range(8)]
    return picture_store(tmp_path, positions).path


def test_page_and_sheet_are_written(folder: Path, tmp_path: Path, marsretrieval: Run) -> None:
    out, sheet = tmp_path / "hits.html", tmp_path / "sheet.png"
    done = marsretrieval(
        "search", "--store", folder, "--like", "tile-003", "--like-at=10.0,5.0", "-k", 4,
        "--keep-examples", "-o", out, "--sheet", sheet,
    )  # fmt: skip
    assert f"{out}: 4 hits" in done.stdout and f"{sheet}: contact sheet" in done.stdout
    page = Page(out.read_text(encoding="utf-8"))
    assert page.all("pre")[0].text == (
        f"marsretrieval search --store {folder} --similar-to tile-003 "
        f"--similar-to-location 10.0,5.0 --count 4 --keep-examples --out {out} --sheet {sheet}"
    )


def test_json_counts_images(folder: Path, tmp_path: Path, marsretrieval: Run) -> None:
    (tmp_path / "images" / "tile-001.png").unlink()
    done = marsretrieval(
        "search", "--store", folder, "--like", "tile-003", "-k", 7, "--page-images", 7,
        "-o", tmp_path / "hits.html", "--json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (report["images"], report["images_unreadable"]) == (6, 1)
    assert "warning: " in done.stderr and "1 of 7 images cannot be read" in done.stderr


def test_left_out_images_are_noted(folder: Path, tmp_path: Path, marsretrieval: Run) -> None:
    done = marsretrieval(
        "search", "--store", folder, "--like", "tile-003", "--page-images", 2,
        "-o", tmp_path / "hits.html",
    )  # fmt: skip
    assert "note: 5 of 7 hits have no image in the page" in done.stderr


def test_wrong_use(folder: Path, tmp_path: Path, marsretrieval: Run) -> None:
    common = ("search", "--store", folder, "--like", "tile-003")
    done = marsretrieval(*common, "--page-images", 3, "-o", tmp_path / "x.csv", code=2)
    assert "--page-images requires -o FILE.html" in done.stderr
    done = marsretrieval(*common, "--sheet", tmp_path / "x.gif", code=2)
    assert "no format of a contact sheet" in done.stderr
