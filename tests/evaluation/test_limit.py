"""Tests of limited runs: which items stay, marks in results and tables, no mix with full ones."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import marsretrieval as mr
from marsretrieval.datasets import open_images, read_annotations
from marsretrieval.errors import DataError, UsageError
from marsretrieval.report.compare import compare_results
from marsretrieval.report.exports import hf_yaml
from marsretrieval.report.render import render_csv
from marsretrieval.report.result_files import ResultFile
from marsretrieval.report.tables import model_tables
from marsretrieval.tasks import Settings, find_task
from tests.tasks.oracle import OracleEncoder, class_folders, pairs_tar, tiles_folder

Command = Callable[..., Result]


class Oracle(OracleEncoder):
    """An encoder with a class of its own, so that results are kept."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    pairs_tar(folder)
    tiles_folder(folder)
    class_folders(folder / "Mars-Landforms", {"plains": 4, "yardangs": 3, "landslides": 2})
    return folder


def evaluate(data: Path, **options: Any) -> mr.Results:
    options = {"tasks": "landform", "resamples": 10, **options}
    return mr.evaluate(Oracle(), data=data, results=data.parent / "results", **options)


def test_landform_images_are_taken_in_turn_from_the_classes(data: Path) -> None:
    task = find_task("landform")
    opened = task.open(data)
    limited = task.limit(opened, 7)  # type: ignore[attr-defined]
    assert Counter(limited.annotations.values()) == {"plains": 3, "yardangs": 2, "landslides": 2}
    assert limited.source is not None
    records, skipped = read_annotations(limited.source)
    assert {record.id for record in records} == set(limited.annotations) and not skipped
    two = task.limit(opened, 2)  # type: ignore[attr-defined]
    assert two.limit["dropped_queries"] == 1
    assert "queries dropped, without a relevant item left: 1" in two.notes[-1]


def test_pairs_and_tiles_are_the_first_of_the_dataset(data: Path) -> None:
    paired = find_task("paired")
    captions = list(paired.open(data).annotations)
    assert list(paired.limit(paired.open(data), 3).annotations) == captions[:3]  # type: ignore[attr-defined]
    geo = find_task("geo")
    limited = geo.limit(geo.open(data), 4)  # type: ignore[attr-defined]
    everything, _ = read_annotations(open_images(data / geo.folder_name / "tiles"))
    first, _ = read_annotations(limited.source)
    assert [record.id for record in first] == [record.id for record in everything][:4]


def test_a_limited_result_is_marked_and_beside_the_full_one(data: Path) -> None:
    limited = evaluate(data, limit=6)
    full = evaluate(data)
    again = evaluate(data, limit=6)
    assert (
        [path.name for path in limited.paths]
        == ["landform.limit-6.json"]
        == [path.name for path in again.paths]
    )
    assert full.paths[0].name == "landform.json"
    assert limited[0].request == again[0].request != full[0].request
    assert limited[0].data["n"]["images"] == 6 and full[0].data["n"]["images"] == 9
    assert limited[0].data["limit"]["of"] == 9
    written = json.loads(limited.paths[0].read_text())
    assert written["settings"]["limit"] == 6 and "limited to 6 of 9" in written["data"]["notes"][-1]
    assert "limited to 6 images" in repr(limited)
    assert set(limited.to_dataframe()["limit"]) == {6}
    assert all(counts.startswith("images=6 ") for counts in limited.to_dataframe()["n"])
    tables = model_tables([*limited, *full])
    assert [table.limit for table in tables] == [None, 6]
    assert "limited to 6 images" in tables[1].title
    rows = csv.DictReader(io.StringIO(render_csv(tables)))
    assert {row["limit"] for row in rows} == {"", "6"}


def test_a_limit_above_the_data_still_is_a_limited_result(data: Path) -> None:
    limited = evaluate(data, limit=100)
    full = evaluate(data)
    assert limited[0].data["set_hash"] == full[0].data["set_hash"]
    assert limited.paths[0] != full.paths[0] and limited.paths[0].exists()
    assert len(model_tables([*limited, *full])) == 2
    a, b = (ResultFile.read(outcome.paths[0]) for outcome in (limited, full))
    with pytest.raises(DataError, match="A is limited to 100 images, B is on all items"):
        compare_results(a, b)
    with pytest.raises(DataError, match="not a result to publish"):
        hf_yaml([a])


def test_geolocalization_drops_landforms_far_from_the_tiles(data: Path) -> None:
    full = evaluate(data, tasks="geolocalization")[0]
    limited = evaluate(data, tasks="geolocalization", limit=2)[0]
    assert limited.data["n"]["tiles"] == 2
    landforms = [name for name in full.data["n"] if name.startswith("points/")]
    remaining = [name for name in limited.data["n"] if name.startswith("points/")]
    assert limited.data["limit"]["dropped_queries"] == len(landforms) - len(remaining)


def test_invalid_limits_and_stores(data: Path) -> None:
    with pytest.raises(UsageError, match="limit must be at least 2"):
        Settings(limit=1)
    geo = find_task("geo")
    with pytest.raises(UsageError, match="store subset"):
        geo.limit(geo.open(data, with_images=False), 3)  # type: ignore[attr-defined]


def test_the_command_line(tiny_planet: Path, tmp_path: Path, marsretrieval: Command) -> None:
    run = ("run", "-m", "mars-nano", "-t", "all", "--data", tiny_planet, "--results", tmp_path,
           "--resamples", 10, "--limit", 45)  # fmt: skip
    plan = json.loads(marsretrieval(*run, "--dry-run", "--json").stdout)
    assert [row["limit"] for row in plan] == [45] * 3
    done = marsretrieval(*run, code=1)
    assert "limited to 45 images" in done.stdout and "limited to 45 of 48 images" in done.stderr
    assert "no landform has a point within the limited tiles" in done.stderr
    assert "already done" in marsretrieval(*run, code=1).stderr
