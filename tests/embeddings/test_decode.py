"""Transfer between processes preserves data and leaves no files."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from marsretrieval.embeddings.pipeline import read_shared, shared_memory_folder, write_shared

LARGE = np.arange(200_000, dtype=np.float32).reshape(400, 500)


def test_arrays_and_tensors_round_trip(tmp_path: Path) -> None:
    value = {
        "array": LARGE,
        "tensor": torch.from_numpy(LARGE.copy()),
        "turned": torch.from_numpy(LARGE.copy()).T,
        "none": np.zeros((0, 3), np.int64),
        "number": torch.tensor(2.5),
        "brain": torch.ones(70_000, dtype=torch.bfloat16),
        "rest": [(1, "b"), b"c"],
    }
    packed = write_shared(value, tmp_path)
    assert packed.file is not None and list(tmp_path.iterdir()) == [packed.file]
    assert len(packed.pickled) < 150_000  # of which 140,000 are bfloat16
    result = read_shared(packed)
    assert list(tmp_path.iterdir()) == []
    assert list(result) == list(value) and result["rest"] == value["rest"]
    for name in ("array", "none"):
        np.testing.assert_array_equal(result[name], value[name])
        assert result[name].dtype == value[name].dtype
    for name in ("tensor", "turned", "number", "brain"):
        assert torch.equal(result[name], value[name]) and result[name].dtype == value[name].dtype
    result["array"][0] = 7  # and they are one's own


def test_small_data_use_no_file(tmp_path: Path) -> None:
    packed = write_shared([np.arange(5), Image.new("L", (3, 2), 9)], tmp_path)
    assert packed.file is None and list(tmp_path.iterdir()) == []
    array, image = read_shared(packed)
    assert array.tolist() == [0, 1, 2, 3, 4] and image.getpixel((0, 0)) == 9
    array[0] = 1


def test_data_are_pickled_without_shared_memory_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        "marsretrieval.embeddings.pipeline.os.fdopen", lambda number, *_, **__: Full(number, "wb")
    )
    packed = write_shared(LARGE, tmp_path)
    monkeypatch.undo()
    assert packed.file is None and list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(read_shared(packed), LARGE)
    np.testing.assert_array_equal(read_shared(write_shared(LARGE, tmp_path / "missing")), LARGE)


def test_shared_memory_folder_is_used_if_available() -> None:
    with shared_memory_folder() as folder:
        assert Path(folder).is_dir()
        assert Path("/dev/shm") in Path(folder).parents or not os.access("/dev/shm", os.W_OK)
    assert not Path(folder).exists()
