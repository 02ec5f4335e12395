"""Damaged tars: readable items are read, the others are named."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.datasets import (
    Record,
    Skipped,
    WebDatasetSource,
    open_images,
    read_annotations,
    webdataset,
)
from tests.datasets.layouts import problem_of, read_all, write_tar
from tests.fakes import png_bytes

KEYS = "abcd"
MEMBERS = [
    member
    for key in KEYS
    for member in (
        (f"{key}.png", png_bytes(ord(key))),
        (f"{key}.json", json.dumps({"refined_caption": f"caption {key}"}).encode()),
    )
]
WHOLE = {key: (png_bytes(ord(key)), f"caption {key}") for key in KEYS}


def tar_bytes(mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PLAIN, PACKED = tar_bytes(), tar_bytes("w:gz")


def read_bytes(path: Path, data: bytes, *, images: bool = True) -> list[Record | Skipped]:
    path.write_bytes(data)
    return read_all(WebDatasetSource(str(path), (path,)), images=images)


def check(items: list[Record | Skipped]) -> None:
    """Check that records are complete and in order, and that missing ones are reported."""
    records = [item for item in items if isinstance(item, Record)]
    assert [record.id for record in records] == list(KEYS[: len(records)])
    for record in records[:-1]:
        assert (record.data, record.caption) == WHOLE[record.id]
    for record in records[-1:]:
        assert record.data == WHOLE[record.id][0]
        assert record.caption in (None, WHOLE[record.id][1])
    if len(records) < 4 or records[-1].caption is None:
        assert isinstance(items[-1], Skipped)
        assert items[-1].source.endswith(("cut.tar", "cut.tar.gz"))
        assert "tar" in items[-1].reason


def test_tar_truncated_anywhere_yields_the_complete_items(tmp_path: Path) -> None:
    end = PLAIN.rindex(b"caption d") + 600
    for keep in sorted({*range(0, end, 512), *range(0, end, 277)}):
        items = read_bytes(tmp_path / "cut.tar", PLAIN[:keep])
        check(items)
        records = read_bytes(tmp_path / "cut.tar", PLAIN[:keep], images=False)
        assert [(type(item), item.id) for item in records] == [
            (type(item), item.id) for item in items
        ]


def test_truncated_compressed_tar_is_named(tmp_path: Path) -> None:
    for keep in range(0, len(PACKED), 97):
        items = read_bytes(tmp_path / "cut.tar.gz", PACKED[:keep])
        check(items)
        assert isinstance(items[-1], Skipped)


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), max_size=4))
def test_reader_survives_any_damage(tmp_path_factory, changes) -> None:
    data, packed = bytearray(PLAIN), bytearray(PACKED)
    for offset, value in changes:
        data[offset] = value
        packed[offset % len(packed)] = value
    folder = tmp_path_factory.getbasetemp()
    for name, content in (("fuzz.tar", data), ("fuzz.tar.gz", packed)):
        items = read_bytes(folder / name, bytes(content))
        assert items or not changes


@pytest.mark.parametrize("key", ["b", "d"])
def test_damaged_header_is_reported(key: str, tmp_path: Path) -> None:
    data = bytearray(PLAIN)
    data[PLAIN.index(f"{key}.png".encode()) + 120] ^= 0xFF
    items = read_bytes(tmp_path / "cut.tar", bytes(data))
    check(items)
    assert "damaged after byte" in items[-1].reason


def test_concatenated_tars_are_named(tmp_path: Path) -> None:
    items = read_bytes(tmp_path / "cut.tar", PLAIN + PLAIN)
    assert len(items) == 5
    assert "two tars are concatenated" in items[-1].reason


def test_compressed_tar_with_plain_name_is_read(tmp_path: Path) -> None:
    assert len(read_bytes(tmp_path / "cut.tar", PACKED)) == 4


def test_empty_tar_has_no_items(tmp_path: Path) -> None:
    assert read_all(open_images(write_tar(tmp_path / "a.tar", []))) == []


def test_links_and_oversized_members_are_named(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("k.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        big = tarfile.TarInfo("big.png")
        big.size = 3000
        tar.addfile(big, io.BytesIO(bytes(3000)))
    monkeypatch.setattr(webdataset, "MAX_BYTES", 2000)
    reason_of = {(item.id, item.reason) for item in read_all(open_images(path))}
    assert ("k", "k.png is a link or device, not a file") in reason_of
    assert ("big", "big.png holds 3,000 bytes, more than 2,000") in reason_of


def test_annotations_apart_from_their_images_are_named(tmp_path: Path) -> None:
    first, second = read_all(
        open_images(write_tar(tmp_path / "a.tar", [MEMBERS[0], MEMBERS[2], MEMBERS[1]]))
    )[0::2]
    assert first.caption is None
    assert "must be consecutive" in second.reason


def test_keys_without_an_image_are_named(tmp_path: Path) -> None:
    (item,) = read_all(open_images(write_tar(tmp_path / "a.tar", [("k.npy", b"x")])))
    assert item.reason == "no image among its members (k.npy)"


def test_other_member_types_are_ignored(tmp_path: Path) -> None:
    members = [("x/k.cls", b"3"), ("x/k.png", png_bytes(1)), ("x/k.seg.png", b"mask")]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert (record.id, record.data) == ("k", png_bytes(1))


def test_one_name_in_two_folders_of_a_tar_is_two_images(tmp_path: Path) -> None:
    members = [("x/k.png", png_bytes(1)), ("y/k.png", png_bytes(2)), ("y/l.png", png_bytes(3))]
    records = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert [(record.id, record.data) for record in records] == [
        ("x/k", png_bytes(1)), ("y/k", png_bytes(2)), ("l", png_bytes(3)),
    ]  # fmt: skip
    assert [record.label for record in records] == ["x", "y", "y"]


def test_duplicate_key_in_one_tar_is_named(tmp_path: Path) -> None:
    members = [("x/k.png", png_bytes(1)), ("l.png", png_bytes(3)), ("x/k.png", png_bytes(2))]
    record, _, again = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert record.id == again.id == "k"
    assert "same key" in again.reason and again.source.endswith("a.tar:x/k.png")


def test_key_in_two_tars_is_prefixed_with_their_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", MEMBERS[:4])
    alone = open_images(tmp_path).shards()[0]
    write_tar(tmp_path / "b.tar", MEMBERS[2:6])
    source = open_images(tmp_path)
    records, skipped = read_annotations(source)
    assert [(record.id, record.caption) for record in records] == [
        ("a", "caption a"), ("a/b", "caption b"), ("b/b", "caption b"), ("c", "caption c"),
    ]  # fmt: skip
    assert {record.data for record in records} == {b""} and not skipped
    first, second = source.shards()
    assert first.fingerprint != alone.fingerprint  # its ids changed: it is embedded again
    copy = pickle.loads(pickle.dumps(open_images(tmp_path)))
    assert [item.id for item in copy.read(second)] == ["b/b", "c"]


def test_reading_a_tar_looks_at_no_other_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marsretrieval.datasets import webdataset

    for number in range(5):
        write_tar(tmp_path / f"{number}.tar", [("x/k.png", png_bytes(number))])
    source = open_images(tmp_path)
    shards = source.shards()
    looked_at: list[Path] = []
    file_fingerprint = webdataset.file_fingerprint
    monkeypatch.setattr(
        webdataset,
        "file_fingerprint",
        lambda path: looked_at.append(path) or file_fingerprint(path),
    )
    for reader in (source, pickle.loads(pickle.dumps(source))):
        assert [item.id for item in reader.read(shards[3])] == ["3/x/k"]
    assert looked_at == [tmp_path / "3.tar"] * 2
    write_tar(tmp_path / "3.tar", [("y/l.png", png_bytes(7))])
    assert [item.id for item in source.read(shards[3])] == ["l"]


def test_ids_without_a_clash_are_unchanged(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("x/k.png", png_bytes(1))])
    alone = open_images(tmp_path).shards()[0]
    write_tar(tmp_path / "b.tar", [("y/l.png", png_bytes(1))])
    source = open_images(tmp_path)
    assert [item.id for item in read_all(source)] == ["k", "l"]
    assert source.shards()[0] == alone


def test_split_folders_in_a_tar_are_not_labels(tmp_path: Path) -> None:
    members = [("train/k.png", png_bytes(1)), ("test/l.png", png_bytes(2))]
    records = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert [(record.id, record.label) for record in records] == [("k", None), ("l", None)]


def test_a_name_with_several_dots_is_explained(tmp_path: Path) -> None:
    members = [("ESP_020245_2190_RED.abrowse.jpg", png_bytes(1))]
    (item,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert (
        "everything after the first dot of a name is the extension, here '.abrowse.jpg'"
        in item.reason
    )


def test_names_that_are_not_utf8_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("cr\xe4ter.png", "good.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png_bytes(1))
            tar.addfile(info, io.BytesIO(png_bytes(1)))
    bad, good = read_all(open_images(path))
    assert isinstance(bad, Skipped) and "not UTF-8" in bad.reason
    assert bad.id == r"cr\xe4ter" and good.id == "good"
    path.rename(tmp_path / os.fsdecode(b"b\xe4.tar"))
    source = open_images(tmp_path)
    assert [shard.name for shard in source.shards()] == ["b%xe4"]
    assert [item.id for item in read_all(source)] == [r"cr\xe4ter", "good"]


def test_a_caption_with_a_lone_surrogate_is_named(tmp_path: Path) -> None:
    members = [("k.png", png_bytes(1)), ("k.json", rb'{"caption": "a \ud800 b"}')]
    (item,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    message = item.reason if isinstance(item, Skipped) else problem_of(item)
    assert message is not None and "surrogates not allowed" in message


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_name_of_megabytes_is_refused_before_it_is_read(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=kind) as tar:
        for name in ("j.png", "k.png", "x" * 3_000_000 + ".png"):
            info = tarfile.TarInfo(name)
            info.size = len(png_bytes(1))
            tar.addfile(info, io.BytesIO(png_bytes(1)))
    first, rest = read_all(open_images(path))
    assert first.id == "j"
    assert "a member's name or attributes have 3,0" in rest.reason


def test_members_with_implausible_compression_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(webdataset, "_SMALL", 10_000)
    monkeypatch.setattr(webdataset, "MAX_ANNOTATION_BYTES", 5_000)
    members = [("k.png", bytes(1_000_000)), ("l.png", png_bytes(1)), ("l.json", bytes(6_000))]
    items = read_all(open_images(write_tar(tmp_path / "a.tar.gz", members, "w:gz")))
    reasons = {item.id: item.reason for item in items if isinstance(item, Skipped)}
    assert "over 200 times as much as its tar" in items[1].reason
    assert reasons["l"] == "l.json holds 6,000 bytes, more than 5,000"


def test_sidecar_files_of_a_tar_are_ignored(tmp_path: Path) -> None:
    members = [(name, b"x") for name in ("Thumbs.db", "desktop.ini", "README.md", "k.jpg.ovr")]
    members += [("k.jfif", png_bytes(1)), ("k.j2w", b"x")]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert record.id == "k"


@pytest.mark.parametrize(
    "fields",
    [
        b"[1]", b'"x"', b"{", b"\xff", b"[" * 100_000,
        b'{"caption": ["two", "of them"]}', b'{"label": {}}',
        b'{"bounds": [-180, -90, 180, 90]}', b'{"bounds": [1, 2, 3]}', b'{"bounds": "1 2 3 4"}',
        b'{"bounds": [null, 0, 1, 1]}', b'{"bounds": [-4, 0, -8, 1]}',
        b'{"bounds": [NaN, 0, 1, 1]}', b'{"bounds": [0, 5, 1, 4]}', b'{"bounds": [3, 0, 3, 1]}',
        b'{"center": [0, 91]}', b'{"center": [361, 0]}', b'{"center": [true, 0]}',
        b'{"center": [1e999, 0]}', b'{"center": [1' + b"0" * 400 + b", 0]}",
    ],
)  # fmt: skip
def test_invalid_annotation_does_not_drop_the_image(fields: bytes, tmp_path: Path) -> None:
    members = [("k.png", png_bytes(1)), ("k.json", fields), ("l.png", png_bytes(2))]
    bad, good = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert isinstance(bad, Record) and bad.data and (bad.lon, bad.lat) == (None, None)
    (warning,) = bad.warnings
    assert (warning.id, warning.source) == ("k", bad.source)
    states_position = b"bounds" in fields or b"center" in fields
    readable = len(fields) < 400  # digits that no number has
    assert warning.kind == ("position" if states_position and readable else "annotation")
    assert isinstance(good, Record) and good.warnings == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bounds": [179.8, 0, -179.8, 0.4]}, (-180.0, 0.2, 0.4, 0.4)),
        ({"bounds": [359.9, 0, 360, 0.2]}, (-0.05, 0.1, 0.1, 0.2)),
        ({"bounds": [-90, -90, 90, 90]}, (0, 0, 180, 180)),
        ({"center": [226.2, 18.6]}, (-133.8, 18.6, None, None)),
    ],
)
def test_positions_are_normalized_to_180(fields, expected, tmp_path: Path) -> None:
    members = [("k.png", png_bytes(1)), ("k.json", json.dumps(fields).encode())]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    position = (record.lon, record.lat, record.width_deg, record.height_deg)
    assert position == pytest.approx(expected, abs=1e-9)


def test_tile_name_outside_the_planet_has_no_position(tmp_path: Path) -> None:
    members = [("E0_0_N89_9.png", png_bytes(1)), ("E_200_0_N0_0.png", png_bytes(2))]
    items = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert {(record.lon, record.width_deg) for record in items} == {(None, None)}
