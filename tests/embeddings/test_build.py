"""Building a store: embedded, skipped, reused and refused items."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.datasets import Skipped, open_sources
from marsretrieval.embeddings import (
    EmbeddingStore,
    ModelRequest,
    build_store,
    open_store,
    plan,
    plan_build,
)
from marsretrieval.encoders import LoadOptions, find
from marsretrieval.errors import (
    DataError,
    OutputError,
    StoreError,
    StoreMismatchError,
    UsageError,
)
from marsretrieval.progress import NO_PROGRESS
from tests.fakes import FakeEncoder, FakeSource, picture, png_bytes, thumbnail


def built(path: Path, source: FakeSource | None = None, **options: Any) -> EmbeddingStore:
    build_store(FakeEncoder(), source or FakeSource(), path, **options)
    return open_store(path)


def test_rows_are_in_source_order_with_the_vectors_of_their_images(tmp_path: Path) -> None:
    store = built(tmp_path / "store", dtype="float32")
    ids, vectors = store.load()
    rows = [0, 1, 2, 3, 4, 1000, 1001, 1002, 2000, 2001, 2002, 2003]
    assert ids == [f"tile-{row:06d}" for row in rows]
    expected = FakeEncoder().encode_images([picture(row) for row in rows])
    np.testing.assert_array_equal(vectors, expected)
    assert (store.kind, store.dtype, store.dimension, store.rows) == ("image", "float32", 32, 12)
    assert store.complete and store.missing == [] and store.skipped == []
    assert store.dataset["kind"] == "webdataset"
    store.require_encoder(FakeEncoder().fingerprint)


def test_float16_is_the_default_and_rounds(tmp_path: Path) -> None:
    store = built(tmp_path / "store")
    (block, *_) = store.blocks()
    assert block.vectors.dtype == np.float16
    exact = FakeEncoder().encode_images([picture(row) for row in range(5)])
    np.testing.assert_array_equal(block.vectors, exact.astype(np.float16))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batch_size_and_workers_do_not_change_vectors(
    tmp_path: Path, batch_size: int, workers: int
) -> None:
    source = FakeSource(counts=(5, 0, 3, 1, 8))
    one = built(tmp_path / "one", source, dtype="float32")
    other = built(
        tmp_path / "other", source, dtype="float32", batch_size=batch_size, workers=workers
    )
    assert one.load()[0] == other.load()[0]
    np.testing.assert_array_equal(one.load()[1], other.load()[1])
    assert one.set_hash == other.set_hash


def test_a_second_build_does_nothing(tmp_path: Path) -> None:
    source = FakeSource()
    build_store(FakeEncoder(), source, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    encoder = FakeEncoder()
    source.reads.clear()
    report = build_store(encoder, source, tmp_path)
    assert (report.rows, report.embedded, report.reused) == (12, 0, 12)
    assert report.images_per_s is None and report.timings == {}
    assert encoder.calls == [] and source.reads == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_complete_store_need_not_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setattr(plan, "make_folder", lambda path: pytest.fail("written to"))
    assert build_store(FakeEncoder(), FakeSource(), tmp_path).reused == 12


def test_model_is_not_loaded_for_a_complete_store(tmp_path: Path) -> None:
    loaded = []

    def load() -> FakeEncoder:
        loaded.append(1)
        return FakeEncoder()

    request = ModelRequest("fake-0", revision="1f2e")
    build_store(load, FakeSource(), tmp_path, request=request)
    assert len(loaded) == 1
    build_store(load, FakeSource(), tmp_path, request=request)
    assert len(loaded) == 1
    assert open_store(tmp_path).model.dtype == "float32"  # the precision really used
    # Asked for differently, the model must be looked at; it turns out to be the same.
    own = ModelRequest("tests:fake")
    report = build_store(load, FakeSource(), tmp_path, request=own)
    assert len(loaded) == 2 and report.reused == 12
    assert open_store(tmp_path).model.model == "tests:fake"
    assert open_store(tmp_path).model.dtype == "auto"
    # Nothing pins the code of a user's class.
    build_store(load, FakeSource(), tmp_path, request=own)
    assert len(loaded) == 3
    build_store(load, FakeSource(counts=(5, 3, 4, 2)), tmp_path, request=request)
    assert len(loaded) == 4 and open_store(tmp_path).rows == 14


def test_changed_checkpoint_is_detected(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    record = find("pe-core-l-14-336")
    first = ModelRequest.from_spec(record, LoadOptions(checkpoint=weights))
    assert first.pinned
    assert first == ModelRequest.from_spec(record, LoadOptions(checkpoint=weights, device="cuda"))
    weights.write_bytes(b"22")
    assert first != ModelRequest.from_spec(record, LoadOptions(checkpoint=weights))


def test_images_that_cannot_be_embedded_are_skipped_with_a_reason(tmp_path: Path) -> None:
    source = FakeSource(
        corrupt=frozenset({"tile-000001", "tile-002003"}), unreadable=frozenset({"tile-001000"})
    )
    report = build_store(FakeEncoder(), source, tmp_path)
    store = open_store(tmp_path)
    assert report.rows == store.rows == 9
    assert report.skipped == store.skipped
    reasons = {item.id: item.reason for item in store.skipped}
    assert set(reasons) == {"tile-000001", "tile-001000", "tile-002003"}
    assert reasons["tile-001000"] == "no image"
    assert "000000.tar:tile-000001.png" in {item.source for item in store.skipped}
    assert store.complete
    assert build_store(FakeEncoder(), source, tmp_path).skipped == store.skipped


def test_duplicate_id_in_a_shard_is_stored_once(tmp_path: Path) -> None:
    class Twice(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            yield from super().read(shard)
            yield from super().read(shard)

    store = built(tmp_path, Twice(counts=(3,)))
    assert store.load()[0] == ["tile-000000", "tile-000001", "tile-000002"]
    assert [item.reason for item in store.skipped] == ["duplicate id in one shard"] * 3


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    source = FakeSource(counts=(2,), corrupt=frozenset({"tile-000000", "tile-000001"}))
    with pytest.raises(DataError, match=r"none of 2 images .*tile-000000"):
        build_store(FakeEncoder(), source, tmp_path)


def test_unreadable_shard_is_skipped_and_reported(tmp_path: Path) -> None:
    source = FakeSource(broken=frozenset({"000001"}))
    with pytest.raises(DataError, match=r"1 of 3 shards .*000001: .*end of file"):
        build_store(FakeEncoder(), source, tmp_path)
    store = open_store(tmp_path)
    assert not store.complete and store.missing == ["000001"] and store.rows == 9
    report = build_store(FakeEncoder(), FakeSource(), tmp_path)
    assert (report.embedded, report.reused) == (3, 9)
    assert open_store(tmp_path).complete


def test_a_changed_shard_is_embedded_again_and_only_it(tmp_path: Path) -> None:
    first = built(tmp_path).load()[1]
    source = FakeSource(versions={"000001": 1})
    plan = plan_build(source, tmp_path)
    assert [shard.name for shard in plan.todo] == ["000001"] and plan.todo_rows == 3
    store = built(tmp_path, source)
    assert source.reads == ["000001"]
    second = store.load()[1]
    np.testing.assert_array_equal(first[:5], second[:5])
    np.testing.assert_array_equal(first[8:], second[8:])
    assert (first[5:8] != second[5:8]).any(axis=1).all()


def test_a_store_grows_with_its_source(tmp_path: Path) -> None:
    built(tmp_path)
    source = FakeSource(counts=(5, 3, 4, 6))
    assert built(tmp_path, source).rows == 18
    assert source.reads == ["000003"]


def test_positions_may_be_unknown(tmp_path: Path) -> None:
    store = built(tmp_path, FakeSource(with_positions=False))
    assert np.isnan(store.positions()).all()
    assert np.isnan(store.take([0]).width_deg).all()
    assert store.verify() == []


def test_store_of_other_data_or_model_is_refused_naming_every_difference(tmp_path: Path) -> None:
    before = built(tmp_path).load()[1]
    with pytest.raises(StoreMismatchError) as caught:
        build_store(FakeEncoder(seed=1), FakeSource(counts=(5, 3, 4, 1)), tmp_path)
    for name in ("id: fake-0 in the store, fake-1 now", "weights_sha256"):
        assert name in str(caught.value)
    with pytest.raises(StoreMismatchError, match="dtype: float16 in the store, float32 now"):
        build_store(FakeEncoder(), FakeSource(), tmp_path, dtype="float32")
    with pytest.raises(StoreMismatchError, match=r"dataset kind: webdataset .*, folder now"):
        build_store(FakeEncoder(), FakeSource(kind="folder"), tmp_path)
    with pytest.raises(StoreMismatchError, match=r"1 of its 3 shards .*000002"):
        build_store(FakeEncoder(), FakeSource(counts=(5, 3)), tmp_path)
    elsewhere = FakeSource(name="moon", versions={f"{index:06d}": 1 for index in range(3)})
    with pytest.raises(StoreMismatchError, match="fake planet in the store, moon now"):
        build_store(FakeEncoder(), elsewhere, tmp_path)
    np.testing.assert_array_equal(open_store(tmp_path).load()[1], before)


def test_force_replaces(tmp_path: Path) -> None:
    built(tmp_path)
    build_store(FakeEncoder(16, seed=1), FakeSource(counts=(2, 2)), tmp_path, force=True)
    store = open_store(tmp_path)
    assert (store.rows, store.dimension, store.encoder["id"]) == (4, 16, "fake-1")
    assert store.verify() == []
    assert sorted(path.name for path in (tmp_path / "shards").glob("*.arrow")) == [
        "000000.arrow", "000001.arrow",
    ]  # fmt: skip


def test_parts_add_up_to_the_complete_store(tmp_path: Path) -> None:
    source = FakeSource(counts=(5, 3, 4, 2, 6))
    complete = built(tmp_path / "whole", source)
    for number in (3, 1):
        report = build_store(FakeEncoder(), source, tmp_path / "parts", part=(number, 3))
        assert report.rows == {1: 7, 3: 4}[number]
    half = open_store(tmp_path / "parts")
    assert not half.complete and half.missing == ["000001", "000004"]
    build_store(FakeEncoder(), source, tmp_path / "parts", part=(2, 3))
    parts = open_store(tmp_path / "parts")
    assert parts.complete and parts.load()[0] == complete.load()[0]
    np.testing.assert_array_equal(parts.load()[1], complete.load()[1])


def test_store_started_by_another_process_is_not_overwritten(tmp_path: Path) -> None:
    def slow_to_load() -> FakeEncoder:
        build_store(FakeEncoder(), FakeSource(), tmp_path, part=(1, 2))
        return FakeEncoder(seed=1)

    with pytest.raises(StoreMismatchError, match="id: fake-0 in the store, fake-1 now"):
        build_store(slow_to_load, FakeSource(), tmp_path, part=(2, 2))
    store = open_store(tmp_path)
    assert store.encoder["id"] == "fake-0" and store.rows == 9


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 0)])
def test_parts_that_do_not_exist(tmp_path: Path, part: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        plan_build(FakeSource(), tmp_path, part=part)


@pytest.mark.parametrize(("device", "expected"), [("cuda:0", {1}), ("cpu", {3})])
def test_workers_use_one_thread_beside_a_gpu(
    tmp_path: Path, device: str, expected: set[int]
) -> None:
    torch = pytest.importorskip("torch")
    thread_counts = set()

    class Watched(FakeEncoder):
        @property
        def preprocess(self) -> Callable[[Image.Image], Any]:
            def prepare(image: Image.Image) -> Any:
                thread_counts.add(torch.get_num_threads())
                return thumbnail(image)

            return prepare

    encoder = Watched()
    encoder.device = device  # type: ignore[attr-defined]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        build_store(encoder, FakeSource(), tmp_path, workers=2)
        assert thread_counts == expected and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_of_the_reader_is_not_swallowed(tmp_path: Path) -> None:
    class Buggy(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            yield from super().read(shard)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_store(FakeEncoder(), Buggy(), tmp_path)


def test_invalid_store_folders(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds other files"):
        build_store(FakeEncoder(), FakeSource(), tmp_path)
    with pytest.raises(OutputError):
        build_store(FakeEncoder(), FakeSource(), tmp_path / "notes.txt" / "store")
    with pytest.raises(UsageError, match="bfloat16"):
        build_store(FakeEncoder(), FakeSource(), tmp_path / "new", dtype="bfloat16")
    with pytest.raises(StoreError, match="no such folder"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        open_store(tmp_path)


def test_duplicate_shard_names_are_refused(tmp_path: Path) -> None:
    class Same(FakeSource):
        def shards(self) -> Any:
            return [*super().shards(), *super().shards()]

    with pytest.raises(DataError, match="two shards have the name 000000"):
        build_store(FakeEncoder(), Same(), tmp_path)


def test_progress_bar_estimates_time_without_counting_images(tmp_path: Path) -> None:
    messages: list[str] = []

    class Bar(type(NO_PROGRESS)):  # type: ignore[misc]
        def note(self, text: str) -> None:
            messages.append(text)

    class Tars(FakeSource):
        def shards(self) -> Any:
            return [replace(shard, rows=None) for shard in super().shards()]

        def read(self, shard: Any, *, images: bool = True) -> Any:
            return super().read(replace(shard, rows=3), images=images)

    build_store(FakeEncoder(), Tars(counts=(3,) * 9), tmp_path / "tars", progress=Bar())
    assert any(re.fullmatch(r"\d+:\d\d left, device idle \d+%", text) for text in messages)
    messages.clear()
    build_store(FakeEncoder(), FakeSource(counts=(3,) * 9), tmp_path / "known", progress=Bar())
    assert all(re.fullmatch(r"device idle \d+%", text) for text in messages)  # the bar itself knows


def test_report_breaks_down_the_time(tmp_path: Path) -> None:
    report = build_store(FakeEncoder(delay=0.01), FakeSource(), tmp_path, batch_size=4)
    assert set(report.seconds) == {"decode", "embed", "wait", "write", "total"}
    assert report.seconds["embed"] >= 0.03
    assert report.images_per_s == pytest.approx(12 / report.seconds["total"])
    assert report.timings["images_per_s"] == report.images_per_s
    assert report.device_idle == pytest.approx(
        1 - report.seconds["embed"] / report.seconds["total"], abs=1e-6
    )
    # The entries tell the same of each shard; together they are the whole build.
    entries = open_store(tmp_path).entries
    assert all(set(e.seconds) == {"decode", "embed", "elapsed", "wait"} for e in entries)
    assert sum(e.seconds["embed"] for e in entries) == pytest.approx(
        report.seconds["embed"], abs=1e-4
    )
    assert sum(e.seconds["elapsed"] for e in entries) <= report.seconds["total"]


def test_remedy_matches_the_reason_if_nothing_is_readable(tmp_path: Path) -> None:
    source = FakeSource(counts=(2,), corrupt=frozenset({"tile-000000", "tile-000001"}))
    with pytest.raises(DataError, match="none of 2 images could be read") as raised:
        build_store(FakeEncoder(), source, tmp_path / "store")
    assert "data verify" in str(raised.value) and "--force" not in str(raised.value)
    source = FakeSource(counts=(1,), unreadable=frozenset({"tile-000000"}))
    denied = [Skipped("tile-000000", "a.png", "cannot be read (Permission denied)")]
    source.read = lambda shard, *, images=True: iter(denied)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="Permission denied") as raised:
        build_store(FakeEncoder(), source, tmp_path / "denied")
    assert "run again with --force" in str(raised.value)


def test_reordered_sources_are_reported(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, seeds in zip(folders, ((1, 2), (3, 4)), strict=True):
        folder.mkdir()
        for seed in seeds:
            (folder / f"{folder.name}{seed}.png").write_bytes(png_bytes(seed))
    build_store(FakeEncoder(), open_sources(folders), tmp_path / "store")
    with pytest.raises(StoreMismatchError, match="in this order"):
        build_store(FakeEncoder(), open_sources(folders[::-1]), tmp_path / "store")


@pytest.mark.parametrize(("part", "remedy"), [((3, 2), "from 1/2 to 2/2"), ((1, 0), "at least 1")])
def test_part_that_does_not_exist(tmp_path: Path, part: tuple[int, int], remedy: str) -> None:
    with pytest.raises(UsageError, match=f"does not exist\n.*{remedy}"):
        build_store(FakeEncoder(), FakeSource(), tmp_path, part=part)
