"""Interrupted builds preserve finished shards and can be completed."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.datasets import open_images
from marsretrieval.embeddings import build_store, open_store, plan
from marsretrieval.embeddings.manifest import Entry
from marsretrieval.embeddings.shards import Item, write_shard
from marsretrieval.errors import DataError, OutputError, StoreError, StoreMismatchError
from marsretrieval.io import locked
from tests.embeddings.processes import assert_equal_stores, wait_for
from tests.fakes import FakeEncoder, FakeSource, png_bytes

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (6,) * 12

BUILD = """
import os, sys, time
from pathlib import Path
from marsretrieval.embeddings import build_store
from tests.fakes import FakeEncoder, FakeSource

class Stalling(FakeEncoder):
    def encode_preprocessed(self, features):
        if len(self.calls) == int(sys.argv[3]):
            Path(sys.argv[1], f".waits-{os.getpid()}").touch()
            while not Path(sys.argv[1], ".go").exists():
                time.sleep(0.01)
        return super().encode_preprocessed(features)

build_store(
    Stalling(), FakeSource(counts=(6,) * 12), Path(sys.argv[1]), batch_size=4,
    part=tuple(map(int, sys.argv[2].split("/"))),
)
"""


def start(store: Path, *, part: str = "1/1", batches: int = -1) -> subprocess.Popen[str]:
    """Start a build process whose model waits for a file .go after some batches (two per shard)."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(store), part, str(batches)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def complete_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    build_store(FakeEncoder(), FakeSource(counts=COUNTS), path)
    return path


class Blending(FakeEncoder):
    """Like real models, its last bits of a vector depend on the batch."""

    def encode_preprocessed(self, features: Any) -> Any:
        rows = super().encode_preprocessed(features)
        rows += 0.1 * rows.mean(axis=0)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_earlier_work_does_not_change_a_shard(tmp_path: Path) -> None:
    source = FakeSource(counts=(5, 3, 0, 9, 4))
    complete_store, parts = tmp_path / "whole", tmp_path / "parts"
    build_store(Blending(), source, complete_store, batch_size=4)
    for part in ((2, 3), (3, 3), None):
        build_store(Blending(), source, parts, batch_size=4, part=part)
    assert_equal_stores(parts, complete_store)
    build_store(Blending(), source, tmp_path / "other", batch_size=3)
    with pytest.raises(AssertionError):
        assert_equal_stores(tmp_path / "other", complete_store)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_build_is_resumed(tmp_path: Path, complete_store: Path, how: int) -> None:
    process = start(tmp_path, batches=9)
    wait_for(process, tmp_path, "shards/*.json", 4)
    process.send_signal(how)
    (tmp_path / ".go").touch()
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "KeyboardInterrupt" in error
    half = open_store(tmp_path)
    assert not half.complete and half.rows == 24
    assert [text for text in half.verify() if "not embedded yet" not in text] == []
    encoder = FakeEncoder()
    report = build_store(encoder, FakeSource(counts=COUNTS), tmp_path)
    assert (report.reused, report.embedded) == (24, 48)
    assert sum(encoder.calls) == 48
    assert open_store(tmp_path).complete and open_store(tmp_path).verify() == []
    assert_equal_stores(tmp_path, complete_store)


def test_several_processes_build_one_store_and_one_is_killed(
    tmp_path: Path, complete_store: Path
) -> None:
    batches = (-1, 3, -1)
    processes = [start(tmp_path, part=f"{n + 1}/3", batches=batches[n]) for n in range(3)]
    wait_for(processes[1], tmp_path, "shards/000001.json")
    processes[1].kill()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL, 0]
    assert open_store(tmp_path).missing == ["000004", "000007", "000010"]
    again = start(tmp_path, part="2/3")
    again.communicate(timeout=60)
    assert again.returncode == 0 and open_store(tmp_path).complete
    assert_equal_stores(tmp_path, complete_store)


def test_two_processes_embed_the_same_shards(tmp_path: Path, complete_store: Path) -> None:
    processes = [start(tmp_path, batches=1) for _ in range(2)]
    for process in processes:  # both have begun the first shard before either ends it
        wait_for(process, tmp_path, f".waits-{process.pid}")
    (tmp_path / ".go").touch()
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    store = open_store(tmp_path)
    assert store.complete and store.verify() == []
    assert list((tmp_path / "shards").glob(".*")) == []
    assert_equal_stores(tmp_path, complete_store)


def test_shards_of_another_process_are_not_embedded_again(tmp_path: Path) -> None:
    class Meanwhile(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            if shard.name == "000000":  # the other one is quick and does everything
                build_store(FakeEncoder(), FakeSource(), tmp_path)
            return super().read(shard, images=images)

    source, encoder = Meanwhile(), FakeEncoder()
    report = build_store(encoder, source, tmp_path)
    assert source.reads == ["000000"] and sum(encoder.calls) == 5
    assert (report.rows, report.reused) == (12, 7)
    assert open_store(tmp_path).verify() == []


def test_first_finished_copy_of_a_shard_is_used(tmp_path: Path) -> None:
    build_store(FakeEncoder(), FakeSource(), tmp_path)
    (first, *_) = open_store(tmp_path).entries
    before = (tmp_path / "shards" / "000000.arrow").read_bytes()
    other = np.zeros((5, 32), np.float16)
    items = [Item(f"x{number}", "", b"0" * 16) for number in range(5)]
    late = Entry(shard="000000", fingerprint=first.fingerprint, made_by=first.made_by)
    assert write_shard(tmp_path, late, items, other, "float16") == first
    assert (tmp_path / "shards" / "000000.arrow").read_bytes() == before
    assert list((tmp_path / "shards").glob(".*")) == []


def test_another_process_creates_the_folder_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path) -> Any:
        monkeypatch.undo()
        build_store(FakeEncoder(), FakeSource(), tmp_path, part=(1, 3))
        return locked(path)

    monkeypatch.setattr(plan, "locked", late)
    with pytest.raises(StoreMismatchError, match="id: fake-0 in the store, fake-1 now"):
        build_store(FakeEncoder(seed=1), FakeSource(), tmp_path)
    assert open_store(tmp_path).encoder["id"] == "fake-0" and open_store(tmp_path).rows == 5
    # Where it makes the same store, what it has finished stays.
    shutil.rmtree(tmp_path)
    monkeypatch.setattr(plan, "locked", late)
    encoder = FakeEncoder()
    assert build_store(encoder, FakeSource(), tmp_path).rows == 12 and sum(encoder.calls) == 7


def test_a_store_that_is_replaced_or_removed_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    class Meanwhile(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            if shard.name == "000000":
                self.done()
            return super().read(shard, images=images)

        def done(self) -> None:
            build_store(FakeEncoder(seed=1), FakeSource(), tmp_path / "store", force=True)

    class Removed(Meanwhile):
        def done(self) -> None:
            shutil.rmtree(tmp_path / "store")

    with pytest.raises(StoreMismatchError, match="replaced by another store"):
        build_store(FakeEncoder(), Meanwhile(), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert store.encoder["id"] == "fake-1" and store.complete and store.verify() == []
    with pytest.raises(StoreError, match="store: no embedding store"):
        build_store(FakeEncoder(), Removed(), tmp_path / "store", force=True)


def test_kill_between_vectors_and_entry_leaves_the_shard_incomplete(
    tmp_path: Path, complete_store: Path
) -> None:
    build_store(FakeEncoder(), FakeSource(counts=COUNTS), tmp_path)
    (tmp_path / "shards" / "000003.json").unlink()
    assert open_store(tmp_path).missing == ["000003"]
    report = build_store(FakeEncoder(), FakeSource(counts=COUNTS), tmp_path)
    assert report.embedded == 6
    assert_equal_stores(tmp_path, complete_store)


def test_old_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    build_store(FakeEncoder(), FakeSource(), tmp_path)
    old, young = (tmp_path / "shards" / f".000001.arrow.{name}.tmp" for name in ("a", "b"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    build_store(FakeEncoder(), FakeSource(), tmp_path)
    assert not old.exists() and young.exists()


def test_full_disk_is_reported_and_finished_shards_remain(tmp_path: Path) -> None:
    # A limit on the size of a file stands in for a disk that is full: both fail in write().
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from marsretrieval.embeddings import build_store\n"
        "from marsretrieval.errors import OutputError\n"
        "from tests.fakes import FakeEncoder, FakeSource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try:\n"
        "    build_store(FakeEncoder(), FakeSource(counts=(4, 4, 400, 4)), Path(sys.argv[1]),\n"
        "                batch_size=8)\n"
        "except OutputError as error:\n"
        "    print(error); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    assert "000002.arrow: cannot be written" in done.stdout
    store = open_store(tmp_path)
    assert [entry.shard for entry in store.entries][:2] == ["000000", "000001"]
    assert "000002" in store.missing
    assert list((tmp_path / "shards").glob("*.tmp")) == []
    assert build_store(FakeEncoder(), FakeSource(counts=(4, 4, 400, 4)), tmp_path).rows == 412


def test_open_reader_survives_a_rebuild_of_the_store(tmp_path: Path) -> None:
    build_store(FakeEncoder(), FakeSource(), tmp_path)
    store = open_store(tmp_path)
    blocks = list(store.blocks())
    before = [block.vectors.copy() for block in blocks]
    build_store(FakeEncoder(), FakeSource(versions={"000000": 1}), tmp_path)
    for block, vectors in zip(blocks, before, strict=True):
        np.testing.assert_array_equal(block.vectors, vectors)


def test_store_that_becomes_read_only_stops_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FakeSource(counts=COUNTS)
    real = os.open

    def refuse(path: Any, flags: int, *options: Any, **more: Any) -> int:
        if Path(path).name.startswith(".000004") and flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *options, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=r"000004\.arrow: cannot be written \(Read-only"):
        build_store(FakeEncoder(), source, tmp_path)
    monkeypatch.undo()
    partial = open_store(tmp_path)
    assert [entry.shard for entry in partial.entries][:4] == [f"{n:06d}" for n in range(4)]
    assert build_store(FakeEncoder(), source, tmp_path).reused == partial.rows


def test_files_that_vanish_while_they_are_embedded_are_named(tmp_path: Path) -> None:
    images = tmp_path / "tiles"
    images.mkdir()
    for number in range(12):
        with tarfile.open(images / f"{number:06d}.tar", "w") as tar:
            for row in range(8):
                data = png_bytes(8 * number + row)
                info = tarfile.TarInfo(f"tile-{number}-{row}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    source = open_images(images)

    class Vanishing(FakeEncoder):
        def encode_preprocessed(self, features: Any) -> Any:
            (images / "000011.tar").unlink(missing_ok=True)
            return super().encode_preprocessed(features)

    with pytest.raises(DataError, match=r"1 of 12 .*000011: changed or removed"):
        build_store(Vanishing(delay=0.01), source, tmp_path / "store", batch_size=4, workers=1)
    store = open_store(tmp_path / "store")
    assert store.rows == 88 and store.missing == ["000011"] and len(store.verify()) == 1
    with pytest.raises(StoreMismatchError, match="000011"):
        build_store(FakeEncoder(), open_images(images), tmp_path / "store")


def test_read_errors_of_images_are_reported_per_shard(tmp_path: Path) -> None:
    class Failing(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            if shard.name == "000001":
                raise OSError(errno.EIO, "Input/output error")
            return super().read(shard, images=images)

    with pytest.raises(DataError, match=r"1 of 3 shards .*000001.*Input/output error"):
        build_store(FakeEncoder(), Failing(), tmp_path)
    assert open_store(tmp_path).missing == ["000001"]
