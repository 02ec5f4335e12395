"""Datasets whose files are in the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from marsretrieval.datasets.download import LinkSettings, download, plan_download, read_record
from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError, UsageError
from tests.datasets.download.repositories import (
    SHA,
    Publish,
    items,
    landform_files,
    landforms,
    pair_table,
    paired,
)
from tests.datasets.download.servers import Hub, Web, picture


def test_landform_download_is_complete_and_recorded(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms())
    report = download("landform", tmp_path)
    folder = tmp_path / "Mars-Landforms"
    assert (folder / "data/train-0.parquet").read_bytes() == hub.files["data/train-0.parquet"]
    assert not (folder / ".gitattributes").exists()
    assert len(items(folder)) == 3
    assert report.revision == SHA
    assert report.counts == {"rows": 3}
    assert report.fetched_bytes == sum(map(len, hub.files.values())) - 1
    record = read_record(folder)
    assert record is not None
    assert record.complete is True
    assert (record.repository, record.revision) == ("SUSTech/Mars-Landforms", SHA)
    assert record.created.endswith("+00:00")
    assert record.files is not None
    for file in record.files:
        body = (folder / file.path).read_bytes()
        assert file.sha256 == hashlib.sha256(body).hexdigest()
    assert not list((folder / ".cache").iterdir())


def test_second_run_downloads_nothing(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms())
    download("landform", tmp_path)
    path = tmp_path / "Mars-Landforms/download.json"
    path.write_text(path.read_text().replace("+00:00", "+01:00"))
    hub.requests.clear()
    assert download("landform", tmp_path).fetched_bytes == 0
    assert "+01:00" in path.read_text(), "the time of the download stands"
    assert list(hub.requests) == [f"GET /api/datasets/SUSTech/Mars-Landforms/revision/{SHA}"]


def test_head_revision_is_resolved_once_and_then_pinned(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    assert download("landform", tmp_path).revision == SHA
    moved = landforms(4)
    moved.revision = "f" * 40
    publish(moved)
    with pytest.raises(DatasetNotFoundError, match=f"no revision {SHA}"):
        download("landform", tmp_path)
    assert download("landform", tmp_path, revision="main").revision == "f" * 40
    assert len(items(tmp_path / "Mars-Landforms")) == 4


def test_files_missing_from_a_new_revision_are_removed(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    download("landform", tmp_path)
    moved = Hub("SUSTech/Mars-Landforms", "f" * 40, {})
    moved.files = {"data/train-9.parquet": landform_files(2)["data/train-0.parquet"]}
    publish(moved)
    download("landform", tmp_path, revision="f" * 40)
    assert len(items(tmp_path / "Mars-Landforms")) == 2


def test_geolocalization(publish: Publish, tmp_path: Path) -> None:
    files = {
        "ground_truth/yardangs.csv": b"lon,lat\n10,20\n-30,40\n",
        "image_queries/yardangs/a.png": picture(1, format="PNG"),
        "image_queries/yardangs/b.png": picture(2, format="PNG"),
    }
    hub = publish(Hub("SUSTech/Mars-Global-Geolocalization", SHA, files))
    (tmp_path / "Mars-Global-Geolocalization/tiles").mkdir(parents=True)  # cut before
    report = download("global_geolocalization", tmp_path, revision=SHA)
    assert report.counts == {"points": {"yardangs": 2}, "examples": {"yardangs": 2}}
    assert hub.tokens == {None}


def test_unknown_layout_is_reported(publish: Publish, tmp_path: Path) -> None:
    publish(Hub("SUSTech/Mars-Landforms", SHA, {"train.zip": b"PK"}))
    with pytest.raises(DatasetNotFoundError, match=r"no images, tars or Parquet"):
        download("landform", tmp_path)
    record = read_record(tmp_path / "Mars-Landforms")
    assert record is not None
    assert record.complete is False


def test_damage_is_repaired_by_a_rerun(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms())
    name = "data/train-0.parquet"
    download("landform", tmp_path)
    path = tmp_path / "Mars-Landforms" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert download("landform", tmp_path).fetched_bytes == len(hub.files[name])
    assert path.read_bytes() == hub.files[name]


def test_offline_checks_local_files(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms())
    download("landform", tmp_path)
    hub.requests.clear()
    assert download("landform", tmp_path, offline=True).counts == {"rows": 3}
    assert not hub.requests
    (tmp_path / "Mars-Landforms/data/train-0.parquet").unlink()
    with pytest.raises(DataError, match="1 files are missing or altered"):
        download("landform", tmp_path, offline=True)
    with pytest.raises(DatasetNotFoundError, match="not in the cache"):
        download("landform", tmp_path / "empty", offline=True)


def test_offline_uses_the_hub_cache(publish: Publish, tmp_path: Path) -> None:
    import huggingface_hub

    hub = publish(landforms())
    huggingface_hub.snapshot_download(
        hub.repository, repo_type="dataset", endpoint=os.environ["HF_ENDPOINT"], token=False
    )
    hub.requests.clear()
    report = download("landform", tmp_path, offline=True)
    assert (report.revision, report.counts) == (SHA, {"rows": 3})
    assert not hub.requests


def test_killed_copy_from_the_cache_can_be_repeated(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    hub = publish(landforms())
    huggingface_hub.snapshot_download(
        hub.repository, repo_type="dataset", endpoint=os.environ["HF_ENDPOINT"], token=False
    )
    real = shutil.copyfile

    def killed(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        download("landform", tmp_path, offline=True)
    monkeypatch.setattr(shutil, "copyfile", real)
    assert not list(tmp_path.rglob("*.parquet"))
    assert download("landform", tmp_path, offline=True).counts == {"rows": 3}


def test_missing_repository(publish: Publish, tmp_path: Path) -> None:
    publish(Hub("somebody/else", SHA, {}))
    with pytest.raises(DatasetNotFoundError, match="no such dataset on the hub"):
        download("landform", tmp_path)
    assert not (tmp_path / "Mars-Landforms").exists()


def test_unreachable_hub(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    publish(landforms())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the hub is not reachable") as caught:
        download("landform", tmp_path)
    assert "HF_ENDPOINT" in str(caught.value)


def test_insufficient_disk_space(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(landforms())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"Mars-Landforms: .* needed, 1 kB free"):
        download("landform", tmp_path)
    assert not (tmp_path / "Mars-Landforms").exists()


def test_unwritable_folder(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        download("landform", tmp_path / "data")


def test_folders_from_another_source_are_not_changed(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    other = tmp_path / "Mars-Landforms/crater/a.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(picture(0, format="PNG"))
    with pytest.raises(UsageError, match="files from another source"):
        download("landform", tmp_path)
    (tmp_path / "Mars-Landforms/download.json").write_text('{"schema_version": 1}')
    with pytest.raises(DataError, match="missing field 'dataset'"):
        download("landform", tmp_path)
    (tmp_path / "Mars-Landforms/download.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        download("landform", tmp_path)
    assert other.exists()


def test_a_plan_writes_nothing(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms())
    plan = plan_download("landform", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert [file["present"] for file in plan.files] == [False, False]
    assert plan.bytes_to_fetch == sum(map(len, hub.files.values())) - 1
    assert plan.free_bytes > 0
    download("landform", tmp_path)
    assert plan_download("landform", tmp_path).bytes_to_fetch == 0


def test_a_plan_of_links(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["a.jpg", "b.jpg"]))
    web.file("/a.jpg", picture(1))
    plan = plan_download("paired", tmp_path, variant="whole", revision=SHA)
    assert (plan.links, plan.links_present) == (2287, 0)
    paired(tmp_path, settings)
    plan = plan_download("paired", tmp_path, variant="whole", revision=SHA)
    assert (plan.links, plan.links_present) == (2, 1)
