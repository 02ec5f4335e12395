"""Records crafted to access files outside the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marsretrieval.datasets.download import download, read_record
from marsretrieval.errors import DataError
from tests.datasets.download.repositories import Publish, landforms


@pytest.mark.parametrize("key", ["files", "begun", "table"])
@pytest.mark.parametrize(
    "name", ["../../victim.txt", "{outside}/victim.txt", "..", "a\x1bb", "x//y"]
)
def test_names_of_a_record_remove_nothing_outside(
    publish: Publish, tmp_path: Path, key: str, name: str
) -> None:
    publish(landforms())
    download("landform", tmp_path / "out")
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    path = tmp_path / "out/Mars-Landforms/download.json"
    record = json.loads(path.read_text())
    name = name.format(outside=tmp_path)
    file = {"path": name, "size": 1, "sha256": "0"}
    record[key] = [*record.get(key, []), name if key == "begun" else file]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"download\.json: .* below its folder"):
        download("landform", tmp_path / "out")
    assert victim.read_text() == "mine"


def test_links_do_not_point_outside_the_folder(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    download("landform", tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/victim.txt").write_text("mine")
    (tmp_path / "out/Mars-Landforms/link").symlink_to(tmp_path / "other")
    path = tmp_path / "out/Mars-Landforms/download.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "begun": ["link/victim.txt"]}))
    with pytest.raises(DataError, match="a link points out of"):
        read_record(path.parent)
    assert (tmp_path / "other/victim.txt").read_text() == "mine"
