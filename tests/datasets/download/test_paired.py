"""Pairs with captions from the hub and images from the web."""

from __future__ import annotations

import csv
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from marsretrieval.datasets.download import (
    LinkSettings,
    download,
    read_record,
)
from marsretrieval.errors import (
    DataError,
    TableError,
    UsageError,
)
from tests.datasets.download.repositories import (
    SHA,
    Publish,
    items,
    pair_table,
    paired,
    parquet,
)
from tests.datasets.download.servers import Handler, Hub, Web, picture


def test_images_captions_and_missing_images(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["a.jpg", "gone.jpg", "old.png", "page.jpg"]))
    web.file("/a.jpg", picture(1))
    web.file("/page.jpg", b"<html>no</html>")
    web.captures[f"{base}/old.png"] = ("20200101000000", picture(2, format="PNG"))
    report = download("paired", tmp_path, settings=settings, variant="whole", revision=SHA)
    folder = tmp_path / "Mars-VL-Pairs"
    records = items(folder)
    assert list(records) == ["k0", "k2"]
    assert records["k0"].data == picture(1)
    assert records["k2"].source.endswith("00000.tar:k2.png")
    assert records["k2"].caption == "refined old.png"
    assert records["k2"].original_caption == "original old.png"
    assert report.counts == {"rows": 4, "pairs": 2, "missing": 2, "direct": 1, "wayback": 1}
    assert report.fetched_bytes > len(picture(1))
    assert report.failed(strict=False), "half of it missing is no rot"
    rows = list(csv.DictReader((folder / "missing.csv").open()))
    assert [row["key"] for row in rows] == ["k1", "k3"]
    assert rows[0]["reason"].startswith("direct: HTTP 404")
    assert rows[1]["reason"].startswith("direct: not an image (a web page)")
    rows = list(csv.DictReader((folder / "pairs.csv").open()))
    assert [row["method"] for row in rows] == ["direct", "missing", "wayback", "missing"]
    assert rows[0]["sha256"] == hashlib.sha256(picture(1)).hexdigest()
    record = read_record(folder)
    assert record is not None
    assert (record.variant, record.missing) == ("whole", ("k1", "k3"))


def test_rerun_downloads_only_missing_images_and_changes_one_tar(
    publish: Publish,
    web: Web,
    base: str,
    settings: LinkSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("marsretrieval.datasets.download.dataset.SHARD_ROWS", 2)
    publish(pair_table(base, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]))
    for number, name in enumerate("abd"):
        web.file(f"/{name}.jpg", picture(number))
    paired(tmp_path, settings)
    folder = tmp_path / "Mars-VL-Pairs"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    web.file("/c.jpg", picture(9))
    assert paired(tmp_path, settings)["missing"] == []
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert after["00000.tar"] == before["00000.tar"]
    assert after["00001.tar"] > before["00001.tar"]
    assert list(items(folder)) == ["k0", "k1", "k2", "k3"]
    assert [web.requests[f"/{name}.jpg"] for name in "abcd"] == [1, 1, 2, 1]


def test_the_same_bytes_give_the_same_tars(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["a.jpg", "b.jpg"]))
    web.file("/a.jpg", picture(1))
    web.file("/b.jpg", picture(2))
    tars = []
    for name in ("one", "two"):
        paired(tmp_path / name, settings)
        tars.append((tmp_path / name / "Mars-VL-Pairs/00000.tar").read_bytes())
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as tar:
        member = tar.getmembers()[0]
    assert (member.name, member.mtime, member.uid, member.uname) == ("k0.jpg", 0, 0, "")


def test_damaged_tar_is_written_again(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["a.jpg"]))
    web.file("/a.jpg", picture(1))
    paired(tmp_path, settings)
    tar = tmp_path / "Mars-VL-Pairs/00000.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:-700])
    paired(tmp_path, settings)
    assert tar.read_bytes() == content


def test_offline_packs_downloaded_images(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    hub = publish(pair_table(base, ["a.jpg", "b.jpg"]))
    web.file("/a.jpg", picture(1))
    paired(tmp_path, settings)
    hub.requests.clear()
    web.requests.clear()
    report = paired(tmp_path, settings, offline=True)
    assert report["missing"][0]["reason"] == "not fetched (offline)"
    assert not hub.requests
    assert not web.requests


def test_the_published_variant_is_a_crop_of_512(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["wide.png"]))
    body = picture(1, (1500, 300))
    web.file("/wide.png", body)
    paired(tmp_path, settings, variant="published", cache=tmp_path / "cache")
    records = items(tmp_path / "Mars-VL-Pairs")["k0"]
    with Image.open(io.BytesIO(records.data)) as image:
        assert (image.size, image.format) == ((512, 512), "JPEG")
    paired(tmp_path / "whole", settings, cache=tmp_path / "cache")
    assert items(tmp_path / "whole/Mars-VL-Pairs")["k0"].data == body
    assert web.requests["/wide.png"] == 1, "the cache serves both variants"
    with pytest.raises(UsageError, match="holds variant published, not whole"):
        paired(tmp_path, settings)


def test_frozen_variant_is_the_default(
    publish: Publish, tmp_path: Path, settings: LinkSettings
) -> None:
    body = parquet(
        key=["0007"],
        image=[{"bytes": picture(1), "path": "0007.jpg"}],
        ori_caption=["o"],
        refined_caption=["r"],
    )
    publish(Hub("Cerru02/Mars-VL-Pairs-MTEB", SHA, {"data/test-0.parquet": body}))
    report = download("paired", tmp_path, revision=SHA)
    assert report.counts == {"rows": 1}
    assert items(tmp_path / "Mars-VL-Pairs")["0007"].caption == "r"
    with pytest.raises(UsageError, match="holds variant frozen, not whole") as caught:
        paired(tmp_path, settings)
    assert "--variant frozen" in str(caught.value)


def test_keys_invalid_as_file_names_become_row_numbers(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["a.jpg", "b.jpg"], keys=["../x", "y.z"]))
    web.file("/a.jpg", picture(1))
    web.file("/b.jpg", picture(2))
    paired(tmp_path, settings)
    folder = tmp_path / "Mars-VL-Pairs"
    assert list(items(folder)) == ["000000", "000001"]
    rows = list(csv.DictReader((folder / "pairs.csv").open()))
    assert [(row["id"], row["key"]) for row in rows] == [("000000", "../x"), ("000001", "y.z")]


def test_a_table_without_its_columns(publish: Publish, tmp_path: Path) -> None:
    publish(Hub("SUSTech/Mars-VL-Pairs", SHA, {"a.parquet": parquet(key=["1"], url=["u"])}))
    with pytest.raises(TableError, match="no column 'image_url'"):
        download("paired", tmp_path, variant="whole", revision=SHA)
    publish(Hub("SUSTech/Mars-VL-Pairs", "f" * 40, {"README.md": b"moved"}))
    with pytest.raises(DataError, match="no Parquet table"):
        download("paired", tmp_path, variant="whole", revision="f" * 40)


def test_no_image_available(
    publish: Publish, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    publish(pair_table(base, ["a.jpg", "b.jpg"]))
    with pytest.raises(DataError, match="none of 2 images is available"):
        paired(tmp_path, settings)


def test_killed_download_is_resumed(
    publish: Publish, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    names = [f"{number}.jpg" for number in range(30)]
    publish(pair_table(base, names))

    over = threading.Event()

    def silent_later(handler: Handler) -> None:
        if sum(web.requests.values()) > 12:
            over.wait(60)
        handler.send(200, picture(int(handler.path[1:-4])))

    web.routes = {f"/{name}": silent_later for name in names}
    script = (
        "import sys, pathlib\n"
        "from marsretrieval.datasets.download import LinkSettings, download\n"
        "settings = LinkSettings(workers=2, allowed_addresses=frozenset({'127.0.0.1'}))\n"
        "download('paired', pathlib.Path(sys.argv[1]), revision=sys.argv[2],"
        " variant='whole', settings=settings)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), SHA])
    deadline = time.monotonic() + 60
    while sum(web.requests.values()) <= 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    over.set()
    image_count = len(list(tmp_path.rglob("*.image")))
    assert 1 <= image_count < 30
    first = web.requests.copy()
    web.requests.clear()
    report = paired(tmp_path, settings)
    assert report["missing"] == []
    assert sum(web.requests.values()) <= 30 - image_count + 1
    assert sum(first.values()) >= image_count
    assert len(items(tmp_path / "Mars-VL-Pairs")) == 30
