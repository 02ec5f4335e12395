"""Tests of files of vectors: layouts that are read, and errors that count and name the rows."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from marsretrieval.datasets.embedding_files import read_embeddings
from marsretrieval.errors import DataError

VECTORS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
FLOATS = pa.list_(pa.float32())

# Writes a file into a folder.
Write = Callable[[Path], Path]


def npz(**arrays: Any) -> Write:
    def write(folder: Path) -> Path:
        np.savez(folder / "e.npz", **arrays)
        return folder / "e.npz"

    return write


def npy(array: np.ndarray) -> Write:
    def write(folder: Path) -> Path:
        with (folder / "e.npz").open("wb") as file:
            np.save(file, array)
        return folder / "e.npz"

    return write


def pickled(folder: Path) -> Path:
    (folder / "e.npz").write_bytes(pickle.dumps({"image": VECTORS.tolist()}))
    return folder / "e.npz"


def safetensors(metadata: dict[str, str] | None = None, **arrays: np.ndarray) -> Write:
    def write(folder: Path) -> Path:
        save_file(arrays, folder / "e.safetensors", metadata)
        return folder / "e.safetensors"

    return write


def parquet(vector: Any, *, id: Any = ("a", "b", "c"), kind: Any = None) -> Write:
    def write(folder: Path) -> Path:
        columns = {"id": pa.array(id), "vector": vector}
        if kind is not None:
            columns["kind"] = pa.array(kind)
        pq.write_table(pa.table(columns), folder / "e.parquet", row_group_size=2)
        return folder / "e.parquet"

    return write


def column_twice(folder: Path) -> Path:
    table = pa.table({"vector": pa.array(VECTORS.tolist(), FLOATS)})
    pq.write_table(table.append_column("vector", table.column(0)), folder / "e.parquet")
    return folder / "e.parquet"


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float16()), pa.list_(pa.float32()), pa.list_(pa.float64()),
        pa.large_list(pa.float32()), pa.list_(pa.float32(), 4), pa.list_(pa.float16(), 4),
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_list_is_read(kind: pa.DataType, tmp_path: Path) -> None:
    half = "half" in str(kind)
    values = pa.array((VECTORS.astype(np.float16) if half else VECTORS).tolist(), kind)
    images = read_embeddings(parquet(values)(tmp_path)).sets["image"]
    assert images.ids == ("a", "b", "c") and images.vectors.dtype == np.float32
    np.testing.assert_allclose(images.vectors, UNIT, atol=1e-3 if half else 1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_safetensors_without_ids_are_in_the_order_of_the_data(dtype: Any, tmp_path: Path) -> None:
    file = read_embeddings(safetensors(image=VECTORS.astype(dtype))(tmp_path))
    assert file.sets["image"].ids is None
    assert any("without ids: in the order of data items" in note for note in file.notes)
    vectors = file.match("image", ["x", "y", "z"])
    assert list(vectors) == ["x", "y", "z"] and len(vectors) == 3
    np.testing.assert_allclose(vectors["z"], UNIT[2], atol=1e-3)
    with pytest.raises(DataError, match="3 rows of kind 'image' without ids for 2 items"):
        file.match("image", ["x", "y"])


def test_plural_kinds_are_the_same_kind(tmp_path: Path) -> None:
    write = parquet(pa.array(VECTORS.tolist(), FLOATS), kind=["image", "images", "prompt"])
    sets = read_embeddings(write(tmp_path)).sets
    assert sets["image"].ids == ("a", "b") and sets["prompt"].ids == ("c",)
    np.testing.assert_allclose(sets["image"].vectors, UNIT[:2], atol=1e-7)


ROWS = VECTORS.tolist()
HUGE = np.full((2, 4), 1e300)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (safetensors({"image_ids": '["a", "b"]'}, image=VECTORS), "2 ids for 3 rows of kind"),
        (safetensors({"image_ids": "a,b,c"}, image=VECTORS), "'image_ids' is not JSON"),
        (safetensors({"image_ids": ""}, image=VECTORS), "'image_ids' is not JSON"),
        (safetensors({"image_ids": "[1, 2, 3]"}, image=VECTORS), "is not a list of texts"),
        (safetensors({"ids": json.dumps(["a", "b", "c"])}, image=VECTORS),
         r"metadata 'ids' without its vectors \(tensors: image\)"),
        (safetensors({"prompt_ids": "[]"}, image=VECTORS), "'prompt_ids' without its vectors"),
        (safetensors(image=VECTORS, images=VECTORS), r"2 arrays of kind 'image' \(image, images\)"),
        (safetensors(image=np.ones((3, 4), np.int32)), "tensor 'image' has type I32"),
        (npz(image=VECTORS, images=VECTORS), r"2 arrays of kind 'image' \(image, images\)"),
        (npz(image=VECTORS, image_ids=np.arange(3)), r"have type int64 and shape \(3,\)"),
        (npz(image=VECTORS, image_ids=np.array([["a", "b", "c"]])), r"and shape \(1, 3\)"),
        (npz(image=VECTORS, image_ids=np.array(["a", "b"])), "2 ids for 3 rows"),
        (npz(image=VECTORS, text_ids=np.array(["a"])), "'text_ids' without its vectors"),
        (npz(image=np.array([[None, 1]], dtype=object)), "'image' holds Python objects"),
        (npz(image=HUGE), r"image: 2 rows not finite or zero \(row 0, row 1\)"),
        (npz(image=VECTORS[:0]), r"an array of shape \(0, 4\)"),
        (npz(image=VECTORS.astype(complex)), "type complex128"),
        (npy(VECTORS), "one array, not an archive of arrays"),
        (npy(np.array([None, 1], dtype=object)), "not readable as .npz"),
        (pickled, "not readable as .npz"),
        (column_twice, "the column 'vector' appears twice"),
        (parquet(pa.array([ROWS[0], None, ROWS[2]], FLOATS)), r"nulls in 1 row \(b\)"),
        (parquet(pa.array([ROWS[0], None, None], pa.list_(pa.float32(), 4))),
         r"nulls in 2 rows \(b, c\)"),
        (parquet(pa.array([ROWS[0], ROWS[1], [1.0, None, 2.0, 3.0]], pa.large_list(pa.float32()))),
         r"nulls in 1 row \(c\)"),
        (parquet(pa.array([ROWS[0], ROWS[1], [1.0, 2.0]], FLOATS)),
         r"different lengths \(image 4: 2 rows, first a; image 2: 1 row, first c\)"),
        (parquet(pa.array([ROWS[0], ROWS[1], [1.0, 2.0]], FLOATS),
                 kind=["image", "image", "prompt"]), "different dimensions: image 4, prompt 2"),
        (parquet(pa.array([[], [], []], FLOATS)), "vectors of dimension 0"),
        (parquet(pa.array([[1, 2], [3, 4], [5, 6]])), "holds values of type int64"),
        (parquet(pa.array(["x", "y", "z"])), "column 'vector' has type string"),
        (parquet(pa.array(ROWS, FLOATS), kind=["image", "photo", None]),
         "unknown kind 'photo': 1 row, null: 1 row"),
        (parquet(pa.array(ROWS, FLOATS), id=["a", None, "c"]),
         r"column 'id' is not text in 1 row \(row 1\)"),
        (parquet(pa.array(ROWS, FLOATS), id=[1, 2, 3]), "column 'id' is not text in 3 rows"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_invalid_files_are_one_error_with_a_remedy(
    write: Write, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_embeddings(write(tmp_path))
    assert caught.value.remedy
    assert "pickle" not in str(caught.value)
