"""Files of a repository that break off, are refused or come damaged; runs that are killed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.datasets._transfer import Patience, ServerError
from marsretrieval.datasets.download import _hub, download
from marsretrieval.errors import DataError, OutputError, UsageError
from tests.datasets.download.repositories import (
    SHA,
    Publish,
    items,
    landform_files,
    landforms,
    parquet,
)
from tests.datasets.download.servers import Hub, picture, serve

NAME = "data/train-0.parquet"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "_PATIENCE", Patience(attempts=2, backoff_s=0.01, timeout_s=5))


@pytest.fixture
def impatient(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a file that breaks off ends the run, as a kill does."""
    monkeypatch.setattr(_hub, "_PATIENCE", Patience(attempts=1))


def large() -> Hub:
    """One file of a megabyte."""
    noise = np.random.default_rng(0).bytes(1_000_000)
    image = [{"bytes": picture(1) + noise, "path": "1.jpg"}]
    files = landform_files() | {NAME: parquet(image=image, label=["yardangs"])}  # type: ignore[arg-type]
    return Hub("SUSTech/Mars-Landforms", SHA, files)


def begun(out: Path) -> Path | None:
    """What is there of the large file; small ones may have been stopped on their way too."""

    def size(part: Path) -> int:
        try:
            return part.stat().st_size
        except FileNotFoundError:  # just become whole
            return -1

    return max((out / "Mars-Landforms/.cache/parts").glob("*.part"), key=size, default=None)


def test_a_file_cut_off_goes_on_where_it_stopped(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms(40))
    hub.cut_after = 10_500
    download("landform", tmp_path)
    assert hub.ranges == [None, "bytes=10500-"]
    assert len(items(tmp_path / "Mars-Landforms")) == 40
    assert not (tmp_path / "Mars-Landforms/.cache/parts").exists()


def test_a_killed_download_goes_on_within_the_file(publish: Publish, tmp_path: Path) -> None:
    hub = publish(large())
    hub.silent_after = 300_000
    command = [
        sys.executable, "-m", "marsretrieval", "data", "download", "landform", "--out", tmp_path,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        part = begun(tmp_path)
        if part is not None and part.stat().st_size == 300_000:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.over.set()
    assert part is not None
    assert part.stat().st_size == 300_000
    assert not (tmp_path / "Mars-Landforms" / NAME).exists()
    hub.silent_after, hub.ranges = None, []
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hub.ranges == ["bytes=300000-"]
    assert (tmp_path / "Mars-Landforms" / NAME).read_bytes() == hub.files[NAME]
    assert begun(tmp_path) is None


def test_what_is_left_of_a_file_serves_another_revision_too(
    publish: Publish, tmp_path: Path, impatient: None
) -> None:
    hub = publish(large())
    hub.cut_after = 300_000
    with pytest.raises(ServerError, match=r"300,000 of"):
        download("landform", tmp_path)
    moved = large()
    moved.revision = "f" * 40
    publish(moved)
    download("landform", tmp_path, revision="f" * 40)
    assert moved.ranges == ["bytes=300000-"]
    assert (tmp_path / "Mars-Landforms" / NAME).read_bytes() == hub.files[NAME]


def test_a_part_damaged_meanwhile_is_noticed_and_fetched_anew(
    publish: Publish, tmp_path: Path, impatient: None
) -> None:
    hub = publish(large())
    hub.cut_after = 300_000
    with pytest.raises(ServerError, match=r"300,000 of"):
        download("landform", tmp_path)
    part = begun(tmp_path)
    assert part is not None
    part.write_bytes(bytes(300_000))
    hub.ranges.clear()
    download("landform", tmp_path)
    assert hub.ranges == ["bytes=300000-", None]
    assert (tmp_path / "Mars-Landforms" / NAME).read_bytes() == hub.files[NAME]


@pytest.mark.parametrize("name", [NAME, "README.md"])
def test_a_file_with_another_hash_is_refused(publish: Publish, tmp_path: Path, name: str) -> None:
    """Large files by their SHA-256, small ones by the hash that Git has of them."""
    hub = publish(landforms())
    hub.served[name] = hub.files[name][:-1] + b"?"
    with pytest.raises(DataError, match=rf"{name}: what came has not the hash"):
        download("landform", tmp_path)
    assert not (tmp_path / "Mars-Landforms" / name).exists()
    hub.served.clear()
    download("landform", tmp_path)
    assert (tmp_path / "Mars-Landforms" / name).read_bytes() == hub.files[name]


def test_the_token_goes_to_the_hub_alone_and_is_never_written_or_told(
    publish: Publish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    hub = publish(landforms())
    with serve(hub) as cdn:
        hub.cdn = cdn
        download("landform", tmp_path)
    assert hub.tokens == {"Bearer hf_verysecret"}, "also where a small file is redirected"
    assert hub.cdn_tokens == {None}
    assert "verysecret" not in caplog.text
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"verysecret" not in path.read_bytes()


def test_a_file_behind_a_redirect_goes_on_too(publish: Publish, tmp_path: Path) -> None:
    hub = publish(large())
    with serve(hub) as cdn:
        hub.cdn, hub.cut_after = cdn, 300_000
        download("landform", tmp_path)
    assert hub.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize(("status", "said"), [(403, "HF_TOKEN"), (401, "terms"), (404, "--revis")])
def test_a_file_that_is_refused(publish: Publish, tmp_path: Path, status: int, said: str) -> None:
    hub = publish(landforms())
    hub.statuses[NAME] = status
    with pytest.raises(DataError, match=f"the server answers {status}") as caught:
        download("landform", tmp_path)
    assert said in str(caught.value)


def test_two_runs_do_not_write_to_the_same_parts(publish: Publish, tmp_path: Path) -> None:
    import fcntl

    publish(landforms())
    folder = tmp_path / "Mars-Landforms/.cache/parts"
    folder.mkdir(parents=True)
    place = os.open(folder, os.O_RDONLY)
    fcntl.flock(place, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another run fetches"):
        download("landform", tmp_path)
    os.close(place)
    download("landform", tmp_path)


def test_what_is_there_needs_no_room(
    publish: Publish, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = publish(large())
    hub.cut_after = 900_000
    with pytest.raises(ServerError):
        download("landform", tmp_path)
    usage = shutil.disk_usage(tmp_path)
    spare = 64 * 2**20
    for free, fits in ((spare + 50_000, False), (spare + 150_000, True)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda place, free=free: usage._replace(free=free)
        )
        if fits:
            download("landform", tmp_path)
        else:
            with pytest.raises(OutputError, match="are needed there"):
                download("landform", tmp_path)


def test_equal_files_do_not_grow_into_one(publish: Publish, tmp_path: Path) -> None:
    hub = landforms()
    copies = {f"data/train-{number}.parquet": hub.files[NAME] for number in range(8)}
    hub.files |= copies | {"a.csv": b"lon,lat\n", "b.csv": b"lon,lat\n"}
    publish(hub)
    download("landform", tmp_path)
    for name in (*copies, "a.csv", "b.csv"):
        assert (tmp_path / "Mars-Landforms" / name).read_bytes() == hub.files[name]


@pytest.mark.parametrize("name", ["../outside.parquet", "/tmp/outside.parquet", "a/../../b.csv"])
def test_a_listing_cannot_reach_out_of_the_folder(
    publish: Publish, tmp_path: Path, name: str
) -> None:
    hub = landforms()
    hub.files[name] = b"x"
    publish(hub)
    with pytest.raises(DataError, match="not the name of a file below"):
        download("landform", tmp_path)
    assert list(tmp_path.iterdir()) == []
