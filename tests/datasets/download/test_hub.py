"""Repository files that are truncated, refused or damaged, and killed runs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.datasets.download import download
from marsretrieval.errors import DataError, UsageError
from tests.datasets.download.repositories import (
    SHA,
    Publish,
    landform_files,
    landforms,
    parquet,
)
from tests.datasets.download.servers import Hub, picture, serve

NAME = "data/train-0.parquet"


def large() -> Hub:
    """Create a repository with one file of a megabyte."""
    noise = np.random.default_rng(0).bytes(1_000_000)
    image = [{"bytes": picture(1) + noise, "path": "1.jpg"}]
    files = landform_files() | {NAME: parquet(image=image, label=["yardangs"])}  # type: ignore[arg-type]
    return Hub("SUSTech/Mars-Landforms", SHA, files)


def wait_for(hub: Hub) -> None:
    """Wait until the download of the large file has started."""
    deadline = time.monotonic() + 60
    while not hub.ranges and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hub.ranges


def test_killed_download_resumes_with_the_missing_files(publish: Publish, tmp_path: Path) -> None:
    hub = publish(large())
    hub.silent_after = 300_000
    command = [
        sys.executable, "-m", "marsretrieval", "data", "download", "landform", "--out", tmp_path,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(hub)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.over.set()
    folder = tmp_path / "Mars-Landforms"
    assert not (folder / NAME).exists()
    hub.silent_after = None
    assert download("landform", tmp_path).fetched_bytes >= len(hub.files[NAME])
    assert (folder / NAME).read_bytes() == hub.files[NAME]
    assert not list((folder / ".cache").iterdir()), "what the killed run left"


def test_ctrl_c_stops_running_downloads(publish: Publish, tmp_path: Path) -> None:
    hub = publish(large())
    hub.silent_after = 300_000

    def interrupt() -> None:
        wait_for(hub)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        hub.over.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        download("landform", tmp_path)
    thread.join()
    assert not (tmp_path / "Mars-Landforms" / NAME).exists()


@pytest.mark.parametrize("name", [NAME, "README.md"])
def test_a_file_with_another_checksum_is_refused(
    publish: Publish, tmp_path: Path, name: str
) -> None:
    """Large files are checked by SHA-256, small ones by their Git hash."""
    hub = publish(landforms())
    hub.served[name] = hub.files[name][:-1] + b"?"
    with pytest.raises(DataError, match=rf"checksum mismatch: \S+{name} \(expected [0-9a-f]+, got"):
        download("landform", tmp_path)
    assert not (tmp_path / "Mars-Landforms" / name).exists()
    hub.served.clear()
    download("landform", tmp_path)
    assert (tmp_path / "Mars-Landforms" / name).read_bytes() == hub.files[name]


def test_a_file_of_another_length_is_refused(publish: Publish, tmp_path: Path) -> None:
    hub = publish(landforms())
    hub.served[NAME] = hub.files[NAME] + b"?"
    with pytest.raises(DataError, match=r"checksum mismatch|should be of size"):
        download("landform", tmp_path)
    assert not (tmp_path / "Mars-Landforms" / NAME).exists()


def test_token_is_sent_only_to_the_hub_and_never_stored_or_printed(
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


@pytest.mark.parametrize(("status", "said"), [(403, "HF_TOKEN"), (401, "HF_TOKEN"), (404, "again")])
def test_refused_file(publish: Publish, tmp_path: Path, status: int, said: str) -> None:
    hub = publish(landforms())
    hub.statuses[NAME] = status
    with pytest.raises(DataError) as caught:
        download("landform", tmp_path)
    assert said in str(caught.value)
    assert not (tmp_path / "Mars-Landforms" / NAME).exists()


def test_offline_mode_of_the_hub_is_honoured(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub = publish(landforms())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot be queried") as caught:
        download("landform", tmp_path)
    assert "--offline" in str(caught.value)
    assert not hub.requests


def test_two_runs_do_not_write_to_the_same_folder(publish: Publish, tmp_path: Path) -> None:
    import fcntl

    publish(landforms())
    folder = tmp_path / "Mars-Landforms"
    (folder / ".cache").mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another run is downloading"):
        download("landform", tmp_path)
    os.close(descriptor)
    download("landform", tmp_path)


def test_names_with_special_characters(publish: Publish, tmp_path: Path) -> None:
    hub = landforms()
    names = ("data/a[1]*.csv", "data/b?.csv", "data/ä b.csv")
    hub.files |= {name: f"lon,lat\n{name}".encode() for name in names}
    publish(hub)
    download("landform", tmp_path)
    for name in names:
        assert (tmp_path / "Mars-Landforms" / name).read_bytes() == hub.files[name]


@pytest.mark.parametrize("name", ["../outside.parquet", "/tmp/outside.parquet", "a/../../b.csv"])
def test_listing_cannot_write_outside_the_folder(
    publish: Publish, tmp_path: Path, name: str
) -> None:
    hub = landforms()
    hub.files[name] = b"x"
    publish(hub)
    with pytest.raises(DataError, match="not the name of a file below"):
        download("landform", tmp_path)
    assert list(tmp_path.iterdir()) == []
