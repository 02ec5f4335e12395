"""Several models embed one pass over the images into separate stores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.embeddings import Target, build_store, build_stores, open_store
from marsretrieval.errors import ModelLoadError, StoreMismatchError, UsageError
from tests.fakes import FakeEncoder, FakeSource, thumbnail


def both(folder: Path, *encoders: FakeEncoder) -> list[Target]:
    return [Target(encoder, folder / encoder.id) for encoder in encoders]


def test_images_are_read_once_for_all_stores(tmp_path: Path) -> None:
    one, two = FakeEncoder(32), FakeEncoder(48, seed=1)
    source = FakeSource(counts=(5, 0, 3, 20), corrupt=frozenset({"tile-000001"}))
    reports = build_stores(both(tmp_path, one, two), source, batch_size=4)
    assert source.reads == ["000000", "000001", "000002", "000003"]
    assert [(report.rows, report.embedded) for report in reports] == [(27, 27), (27, 27)]
    for encoder in (one, two):
        alone = tmp_path / f"alone-{encoder.id}"
        build_store(encoder, source, alone)
        ids, vectors = open_store(tmp_path / encoder.id).load()
        assert ids == open_store(alone).load()[0]
        np.testing.assert_array_equal(vectors, open_store(alone).load()[1])
        assert [item.id for item in open_store(tmp_path / encoder.id).skipped] == ["tile-000001"]


def test_stores_have_separate_plans(tmp_path: Path) -> None:
    one, two = FakeEncoder(), FakeEncoder(seed=1)
    targets = both(tmp_path, one, two)
    source = FakeSource()
    build_store(one, source, targets[0].path, part=(1, 3))
    build_store(two, source, targets[1].path, part=(2, 3))
    build_store(two, source, targets[1].path, part=(1, 3))
    one.calls.clear()
    two.calls.clear()
    source.reads.clear()
    first, second = build_stores(targets, source)
    assert source.reads == ["000001", "000002"]  # the first shard is in both already
    assert (first.embedded, first.reused) == (7, 5) and sum(one.calls) == 7
    assert (second.embedded, second.reused) == (4, 8) and sum(two.calls) == 4
    assert open_store(targets[0].path).complete and open_store(targets[1].path).complete


def test_image_rejected_by_one_model_is_embedded_by_the_other(tmp_path: Path) -> None:
    class Picky(FakeEncoder):
        @property
        def preprocess(self) -> Callable[[Image.Image], Any]:
            calls: list[int] = []

            def check(image: Image.Image) -> Any:
                calls.append(1)
                if len(calls) == 2:
                    raise ValueError("aspect ratio")
                return thumbnail(image)

            return check

    targets = both(tmp_path, Picky(), FakeEncoder(seed=1))
    picky, other = build_stores(targets, FakeSource(), workers=1)
    assert [item.id for item in picky.skipped] == ["tile-000001"] and picky.rows == 11
    assert other.skipped == [] and other.rows == 12


def test_no_store_is_written_if_one_is_refused(tmp_path: Path) -> None:
    targets = both(tmp_path, FakeEncoder(), FakeEncoder(seed=1))
    build_store(FakeEncoder(seed=2), FakeSource(), targets[1].path)
    with pytest.raises(StoreMismatchError, match="id: fake-2 in the store, fake-1 now"):
        build_stores(targets, FakeSource())
    assert open_store(targets[0].path).rows == 0
    with pytest.raises(UsageError, match="share one store"):
        build_stores([targets[0], targets[0]], FakeSource())


def test_model_failure_in_the_middle_preserves_finished_shards(tmp_path: Path) -> None:
    class Dying(FakeEncoder):
        def encode_preprocessed(self, features: Any) -> Any:
            if len(self.calls) == 3:
                raise RuntimeError("device lost")
            return super().encode_preprocessed(features)

    source = FakeSource(counts=(4,) * 8)
    targets = both(tmp_path, FakeEncoder(), Dying(seed=1))
    with pytest.raises(ModelLoadError, match="device lost"):
        build_stores(targets, source, batch_size=4)
    rows = [open_store(target.path).rows for target in targets]
    assert rows[1] <= 12 and all(open_store(t.path).verify()[0] for t in targets)
    again = build_stores(both(tmp_path, FakeEncoder(), FakeEncoder(seed=1)), source)
    assert [report.reused for report in again] == rows
    assert [report.rows for report in again] == [32, 32]


def test_images_in_flight_stay_within_the_documented_limit(tmp_path: Path) -> None:
    lock, ready, most = threading.Lock(), [0], [0]

    class Counting(FakeEncoder):
        @property
        def preprocess(self) -> Callable[[Image.Image], Any]:
            def count(image: Image.Image) -> Any:
                with lock:
                    ready[0] += 1
                    most[0] = max(most[0], ready[0])
                return thumbnail(image)

            return count

        def encode_preprocessed(self, features: Any) -> Any:
            vectors = super().encode_preprocessed(features)
            with lock:
                ready[0] -= len(features)
            return vectors

    workers, batch = 2, 8
    targets = both(tmp_path, Counting(delay=0.01), Counting(delay=0.01, seed=1))
    build_stores(targets, FakeSource(counts=(50,) * 8), batch_size=batch, workers=workers)
    assert ready == [0]
    images = 16 + 4 * workers + (len(targets) + 2) * batch + workers
    assert batch < most[0] <= images * len(targets)
