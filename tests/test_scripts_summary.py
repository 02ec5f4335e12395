"""Summary files written by the published commands."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return import_module("_summary")


def row(model: str) -> dict[str, str]:
    return {"model": model, "created": "2026", "mAP": "1.0000", "request": "r"}


def test_concurrent_rows_are_written_exactly_once(summary, tmp_path: Path) -> None:
    file = tmp_path / "summary.csv"
    models = [f"model-{number % 20}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda model: summary.add(file, "landform", [row(model)]), models))
    assert sum(counts) == 20
    rows = list(csv.DictReader(file.open()))
    assert sorted(record["model"] for record in rows) == sorted(set(models))
    assert list(tmp_path.iterdir()) == [file]  # no temporary file


def test_foreign_file_is_preserved_and_not_extended(summary, tmp_path: Path) -> None:
    file = tmp_path / "summary.csv"
    file.write_text("model,score\nolder,1\n")
    summary.add(file, "landform", [row("newer")])
    assert (tmp_path / "summary.1.csv").read_text() == "model,score\nolder,1\n"
    assert [record["model"] for record in csv.DictReader(file.open())] == ["newer"]


def test_missing_final_newline_is_added(summary, tmp_path: Path) -> None:
    file = tmp_path / "summary.csv"
    summary.add(file, "landform", [row("first")])
    file.write_text(file.read_text().rstrip("\n"))
    summary.add(file, "landform", [row("second")])
    assert [record["model"] for record in csv.DictReader(file.open())] == ["first", "second"]
