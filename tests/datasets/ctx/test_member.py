"""Zips read as a stream: complete, damaged, and compressed with other methods."""

from __future__ import annotations

import builtins
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.datasets.ctx import quad
from marsretrieval.datasets.ctx.quad import ZipStream, geotiff_in
from marsretrieval.errors import DataError

DATA = np.random.default_rng(0).integers(0, 30, 300_000, dtype=np.uint8).tobytes()


def make(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make(tmp_path / "a.zip", {"a/b.tif": DATA, "a/ReadMe.txt": b"x"})


def read(path: Path, spans: list[tuple[int, int]]) -> list[bytes]:
    with ZipStream(path, geotiff_in(path)) as member:
        entries = []
        for start, end in spans:
            out = bytearray(end - start)
            member.read_at(start, memoryview(out))
            entries.append(bytes(out))
        member.finish()
    return entries


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_ranges_are_read_sequentially(
    tmp_path: Path, method: int, library: str, monkeypatch
) -> None:
    if library == "zlib":
        real = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name.startswith("isal"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(quad, "_CHUNK", 1000)
    monkeypatch.setattr(quad, "_INFLATED", 1500)
    path = make(tmp_path / "a.zip", {"b.TIF": DATA}, method)
    spans = [(0, 10), (10, 5000), (70_000, 70_001), (299_990, 300_000)]
    assert read(path, spans) == [DATA[start:end] for start, end in spans]
    assert read(path, []) == []


def test_backward_read_raises(archive: Path) -> None:
    with pytest.raises(ValueError, match="sequentially"):
        read(archive, [(100, 200), (0, 10)])


def test_packed_no_data_is_not_inflated_at_once(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zip", {"a.tif": bytes(50_000_000)})
    with ZipStream(path, geotiff_in(path)) as member:
        member.read_at(0, memoryview(bytearray(10)))
        assert len(member._pending) <= quad._INFLATED
        member.finish()


def test_flipped_bit_is_detected(archive: Path) -> None:
    content = archive.read_bytes()
    for offset in (60, 1000, 20_000, 80_000):
        archive.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        with pytest.raises(DataError, match="damaged") as caught:
            read(archive, [])
        assert "fetch it again" in str(caught.value)


@pytest.mark.parametrize("length", [0, 10, 40, 5000, -1, -30])
def test_truncated_zip_is_refused(archive: Path, length: int) -> None:
    archive.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(DataError, match="damaged or incomplete zip"):
        geotiff_in(archive)


def test_wrong_zip_directory_entries_are_detected(archive: Path) -> None:
    info = geotiff_in(archive)
    for name, value in (
        ("CRC", info.CRC ^ 1),
        ("file_size", info.file_size + 1),
        ("file_size", info.file_size - 1),
        ("compress_size", info.compress_size - 1000),
        ("header_offset", 7),
    ):
        wrong = geotiff_in(archive)
        setattr(wrong, name, value)
        with pytest.raises(DataError, match="damaged"), ZipStream(archive, wrong) as member:
            member.finish()


def test_exactly_one_geotiff_is_expected(tmp_path: Path) -> None:
    hidden = {"__MACOSX/._a.tif": b"x", "a.tif": DATA}
    assert geotiff_in(make(tmp_path / "a.zip", hidden)).filename == "a.tif"
    for members in ({"a.txt": b""}, {"a.tif": b"", "b.tiff": b""}):
        with pytest.raises(DataError, match="GeoTIFFs in this zip"):
            geotiff_in(make(tmp_path / "a.zip", members))


def test_a_method_that_cannot_be_streamed_is_named(archive: Path) -> None:
    """Some programs pack files over 2 GB by method 9, Deflate64."""
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        struct.pack_into("<H", data, data.index(mark) + offset, 9)
    archive.write_bytes(data)
    with pytest.raises(DataError, match="unsupported compression method"):
        geotiff_in(archive)
