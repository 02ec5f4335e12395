"""Several sources of images as one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from marsretrieval.datasets import Record, open_sources
from marsretrieval.errors import DatasetNotFoundError, UsageError
from tests.fakes import png_bytes


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for number, name in enumerate(names):
        (path / f"{name}.png").write_bytes(png_bytes(number))
    return path


def ids(source: object) -> list[str]:
    return [item.id for shard in source.shards() for item in source.read(shard)]  # type: ignore[attr-defined]


def test_ids_do_not_clash(tmp_path: Path) -> None:
    first = folder(tmp_path / "a" / "images", "0001", "0002")
    second = folder(tmp_path / "b" / "images", "0001", "E1_2_N0_2")
    third = folder(tmp_path / "south.v2", "0001")
    source = open_sources([first, second, third])
    assert ids(source) == [
        "0001", "0002", "images/0001", "E1_2_N0_2", "south/0001",
    ]  # fmt: skip
    assert source.name == f"{first}, {second}, {third}" and source.kind == "folder"
    assert [shard.name for shard in source.shards()] == [
        "000000", "images+000000", "south+000000",
    ]  # fmt: skip
    again = pickle.loads(pickle.dumps(source))
    assert ids(again) == ids(source)
    items = [item for shard in source.shards() for item in source.read(shard)]
    assert all(isinstance(item, Record) and item.data for item in items)


def test_labels_are_unique(tmp_path: Path) -> None:
    first = folder(tmp_path / "first", "0001")
    folder(first / "x", "0001")
    sources = [folder(tmp_path / name / "x", "0001") for name in ("b", "c")]
    names = ids(open_sources([first, *sources]))
    assert len(set(names)) == len(names) == 4
    assert names[2:] == ["x-2/0001", "x-3/0001"]


def test_single_source_is_returned_unchanged(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "0001")
    assert ids(open_sources([path])) == ["0001"]


def test_invalid_paths(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "0001")
    folder(path / "sub", "0002")
    with pytest.raises(UsageError, match="given twice"):
        open_sources([path, tmp_path / "b" / ".." / "a"])
    with pytest.raises(UsageError, match="inside"):
        open_sources([path, path / "sub"])
    with pytest.raises(UsageError, match="inside"):
        open_sources([path / "sub", path])
    with pytest.raises(DatasetNotFoundError):
        open_sources([path, tmp_path / "gone"])
