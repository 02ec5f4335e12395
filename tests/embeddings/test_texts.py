"""Stores of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.embeddings import build_text_store, open_store
from marsretrieval.errors import DataError, ModalityError, StoreMismatchError
from tests.fakes import FakeEncoder

ITEMS = [(f"caption-{number}", "word " * (1 + 7 * number % 5)) for number in range(11)]


def test_order_is_preserved_with_batches_sorted_by_length(tmp_path: Path) -> None:
    batches: list[list[int]] = []

    class Watched(FakeEncoder):
        def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> Any:
            batches.append([len(text) for text in texts])
            return super().encode_texts(texts, role=role)

    report = build_text_store(Watched(), ITEMS, tmp_path, role="caption", batch_size=4)
    store = open_store(tmp_path)
    ids, vectors = store.load()
    assert (store.kind, store.dtype, report.embedded) == ("text", "float32", 11)
    assert ids == [key for key, _ in ITEMS]
    expected = FakeEncoder().encode_texts([text for _, text in ITEMS], role="caption")
    np.testing.assert_array_equal(vectors, expected)
    assert len(batches) == 3
    assert [length for batch in batches for length in batch] == sorted(
        len(text) for _, text in ITEMS
    )
    assert np.isnan(store.positions()).all() and store.verify() == []


def test_texts_are_embedded_once_and_again_when_they_change(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    build_text_store(encoder, ITEMS, tmp_path, role="caption")
    encoder.calls.clear()
    assert build_text_store(encoder, ITEMS, tmp_path, role="caption").reused == 11
    assert encoder.calls == []
    fewer = [("caption-0", "dunes"), *ITEMS[1:5]]
    assert build_text_store(encoder, fewer, tmp_path, role="caption").embedded == 5
    assert open_store(tmp_path).load()[0] == [key for key, _ in fewer]


def test_texts_span_several_shards_and_may_shrink(tmp_path: Path) -> None:
    many = [(f"{number:05d}", f"text {number % 7}") for number in range(4100)]
    build_text_store(FakeEncoder(4), many, tmp_path, role="caption")
    store = open_store(tmp_path)
    assert len(store.entries) == 2 and store.load()[0] == [key for key, _ in many]
    build_text_store(FakeEncoder(4), many[:3], tmp_path, role="caption")
    assert open_store(tmp_path).rows == 3
    assert len(list((tmp_path / "shards").iterdir())) == 2


def test_refusals(tmp_path: Path) -> None:
    build_text_store(FakeEncoder(), ITEMS, tmp_path / "store", role="caption")
    with pytest.raises(StoreMismatchError, match="role: caption in the store, query now"):
        build_text_store(FakeEncoder(), ITEMS, tmp_path / "store", role="query")
    with pytest.raises(StoreMismatchError, match="weights_sha256"):
        build_text_store(FakeEncoder(seed=2), ITEMS, tmp_path / "store", role="caption")
    with pytest.raises(DataError, match="same id"):
        build_text_store(FakeEncoder(), [*ITEMS, ITEMS[0]], tmp_path / "new", role="caption")
    with pytest.raises(ModalityError):
        build_text_store(FakeEncoder(text=False), ITEMS, tmp_path / "new", role="caption")
    assert not (tmp_path / "new").exists()


def test_too_large_a_batch_is_halved(tmp_path: Path) -> None:
    encoder = FakeEncoder(limit=3)
    assert build_text_store(encoder, ITEMS, tmp_path, role="query").batch_size == 2
    assert open_store(tmp_path).rows == 11
