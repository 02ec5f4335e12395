"""Read errors of a disk are reported as such and never recorded as damage."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.datasets import Skipped, WebDatasetSource, open_images
from marsretrieval.datasets.listing import SourceFile, is_io_failure
from marsretrieval.datasets.verify import verify
from marsretrieval.embeddings import build_store, open_store
from marsretrieval.errors import DataError
from tests.datasets.layouts import images, read_all, write_parquet, write_tar
from tests.fakes import FakeEncoder, png_bytes


def fail(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def bad_sector(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """File names whose bytes from 8,000 on temporarily cannot be read."""
    names: set[str] = set()
    real = SourceFile.__init__

    class Failing(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            return fail() if self.tell() >= 8_000 else super().read(size)

    def opened(self: SourceFile, path: Path) -> None:
        real(self, path)
        if path.name in names:
            self._file.close()
            self._file = Failing(io.FileIO(path))

    monkeypatch.setattr(SourceFile, "__init__", opened)
    yield names


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    for tar in range(3):
        members = [(f"{tar}-{row}.png", png_bytes(8 * tar + row)) for row in range(8)]
        write_tar(folder / f"{tar:05d}.tar", members)
    return folder


def test_build_stops_naming_the_file_and_resumes_next_time(
    tiles: Path, bad_sector: set[str], tmp_path: Path
) -> None:
    bad_sector.add("00001.tar")
    store = tmp_path / "store"
    with pytest.raises(
        DataError, match=r"1 of 3 shards .*00001.tar: cannot be read \(Input/output error\)"
    ) as caught:
        build_store(FakeEncoder(), open_images(tiles), store, batch_size=4)
    assert "run again" in str(caught.value)
    partial = open_store(store)
    assert (partial.rows, partial.missing, partial.skipped) == (16, ["00001"], [])
    bad_sector.clear()
    report = build_store(FakeEncoder(), open_images(tiles), store, batch_size=4)
    assert (report.rows, report.reused) == (24, 16)
    assert open_store(store).skipped == []


def test_command_reports_it_with_exit_code_1_without_traceback(
    tiles: Path, bad_sector: set[str], tmp_path: Path
) -> None:
    bad_sector.add("00001.tar")
    arguments = ["embed", "-m", "tests.fakes:FakeEncoder", "--images", str(tiles),
                 "--store", str(tmp_path / "store")]  # fmt: skip
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 1
    assert "00001.tar: cannot be read (Input/output error)" in done.stderr
    bad_sector.clear()
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert open_store(tmp_path / "store").rows == 24


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_packed_tars_too(mode: str, bad_sector: set[str], tmp_path: Path) -> None:
    members = [(f"{row}.png", png_bytes(row)) for row in range(20)]
    members.insert(1, ("0.mask", np.random.default_rng(0).bytes(20_000)))
    path = write_tar(tmp_path / "a.tar", members, mode)
    source = WebDatasetSource("a", (path,))
    assert [item.id for item in read_all(source)] == [str(row) for row in range(20)]
    bad_sector.add("a.tar")
    with pytest.raises(DataError, match=r"a\.tar: cannot be read") as caught:
        read_all(source)
    assert "same command again" in str(caught.value)


def test_verify_reports_it_and_exits_with_an_error(tiles: Path, bad_sector: set[str]) -> None:
    bad_sector.add("00002.tar")
    inventory = verify(tiles, workers=1)
    assert not inventory.ok()
    (problem,) = [item for item in inventory.datasets[0].problems if item.severity == "error"
                  and item.kind == "unreadable-image"]  # fmt: skip
    assert "00002.tar: cannot be read (Input/output error)" in problem.examples[0]


def test_images_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(1))
    (tmp_path / "a.json").write_text(json.dumps({"caption": "x"}))
    source = open_images(tmp_path)
    real = Path.read_bytes
    for name in ("a.png", "a.json"):
        monkeypatch.setattr(
            Path, "read_bytes", lambda p, n=name: fail() if p.name == n else real(p)
        )
        with pytest.raises(DataError, match=rf"{name[:2]}.*cannot be read \(Input/output error\)"):
            read_all(source)
    monkeypatch.setattr(Path, "read_bytes", real)
    assert len(read_all(source)) == 1


def test_parquet_and_its_image_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": images(3)})
    source = open_images(tmp_path)
    shards = source.shards()
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read \(Input/output error\)"):
        list(source.read(shards[0]))
    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read \(Input/output error\)"):
        list(source.read(shards[0]))
    monkeypatch.undo()
    (tmp_path / "b.png").write_bytes(png_bytes(1))
    paths = write_parquet(tmp_path / "by path/b.parquet", {"image": ["b.png"]})
    (paths.parent / "b.png").write_bytes(png_bytes(1))
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"b\.png: cannot be read"):
        read_all(open_images(paths))


def test_read_errors_that_are_not_damage() -> None:
    assert is_io_failure(OSError(errno.EIO, "x"))
    assert is_io_failure(OSError(errno.ESTALE, "x"))
    assert is_io_failure(OSError(errno.EMFILE, "x"))
    for lasting in (FileNotFoundError(errno.ENOENT, "x"), OSError("Invalid data stream"),
                    PermissionError(errno.EACCES, "x"), ValueError("x")):  # fmt: skip
        assert not is_io_failure(lasting)


def header(kind: bytes, size: int) -> bytes:
    """Build a tar header with a valid checksum and an impossible size."""
    data = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    data[124:136] = b"\x80" + size.to_bytes(11, "big")
    data[148:156], data[156:157] = b" " * 8, kind
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"X"])
@pytest.mark.parametrize("size", [2**40, 2**62, 2**63, 2**87])
@pytest.mark.parametrize("read", [True, False])
def test_header_with_a_size_beyond_the_file(
    kind: bytes, size: int, read: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header(kind, size) + bytes(5000))
    items = read_all(open_images(path), images=read)
    assert items
    assert all(isinstance(item, Skipped) for item in items[-1:])
