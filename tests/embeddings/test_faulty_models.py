"""Models that fail, run out of memory or give what are no vectors: told, and nothing stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.embeddings import (
    build_store,
    open_store,
)
from marsretrieval.errors import (
    MarsRetrievalError,
    ModelLoadError,
)
from tests.fakes import FakeEncoder, FakeSource, picture


def test_too_large_a_batch_is_halved(tmp_path: Path) -> None:
    encoder = FakeEncoder(limit=3)
    report = build_store(encoder, FakeSource(counts=(20,)), tmp_path, batch_size=16)
    assert report.batch_size == 2
    assert encoder.calls[:4] == [16, 8, 4, 2] and set(encoder.calls[4:]) == {2}
    expected = FakeEncoder().encode_images([picture(row) for row in range(20)])
    np.testing.assert_array_equal(open_store(tmp_path).load()[1], expected.astype(np.float16))


def test_out_of_memory_with_one_image(tmp_path: Path) -> None:
    with pytest.raises(MarsRetrievalError, match="out of memory with a single item"):
        build_store(FakeEncoder(limit=0), FakeSource(), tmp_path)


def _wrong_shape(rows: np.ndarray) -> np.ndarray:
    return rows[:, :-1]


def _not_unit(rows: np.ndarray) -> np.ndarray:
    return rows * 2


def _not_a_number(rows: np.ndarray) -> np.ndarray:
    rows[0, 0] = np.nan
    return rows


def _crash(rows: np.ndarray) -> np.ndarray:
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_wrong_shape, "vectors of shape"),
        (_not_unit, "not of unit length"),
        (_not_a_number, "not of unit length"),
        (_crash, "device-side assert"),
    ],
)
def test_a_faulty_model_is_an_error_and_not_a_store(
    tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    class Faulty(FakeEncoder):
        def encode_preprocessed(self, features: Sequence[Any]) -> np.ndarray:
            return spoil(super().encode_preprocessed(features))

    with pytest.raises(ModelLoadError, match=message):
        build_store(Faulty(), FakeSource(), tmp_path)
    assert open_store(tmp_path).rows == 0


def test_preprocessing_may_fail_on_an_image_but_not_on_all(tmp_path: Path) -> None:
    class Picky(FakeEncoder):
        reject = "tile-000001"

        @property
        def preprocess(self) -> Callable[[Image.Image], Any]:
            return self._check

        def _check(self, image: Image.Image) -> Any:
            odd = np.array_equal(np.asarray(image), np.asarray(picture(1)))
            if self.reject == "all" or odd:
                raise ValueError("aspect ratio")
            return super().preprocess(image)

    build_store(Picky(), FakeSource(), tmp_path / "one")
    (lost,) = open_store(tmp_path / "one").skipped
    assert lost.id == "tile-000001" and "ValueError: aspect ratio" in lost.reason
    encoder = Picky()
    encoder.reject = "all"
    with pytest.raises(MarsRetrievalError, match=r"preprocessing failed.*on all of its 5"):
        build_store(encoder, FakeSource(), tmp_path / "all")


def test_memory_that_runs_out_while_preparing_is_no_fault_of_the_image(tmp_path: Path) -> None:
    class Full(FakeEncoder):
        @property
        def preprocess(self) -> Callable[[Image.Image], Any]:
            def fail(image: Image.Image) -> Any:
                raise MemoryError

            return fail

    with pytest.raises(MarsRetrievalError, match=r"tile-000000\.png: no memory left"):
        build_store(Full(), FakeSource(), tmp_path)
    assert open_store(tmp_path).rows == 0 and open_store(tmp_path).skipped == []
