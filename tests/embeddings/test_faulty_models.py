"""Models that fail, run out of memory or return invalid vectors are reported and not stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.embeddings import (
    build_store,
    build_text_store,
    embed_texts,
    open_store,
)
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    MarsRetrievalWarning,
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


def test_out_of_memory_while_preparing_does_not_blame_the_image(tmp_path: Path) -> None:
    class Full(FakeEncoder):
        @property
        def preprocess(self) -> Callable[[Image.Image], Any]:
            def fail(image: Image.Image) -> Any:
                raise MemoryError

            return fail

    with pytest.raises(MarsRetrievalError, match=r"tile-000000\.png: out of memory"):
        build_store(Full(), FakeSource(), tmp_path)
    assert open_store(tmp_path).rows == 0 and open_store(tmp_path).skipped == []


def _spoil_one(kind: str) -> type[FakeEncoder]:
    """Model that fails on tile-000001 and tile-001002, in one of three ways."""
    odd = [FakeEncoder().preprocess(picture(row)) for row in (1, 1002)]

    class Faulty(FakeEncoder):
        def encode_preprocessed(self, features: Sequence[Any]) -> np.ndarray:
            rows = super().encode_preprocessed(features)
            for number, feature in enumerate(features):
                if any(np.array_equal(feature, other) for other in odd):
                    if kind == "raises":
                        raise ValueError("no such texture")
                    rows[number] = np.nan if kind == "nan" else 0
            return rows

    return Faulty


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("kind", ["raises", "nan", "zero"])
def test_one_bad_image_is_named_and_skipped(kind: str, batch_size: int, tmp_path: Path) -> None:
    source = FakeSource(corrupt=frozenset({"tile-000003"}))
    report = build_store(_spoil_one(kind)(), source, tmp_path / "a", batch_size=batch_size)
    store = open_store(tmp_path / "a")
    assert [item.id for item in store.skipped] == ["tile-000001", "tile-000003", "tile-001002"]
    assert store.skipped[0].source == "000000.tar:tile-000001.png"
    expected = (
        "ValueError: no such texture, at test_faulty_models.py" if kind == "raises" else "not"
    )
    assert expected in store.skipped[0].reason
    assert report.rows == store.rows == 9 and len(report.skipped) == 3
    complete = FakeEncoder().encode_images([picture(row) for row in (0, 2, 4)])
    np.testing.assert_array_equal(store.load()[1][:3], complete.astype(np.float16))
    again = build_store(_spoil_one(kind)(), source, tmp_path / "b", batch_size=batch_size)
    assert again.rows == 9
    for file in sorted((tmp_path / "a" / "shards").glob("*.arrow")):
        assert file.read_bytes() == (tmp_path / "b" / "shards" / file.name).read_bytes()


def test_strict_makes_a_bad_image_fatal(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"000000\.tar:tile-000001\.png: .*no such texture"):
        build_store(_spoil_one("raises")(), FakeSource(), tmp_path, strict=True)
    build_store(_spoil_one("raises")(), FakeSource(), tmp_path)
    with pytest.raises(DataError, match="2 images are left out"):
        build_store(_spoil_one("raises")(), FakeSource(), tmp_path, strict=True)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_model_failure_during_a_build_does_not_blame_the_images(
    batch_size: int, tmp_path: Path
) -> None:
    class Lost(FakeEncoder):
        def encode_preprocessed(self, features: Sequence[Any]) -> np.ndarray:
            if sum(self.calls) >= 6:
                raise RuntimeError("CUDA error: the device is gone")
            return super().encode_preprocessed(features)

    with pytest.raises(ModelLoadError, match="the device is gone"):
        build_store(Lost(), FakeSource(), tmp_path, batch_size=batch_size)
    assert open_store(tmp_path).skipped == []


def test_model_that_fails_only_on_batches_is_reported(tmp_path: Path) -> None:
    class Single(FakeEncoder):
        def encode_preprocessed(self, features: Sequence[Any]) -> np.ndarray:
            if len(features) > 1:
                raise ValueError("one at a time")
            return super().encode_preprocessed(features)

    with pytest.warns(MarsRetrievalWarning, match="one at a time"):
        build_store(Single(), FakeSource(), tmp_path)
    assert open_store(tmp_path).rows == 12 and open_store(tmp_path).skipped == []


def test_the_text_on_which_a_model_fails_is_named(tmp_path: Path) -> None:
    class Faulty(FakeEncoder):
        def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> np.ndarray:
            rows = super().encode_texts(texts, role=role)
            rows[[text == "sand" for text in texts]] = np.nan
            return rows

    with pytest.raises(ModelLoadError, match="fails on the text 'sand'"):
        build_text_store(Faulty(), [("a", "dunes"), ("b", "sand")], tmp_path, role="query")
    with pytest.raises(ModelLoadError, match="fails on the text 'sand'"):
        embed_texts(Faulty(), ["dunes", "sand", "ice"])
