from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from marsretrieval.datasets import Record, open_images
from marsretrieval.datasets.download import (
    FetchSettings,
    download,
    find_source,
    plan_download,
    read_record,
)
from marsretrieval.datasets.download._pictures import published_crop
from marsretrieval.errors import (
    DataError,
    DatasetNotFoundError,
    OutputError,
    TableError,
    UnknownNameError,
    UsageError,
)
from tests.datasets.download.servers import Handler, Hub, Web, picture

Publish = Callable[[Hub], Hub]
SHA = "1234567890abcdef1234567890abcdef12345678"


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def landform_files(rows: int = 3) -> dict[str, bytes]:
    images = [{"bytes": picture(row), "path": f"{row}.jpg"} for row in range(rows)]
    body = parquet(image=images, label=["yardangs"] * rows)  # type: ignore[arg-type]
    return {"README.md": b"card", ".gitattributes": b"x", "data/train-0.parquet": body}


def landforms(rows: int = 3) -> Hub:
    return Hub("SUSTech/Mars-Landforms", SHA, landform_files(rows))


def pair_table(base: str, names: list[str], keys: list[str] | None = None) -> Hub:
    """A repository of pairs whose images lie on the web at `base`."""
    body = parquet(
        key=list(keys or [f"k{number}" for number in range(len(names))]),
        image_url=[f"{base}/{name}" for name in names],
        ori_caption=[f"original {name}" for name in names],
        refined_caption=[f"refined {name}" for name in names],
    )
    return Hub("SUSTech/Mars-VL-Pairs", SHA, {"data/train-0.parquet": body})


def paired(out: Path, settings: FetchSettings, **options: object) -> dict[str, object]:
    report = download("paired", out, settings=settings, revision=SHA, **options)  # type: ignore[arg-type]
    return report.to_dict()


def items(folder: Path) -> dict[str, Record]:
    source = open_images(folder)
    found = [item for shard in source.shards() for item in source.read(shard)]
    assert all(isinstance(item, Record) for item in found)
    return {item.id: item for item in found if isinstance(item, Record)}


class TestHosted:
    def test_landforms_come_whole_with_a_record(self, publish: Publish, tmp_path: Path) -> None:
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
        assert record["complete"] is True
        assert (record["repository"], record["revision"]) == ("SUSTech/Mars-Landforms", SHA)
        assert record["created"].endswith("+00:00")
        for file in record["files"]:
            body = (folder / file["path"]).read_bytes()
            assert file["sha256"] == hashlib.sha256(body).hexdigest()

    def test_a_second_run_fetches_nothing(self, publish: Publish, tmp_path: Path) -> None:
        hub = publish(landforms())
        download("landform", tmp_path)
        path = tmp_path / "Mars-Landforms/download.json"
        path.write_text(path.read_text().replace("+00:00", "+01:00"))
        hub.asked.clear()
        assert download("landform", tmp_path).fetched_bytes == 0
        assert "+01:00" in path.read_text(), "the time of the download stands"
        assert list(hub.asked) == [f"GET /api/datasets/SUSTech/Mars-Landforms/revision/{SHA}"]

    def test_the_head_is_taken_once_and_then_kept(self, publish: Publish, tmp_path: Path) -> None:
        publish(landforms())
        assert download("landform", tmp_path).revision == SHA
        moved = landforms(4)
        moved.revision = "f" * 40
        publish(moved)
        with pytest.raises(DatasetNotFoundError, match=f"no revision {SHA}"):
            download("landform", tmp_path)
        assert download("landform", tmp_path, revision="main").revision == "f" * 40
        assert len(items(tmp_path / "Mars-Landforms")) == 4

    def test_files_that_a_new_revision_lacks_are_removed(
        self, publish: Publish, tmp_path: Path
    ) -> None:
        publish(landforms())
        download("landform", tmp_path)
        moved = Hub("SUSTech/Mars-Landforms", "f" * 40, {})
        moved.files = {"data/train-9.parquet": landform_files(2)["data/train-0.parquet"]}
        publish(moved)
        download("landform", tmp_path, revision="f" * 40)
        assert len(items(tmp_path / "Mars-Landforms")) == 2

    def test_geolocalization(self, publish: Publish, tmp_path: Path) -> None:
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

    def test_a_layout_that_the_readers_do_not_know_is_told(
        self, publish: Publish, tmp_path: Path
    ) -> None:
        publish(Hub("SUSTech/Mars-Landforms", SHA, {"train.zip": b"PK"}))
        with pytest.raises(DatasetNotFoundError, match=r"no images, tars or Parquet"):
            download("landform", tmp_path)
        record = read_record(tmp_path / "Mars-Landforms")
        assert record is not None
        assert record["complete"] is False

    def test_a_file_cut_off_goes_on_where_it_stopped(
        self, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
        hub = publish(landforms(40))
        hub.cut_after = 10_500
        download("landform", tmp_path)
        assert hub.ranges == [None, "bytes=10000-"]
        assert len(items(tmp_path / "Mars-Landforms")) == 40

    def test_after_a_failure_only_the_files_that_are_not_whole_are_fetched(
        self, publish: Publish, tmp_path: Path
    ) -> None:
        hub = publish(landforms())
        name = "data/train-1.parquet"
        hub.files[name] = landform_files(2)["data/train-0.parquet"]
        hub.served[name] = hub.files[name][:-1] + b"?"
        with pytest.raises(DataError, match=r"1 files did not arrive whole: data/train-1.parquet"):
            download("landform", tmp_path)
        hub.served.clear()
        left = tmp_path / "Mars-Landforms/.cache/huggingface/download/data/x.1.incomplete"
        left.write_bytes(b"of a run that was killed")
        assert download("landform", tmp_path).fetched_bytes == len(hub.files[name])
        assert not left.exists()

    def test_damage_is_mended_by_a_rerun(self, publish: Publish, tmp_path: Path) -> None:
        hub = publish(landforms())
        name = "data/train-0.parquet"
        download("landform", tmp_path)
        path = tmp_path / "Mars-Landforms" / name
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert download("landform", tmp_path).fetched_bytes == len(hub.files[name])
        assert path.read_bytes() == hub.files[name]

    def test_offline_checks_what_is_there(self, publish: Publish, tmp_path: Path) -> None:
        hub = publish(landforms())
        download("landform", tmp_path)
        hub.asked.clear()
        assert download("landform", tmp_path, offline=True).counts == {"rows": 3}
        assert not hub.asked
        (tmp_path / "Mars-Landforms/data/train-0.parquet").unlink()
        with pytest.raises(DataError, match="1 files are gone or altered"):
            download("landform", tmp_path, offline=True)
        with pytest.raises(DatasetNotFoundError, match="neither in"):
            download("landform", tmp_path / "empty", offline=True)

    def test_offline_takes_the_librarys_cache(self, publish: Publish, tmp_path: Path) -> None:
        import huggingface_hub

        hub = publish(landforms())
        huggingface_hub.snapshot_download(
            hub.repository, repo_type="dataset", endpoint=os.environ["HF_ENDPOINT"], token=False
        )
        hub.asked.clear()
        report = download("landform", tmp_path, offline=True)
        assert (report.revision, report.counts) == (SHA, {"rows": 3})
        assert not hub.asked

    def test_the_token_is_sent_and_never_written_or_told(
        self,
        publish: Publish,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        hub = publish(landforms())
        monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
        download("landform", tmp_path)
        assert "Bearer hf_verysecret" in hub.tokens
        assert "verysecret" not in caplog.text
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or b"verysecret" not in path.read_bytes()

    def test_a_repository_that_is_not_there(self, publish: Publish, tmp_path: Path) -> None:
        publish(Hub("somebody/else", SHA, {}))
        with pytest.raises(DatasetNotFoundError, match="no such dataset on the hub"):
            download("landform", tmp_path)
        assert not (tmp_path / "Mars-Landforms").exists()

    def test_a_hub_that_is_down(
        self, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        publish(landforms())
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(DataError, match="the hub does not answer") as caught:
            download("landform", tmp_path)
        assert "HF_ENDPOINT" in str(caught.value)

    def test_no_room(
        self, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(landforms())
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
        with pytest.raises(
            OutputError, match=r"Mars-Landforms: .* are needed there, 1 kB are free"
        ):
            download("landform", tmp_path)
        assert not (tmp_path / "Mars-Landforms").exists()

    def test_a_folder_that_cannot_be_written(self, publish: Publish, tmp_path: Path) -> None:
        publish(landforms())
        (tmp_path / "data").write_text("in the way")
        with pytest.raises(OutputError, match="cannot be written"):
            download("landform", tmp_path / "data")

    def test_folders_of_another_origin_are_left_alone(
        self, publish: Publish, tmp_path: Path
    ) -> None:
        publish(landforms())
        other = tmp_path / "Mars-Landforms/crater/a.png"
        other.parent.mkdir(parents=True)
        other.write_bytes(picture(0, format="PNG"))
        with pytest.raises(UsageError, match="files of another origin"):
            download("landform", tmp_path)
        (tmp_path / "Mars-Landforms/download.json").write_text('{"schema_version": 1}')
        with pytest.raises(DataError, match="has no 'dataset'"):
            download("landform", tmp_path)
        (tmp_path / "Mars-Landforms/download.json").write_text("{")
        with pytest.raises(DataError, match="not readable as JSON"):
            download("landform", tmp_path)
        assert other.exists()


class TestPlan:
    def test_a_plan_writes_nothing(self, publish: Publish, tmp_path: Path) -> None:
        hub = publish(landforms())
        plan = plan_download("landform", tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert [file["present"] for file in plan.files] == [False, False]
        assert plan.bytes_to_fetch == sum(map(len, hub.files.values())) - 1
        assert plan.free_bytes > 0
        download("landform", tmp_path)
        assert plan_download("landform", tmp_path).bytes_to_fetch == 0

    def test_a_plan_of_links(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        publish(pair_table(base, ["a.jpg", "b.jpg"]))
        web.file("/a.jpg", picture(1))
        plan = plan_download("paired", tmp_path, revision=SHA)
        assert (plan.links, plan.links_present) == (2287, 0)
        paired(tmp_path, settings)
        plan = plan_download("paired", tmp_path, revision=SHA)
        assert (plan.links, plan.links_present) == (2, 1)


class TestPaired:
    def test_images_captions_and_what_is_missing(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        publish(pair_table(base, ["a.jpg", "gone.jpg", "old.png", "page.jpg"]))
        web.file("/a.jpg", picture(1))
        web.file("/page.jpg", b"<html>no</html>")
        web.captures[f"{base}/old.png"] = ("20200101000000", picture(2, format="PNG"))
        report = download("paired", tmp_path, settings=settings, revision=SHA)
        folder = tmp_path / "Mars-VL-Pairs"
        found = items(folder)
        assert list(found) == ["k0", "k2"]
        assert found["k0"].data == picture(1)
        assert found["k2"].source.endswith("00000.tar:k2.png")
        assert found["k2"].caption == "refined old.png"
        assert found["k2"].original_caption == "original old.png"
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
        assert (record["variant"], record["missing"]) == ("whole", ["k1", "k3"])

    def test_what_links_rot_is_no_failure_unless_strict(self) -> None:
        from marsretrieval.datasets.download import Missing, Report

        def report(missing: int) -> Report:
            gone = [Missing(str(row), row, "http://x", "HTTP 404") for row in range(missing)]
            return Report("paired", "f", "r", SHA, "whole", "cc", 1, 1, {"rows": 2287}, gone)

        assert not report(38).failed(strict=False)
        assert report(38).failed(strict=True)
        assert report(200).failed(strict=False)
        assert not report(0).failed(strict=True)

    def test_a_rerun_fetches_only_what_is_missing_and_changes_one_tar(
        self,
        publish: Publish,
        web: Web,
        base: str,
        settings: FetchSettings,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("marsretrieval.datasets.download._pack.SHARD_ROWS", 2)
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
        assert [web.asked[f"/{name}.jpg"] for name in "abcd"] == [1, 1, 2, 1]

    def test_the_same_bytes_give_the_same_tars(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
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

    def test_a_tar_that_was_damaged_is_made_again(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        publish(pair_table(base, ["a.jpg"]))
        web.file("/a.jpg", picture(1))
        paired(tmp_path, settings)
        tar = tmp_path / "Mars-VL-Pairs/00000.tar"
        whole = tar.read_bytes()
        tar.write_bytes(whole[:-700])
        paired(tmp_path, settings)
        assert tar.read_bytes() == whole

    def test_offline_packs_what_was_fetched(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        hub = publish(pair_table(base, ["a.jpg", "b.jpg"]))
        web.file("/a.jpg", picture(1))
        paired(tmp_path, settings)
        hub.asked.clear()
        web.asked.clear()
        report = paired(tmp_path, settings, offline=True)
        assert report["missing"][0]["reason"] == "not fetched (offline)"  # type: ignore[index]
        assert not hub.asked
        assert not web.asked

    def test_the_published_variant_is_a_crop_of_512(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        publish(pair_table(base, ["wide.png"]))
        body = picture(1, (1500, 300))
        web.file("/wide.png", body)
        paired(tmp_path, settings, variant="published", cache=tmp_path / "cache")
        found = items(tmp_path / "Mars-VL-Pairs")["k0"]
        with Image.open(io.BytesIO(found.data)) as image:
            assert (image.size, image.format) == ((512, 512), "JPEG")
        paired(tmp_path / "whole", settings, cache=tmp_path / "cache")
        assert items(tmp_path / "whole/Mars-VL-Pairs")["k0"].data == body
        assert web.asked["/wide.png"] == 1, "the cache serves both variants"
        with pytest.raises(UsageError, match="holds variant published, not whole"):
            paired(tmp_path, settings)

    def test_the_frozen_variant_is_one_file_from_the_hub(
        self, publish: Publish, tmp_path: Path, settings: FetchSettings
    ) -> None:
        body = parquet(
            key=["0007"],
            image=[{"bytes": picture(1), "path": "0007.jpg"}],
            ori_caption=["o"],
            refined_caption=["r"],
        )
        publish(Hub("Cerru02/Mars-VL-Pairs-MTEB", SHA, {"data/test-0.parquet": body}))
        report = download("paired", tmp_path, variant="frozen", revision=SHA)
        assert report.counts == {"rows": 1}
        assert items(tmp_path / "Mars-VL-Pairs")["0007"].caption == "r"

    def test_keys_that_are_no_file_names_become_row_numbers(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        publish(pair_table(base, ["a.jpg", "b.jpg"], keys=["../x", "y.z"]))
        web.file("/a.jpg", picture(1))
        web.file("/b.jpg", picture(2))
        paired(tmp_path, settings)
        folder = tmp_path / "Mars-VL-Pairs"
        assert list(items(folder)) == ["000000", "000001"]
        rows = list(csv.DictReader((folder / "pairs.csv").open()))
        assert [(row["id"], row["key"]) for row in rows] == [("000000", "../x"), ("000001", "y.z")]

    def test_a_table_without_its_columns(self, publish: Publish, tmp_path: Path) -> None:
        publish(Hub("SUSTech/Mars-VL-Pairs", SHA, {"a.parquet": parquet(key=["1"], url=["u"])}))
        with pytest.raises(TableError, match="no column 'image_url'"):
            download("paired", tmp_path, revision=SHA)
        publish(Hub("SUSTech/Mars-VL-Pairs", "f" * 40, {"README.md": b"moved"}))
        with pytest.raises(DataError, match="no Parquet table"):
            download("paired", tmp_path, revision="f" * 40)

    def test_no_image_at_all(
        self, publish: Publish, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        publish(pair_table(base, ["a.jpg", "b.jpg"]))
        with pytest.raises(DataError, match="not one of 2 images can be had"):
            paired(tmp_path, settings)

    def test_a_killed_download_goes_on(
        self, publish: Publish, web: Web, base: str, settings: FetchSettings, tmp_path: Path
    ) -> None:
        names = [f"{number}.jpg" for number in range(30)]
        publish(pair_table(base, names))

        def slow(handler: Handler) -> None:
            time.sleep(0.05)
            handler.send(200, picture(int(handler.path[1:-4])))

        web.routes = {f"/{name}": slow for name in names}
        script = (
            "import sys, pathlib\n"
            "from marsretrieval.datasets.download import FetchSettings, download\n"
            "settings = FetchSettings(workers=2, allowed_addresses=frozenset({'127.0.0.1'}))\n"
            "download('paired', pathlib.Path(sys.argv[1]), revision=sys.argv[2],"
            " settings=settings)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), SHA])
        deadline = time.monotonic() + 30
        while sum(web.asked.values()) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(list(tmp_path.rglob("*.image")))
        assert 1 <= kept < 30
        first = web.asked.copy()
        web.asked.clear()
        report = paired(tmp_path, settings)
        assert report["missing"] == []
        assert sum(web.asked.values()) <= 30 - kept + 1
        assert sum(first.values()) >= kept
        assert len(items(tmp_path / "Mars-VL-Pairs")) == 30


class TestPublishedCrop:
    def test_the_middle_is_kept_and_small_ones_grow(self) -> None:
        ramp = np.tile(np.linspace(0, 255, 3000, dtype=np.uint8), (1000, 1))
        buffer = io.BytesIO()
        Image.fromarray(ramp).save(buffer, "PNG")
        with Image.open(io.BytesIO(published_crop(buffer.getvalue()))) as image:
            assert image.mode == "L"
            values = np.asarray(image).astype(int)
        assert values.shape == (512, 512)
        assert abs(values[:, 0].mean() - 255 / 3) < 2
        assert abs(values[:, -1].mean() - 255 * 2 / 3) < 2
        with Image.open(io.BytesIO(published_crop(picture(1, (72, 40))))) as image:
            assert image.size == (512, 512)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK", "1"])
    def test_every_mode(self, mode: str) -> None:
        format = "TIFF" if mode == "CMYK" else "PNG"
        buffer = io.BytesIO()
        if mode == "I;16":
            Image.fromarray(np.full((600, 600), 40_000, np.uint16)).save(buffer, format)
        else:
            Image.new("RGB", (600, 600), (10, 20, 30)).convert(mode).save(buffer, format)
        with Image.open(io.BytesIO(published_crop(buffer.getvalue()))) as image:
            assert image.size == (512, 512)

    def test_transparency_is_laid_over_white(self) -> None:
        buffer = io.BytesIO()
        Image.new("RGBA", (600, 600), (0, 0, 0, 0)).save(buffer, "PNG")
        with Image.open(io.BytesIO(published_crop(buffer.getvalue()))) as image:
            assert image.getpixel((256, 256)) == (255, 255, 255)


def test_names() -> None:
    assert find_source("paired-image-text").variant == "whole"
    assert find_source("Mars-VL-Pairs", "frozen").repository == "Cerru02/Mars-VL-Pairs-MTEB"
    with pytest.raises(UnknownNameError, match="Did you mean paired"):
        find_source("pared")
    with pytest.raises(UsageError, match="whole, published, frozen"):
        find_source("paired", "best")
    with pytest.raises(UsageError, match="has no variants"):
        find_source("landform", "whole")


def test_every_pinned_revision_is_a_commit() -> None:
    for name, variant in (("paired", "whole"), ("paired", "frozen"), ("geolocalization", None)):
        revision = find_source(name, variant).revision
        assert revision is not None
        assert len(bytes.fromhex(revision)) == 20
    assert json.dumps(find_source("landform").revision) == "null"
