"""Batches collated in advance: used if they fit, otherwise collated again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.embeddings import build_store, open_store
from marsretrieval.errors import ModelLoadError
from tests.fakes import FakeEncoder, FakeSource


class Joining(FakeEncoder):
    """Encoder that records which batches were collated in advance, and in which thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.joined: list[bool] = []
        self.threads: set[str] = set()

    def collate(self, features: Sequence[Any]) -> Any:
        self.threads.add(threading.current_thread().name)
        return np.stack(list(features))

    def encode_preprocessed(self, features: Any) -> Any:
        self.joined.append(isinstance(features, np.ndarray))
        return super().encode_preprocessed(list(features))


SOURCE = FakeSource(counts=(8,) * 5)


@pytest.fixture
def expected(tmp_path: Path) -> np.ndarray:
    build_store(FakeEncoder(), SOURCE, tmp_path / "plain", batch_size=8)
    return open_store(tmp_path / "plain").load()[1]


def test_batches_are_collated_off_the_device_thread(tmp_path: Path, expected: np.ndarray) -> None:
    encoder = Joining()
    build_store(encoder, SOURCE, tmp_path / "store", batch_size=8)
    assert encoder.joined == [True] * 5
    assert all(name.startswith("collate") for name in encoder.threads)
    np.testing.assert_array_equal(open_store(tmp_path / "store").load()[1], expected)


def test_too_large_a_batch_is_split_by_images(tmp_path: Path, expected: np.ndarray) -> None:
    encoder = Joining(limit=4)
    report = build_store(encoder, SOURCE, tmp_path / "store", batch_size=8)
    assert report.batch_size == 4 and not all(encoder.joined)
    np.testing.assert_array_equal(open_store(tmp_path / "store").load()[1], expected)


def test_collate_errors_are_reported_by_the_model(tmp_path: Path) -> None:
    class Odd(Joining):
        def collate(self, features: Sequence[Any]) -> Any:
            raise ValueError("of two sizes")

        def encode_preprocessed(self, features: Any) -> Any:
            return super().encode_preprocessed(self.collate(features))

    with pytest.raises(ModelLoadError, match="of two sizes"):
        build_store(Odd(), SOURCE, tmp_path / "store")
