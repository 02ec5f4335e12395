from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marsretrieval.io import sha256_file
from tests.datasets.download.servers import picture
from tests.datasets.layouts import write_tar
from tests.datasets.verify.sets import check, landforms, named, pair, pairs, write_planet


def record(folder: Path, **fields: Any) -> None:
    files = [
        {"path": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.glob("*.tar"))
    ]
    value = {
        "schema_version": 1, "dataset": "paired", "repository": "r", "revision": "abc",
        "variant": "whole", "complete": True, "files": files, "counts": {"rows": 40},
        "missing": [], "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    (folder / "download.json").write_text(json.dumps(value | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = pairs(tmp_path / "Mars-VL-Pairs", ("a", picture(1), "one"))
    write_tar(folder / "00001.tar", pair("b", picture(2), "two"))
    return folder


def test_origin_and_files_as_downloaded(folder: Path) -> None:
    record(folder)
    inventory = check(folder)
    assert inventory.problems == []
    assert inventory.origin["revision"] == "abc"


def test_changed_and_missing_files(folder: Path) -> None:
    record(folder)
    write_tar(folder / "00000.tar", pair("a", picture(1), "one, altered"))
    (folder / "00001.tar").unlink()
    problems = named(check(folder))
    assert problems["altered-file"].examples == ("00000.tar",)
    assert problems["missing-file"].examples == ("00001.tar",)


def test_a_synthetic_planet_is_compared_with_its_record(tmp_path: Path) -> None:
    """The image decodes but differs from the original: a JPEG has no checksum."""
    rows = [{"id": name, "image": picture(number), "label": "yardangs"}
            for number, name in enumerate("ab")]  # fmt: skip
    folder = landforms(tmp_path / "Mars-Landforms", rows)
    files = {
        f"Mars-Landforms/{path.relative_to(folder)}": {
            "bytes": path.stat().st_size, "sha256": sha256_file(path),
        }
        for path in folder.rglob("*.parquet")
    }  # fmt: skip
    names = ("Mars-Landforms/gone.txt", "ctx/a.tif")
    absent = {name: {"bytes": 1, "sha256": ""} for name in names}
    write_planet(tmp_path, files=files | absent)
    problems = named(check(folder))
    assert problems["missing-file"].examples == ("gone.txt",)
    assert "altered-file" not in problems
    rows[0]["image"] = picture(7)
    landforms(folder, rows)
    assert named(check(folder))["altered-file"].examples == ("data/train-0.parquet",)


def test_a_record_of_another_shape_is_damaged(folder: Path) -> None:
    for files in ([1], [{"path": "a"}], None):
        record(folder, files=files)
        assert "damaged-record" in named(check(folder))
    (folder / "download.json").unlink()
    for planet in ([1], {"Mars-VL-Pairs/a": 1}, {"ctx/a.tif": {"bytes": 1}}):
        write_planet(folder.parent, files=planet)
        assert "damaged-record" in named(check(folder))


def test_unavailable_images(folder: Path) -> None:
    record(folder, missing=["x", "y"])
    assert named(check(folder))["image-not-had"].severity == "note"
    record(folder, missing=["x", "y", "z"])
    problem = named(check(folder))["image-not-had"]
    assert (problem.severity, problem.count) == ("error", 3)


def test_an_unfinished_or_damaged_record(folder: Path) -> None:
    record(folder, complete=False)
    assert "data download paired" in named(check(folder))["unfinished-download"].examples[0]
    (folder / "download.json").write_text("{")
    assert "damaged-record" in named(check(folder, "paired"))


def test_the_names_in_the_record_of_a_planet_are_confined(tmp_path: Path) -> None:
    rows = [{"id": "a", "image": picture(0), "label": "yardangs"}]
    folder = landforms(tmp_path / "Mars-Landforms", rows)
    (tmp_path.parent / "secret.txt").write_text("mine")
    files = {"../secret.txt": {"bytes": 4, "sha256": ""}}
    write_planet(tmp_path, files=files)
    problems = named(check(folder))
    assert "below its folder" in problems["damaged-record"].examples[0]
