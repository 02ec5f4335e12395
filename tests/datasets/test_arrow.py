"""Datasets written by Hugging Face's save_to_disk."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from marsretrieval.datasets import Record, arrow, open_images, read_annotations
from marsretrieval.errors import DataError, DatasetNotFoundError, TableError
from tests.datasets.layouts import images, read_all
from tests.fakes import png_bytes


def save(folder: Path, count: int, *, column: str = "image", batch: int = 3) -> Path:
    """Write the files of datasets 3: state.json, dataset_info.json, data-*.arrow."""
    folder.mkdir(parents=True)
    features = {"label": {"_type": "ClassLabel", "names": ["crater", "dune"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({column: images(count), "label": [n % 3 - 1 for n in range(count)]})
    table = table.replace_schema_metadata(metadata)
    path = folder / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
    (folder / "dataset_info.json").write_text("{}")
    return path


def test_a_saved_dataset_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "set", 10)
    monkeypatch.setattr(arrow, "_PER_SHARD", 4)
    source = open_images(tmp_path / "set")
    assert source.kind == "arrow"
    assert [shard.rows for shard in source.shards()] == [4, 4, 2]
    records = read_all(source)
    assert [record.id for record in records] == [str(number) for number in range(10)]
    assert [record.data for record in records] == [png_bytes(number) for number in range(10)]
    assert [record.label for record in records[:4]] == [None, "crater", "dune", None]
    annotations, skipped = read_annotations(source)
    assert [record.label for record in annotations] == [record.label for record in records]
    assert {record.data for record in annotations} == {b""} and not skipped
    assert len({shard.fingerprint for shard in source.shards()}) == 3


def test_a_saved_dataset_of_several_splits_is_read(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("test", 2)):
        save(tmp_path / "set" / name, count)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    records = read_all(open_images(tmp_path / "set"))
    assert [record.id for record in records] == ["0", "1", "2", "3", "4"]
    assert all(isinstance(record, Record) for record in records)


def test_damaged_and_unknown_streams_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "set", 10)
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow(.|\n)*to_parquet"):
        open_images(tmp_path / "set").shards()
    save(tmp_path / "other", 2, column="picture")
    with pytest.raises(TableError, match="no column 'image'"):
        read_all(open_images(tmp_path / "other"))
    (tmp_path / "other" / "state.json").unlink()
    with pytest.raises(DatasetNotFoundError, match="to_parquet"):
        open_images(tmp_path / "other")
