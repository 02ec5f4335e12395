"""A search index gives the results of an exhaustive search, or is not used."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.embeddings import EmbeddingStore, open_store
from marsretrieval.errors import OutputError, StoreError, UsageError
from marsretrieval.geo import Area, Box
from marsretrieval.search import (
    Hits,
    SearchIndex,
    SearchIndexWarning,
    drop_index,
    exact_topk,
    make_index,
    open_index,
    scan,
    score_all,
    topk,
    verify_index,
)
from marsretrieval.search.index import FORMAT, build, find
from tests.search.stores import unit, write_store

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ("numpy", "numkong", "torch")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def planets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep each store that `planet` writes, since copies are faster."""
    PLANETS["folder"] = tmp_path_factory.mktemp("planets")
    yield
    PLANETS.clear()


PLANETS: dict[str, Path] = {}


def planet(folder: Path, *, rows: int = 3000, dimension: int = 24, dtype: Any = np.float16) -> Any:
    """Write a store with duplicates, and rows without a position, at the poles and the
    antimeridian."""
    original = PLANETS["folder"] / f"{rows}-{dimension}-{np.dtype(dtype)}"
    if not original.exists():
        write_planet_store(original, rows, dimension, dtype)
    # The files get the present time.
    shutil.copytree(original, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return open_store(folder)


def write_planet_store(folder: Path, rows: int, dimension: int, dtype: Any) -> None:
    rng = np.random.default_rng(rows)
    vectors = unit(rng.standard_normal((rows, dimension)) + 0.5, dtype)
    vectors[1::7] = vectors[::7][: len(vectors[1::7])]
    lon, lat = rng.uniform(-180, 180, rows), rng.uniform(-90, 90, rows)
    lon[::11], lat[5::50], lat[6::50], lon[7::50] = np.nan, 90.0, -90.0, -180.0
    lat[::11] = np.nan
    names = [f"{number:05d}" for number in rng.permutation(rows)]
    write_store(folder, vectors, lon=lon, lat=lat, names=names, shard_rows=170)


def queries(dimension: int = 24, count: int = 3) -> Any:
    return unit(np.random.default_rng(1).standard_normal((count, dimension)), np.float32)


def assert_same(actual: Any, expected: Any) -> None:
    np.testing.assert_array_equal(actual.rows, expected.rows)
    np.testing.assert_array_equal(actual.scores, expected.scores)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_index_results_equal_an_exhaustive_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str, dtype: Any
) -> None:
    if kernel != "numpy":
        pytest.importorskip(kernel)
    if kernel == "torch":
        from marsretrieval.search import kernels

        monkeypatch.setitem(kernels._ready, "torch", kernels.TorchKernel("cpu"))
    monkeypatch.setattr(scan, "_SHORT_ROWS", 64)
    monkeypatch.setattr(scan, "_LONG_ROWS", 300)
    monkeypatch.setattr(topk, "_SLACK", 20)
    store = planet(tmp_path / "store", dtype=dtype)
    view = make_index(store)
    for options in (
        {"k": 1},
        {"k": 100},
        {"k": 2999},
        {"k": 9999},
        {"k": None, "min_score": 0.2},
        {"k": 50, "min_score": 0.55},
        {"k": 5, "min_score": 2.0},
        {"k": 200, "region": Box(170, -95 + 5, -150, 60)},
        {"k": 200, "region": Box(-180, 60, 180, 90)},
        {"k": None, "min_score": -1.0, "region": Box(0, 0, 1, 1)},
        {"k": 3, "region": Box(20.01, 20.01, 20.02, 20.02)},
    ):
        plain = exact_topk(store, queries(), index="ignore", **options)  # type: ignore[arg-type]
        assert_same(exact_topk(view, queries(), kernel=kernel, **options), plain)  # type: ignore[arg-type]
        assert_same(exact_topk(store, queries(), kernel=kernel, **options), plain)  # type: ignore[arg-type]


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 60),
    dimension=st.integers(1, 20),
    distinct=st.sampled_from([1, 2, 7, 1000]),
    k=st.integers(1, 70),
    spread=st.sampled_from([0.0, 1e-4, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_ties_and_near_ties(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rows: int,
    dimension: int,
    distinct: int,
    k: int,
    spread: float,
) -> None:
    rng = np.random.default_rng(seed)
    kinds = unit(
        rng.standard_normal(dimension) + spread * rng.standard_normal((distinct, dimension))
    )
    names = [f"{number:03d}" for number in rng.permutation(rows)]
    folder = tmp_path_factory.mktemp("ties")
    store = write_store(folder, kinds[rng.integers(0, distinct, rows)], names=names, shard_rows=13)
    query_vectors = unit(rng.standard_normal((2, dimension)), np.float32)
    view = make_index(store)
    assert_same(
        exact_topk(view, query_vectors, k), exact_topk(store, query_vectors, k, index="ignore")
    )
    assert view.ids(range(rows)) == store.ids(range(rows))
    np.testing.assert_array_equal(
        score_all(view, query_vectors[0]), score_all(store, query_vectors[0])
    )
    shutil.rmtree(folder)


def test_results_equal_faiss(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    vectors = unit(np.random.default_rng(2).standard_normal((5000, 64)), np.float32)
    view = make_index(write_store(tmp_path / "store", vectors))
    index = faiss.IndexFlatIP(64)
    index.add(vectors)
    scores, rows = index.search(queries(64), 500)
    result = exact_topk(view, queries(64), 500)
    for query in range(3):
        assert set(result.rows[query]) == set(rows[query])
    np.testing.assert_allclose(result.scores, scores, atol=1e-6)


def test_index_is_a_permutation_of_the_store(tmp_path: Path) -> None:
    store = planet(tmp_path / "store")
    view = make_index(store)
    assert (view.rows, view.dimension) == (store.rows, store.dimension)
    np.testing.assert_array_equal(view.positions(), store.positions())
    numbers = [2999, 0, 17, 17]
    np.testing.assert_array_equal(view.vectors(numbers), store.vectors(numbers))
    assert view.ids(numbers) == store.ids(numbers)
    np.testing.assert_array_equal(view.extents(), store.extents())
    for rows in (numbers, [], np.arange(3000)[::-1]):
        actual, expected = view.take(rows), store.take(rows)
        for name in ("ids", "sources", "lon", "lat", "width_deg", "height_deg"):
            np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
    for name in ("00000", "02999", "2999", "029990", "x"):
        assert view.find(name) == store.find(name)
    np.testing.assert_array_equal(
        np.concatenate([block.vectors for block in view.blocks()]), store.vectors(range(3000))
    )
    for band in range(181):
        here = view.lon[view.starts[band] : view.starts[band + 1]]
        assert band == 180 or (np.diff(here) >= 0).all()


def test_small_and_incomplete_stores_get_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planet(tmp_path / "store")
    exact_topk(store, queries(), 5)
    assert not (store.path / "view").exists()
    monkeypatch.setattr(find, "_MIN_VALUES", 1)
    exact_topk(store, queries(), 5, index="use")
    exact_topk(store, queries(), 5, index="ignore")
    assert not (store.path / "view").exists()
    (store.path / "shards" / "000003.json").unlink()
    exact_topk(open_store(store.path), queries(), 5)
    assert not (store.path / "view").exists()
    complete = planet(tmp_path / "other")
    exact_topk(complete, queries(), 5)
    assert (complete.path / "view").is_dir()


def test_changed_store_gets_another_index(tmp_path: Path) -> None:
    before = planet(tmp_path / "store")
    make_index(before)
    shutil.rmtree(tmp_path / "store" / "shards")
    after = planet(tmp_path / "store", rows=2000)
    view = open_index(after.path)
    assert view is not None and view.rows == 2000
    assert_same(exact_topk(view, queries(), 30), exact_topk(after, queries(), 30, index="ignore"))
    assert [path.name for path in (after.path / "view").iterdir() if path.is_dir()] == [
        view.fingerprint
    ]


def test_stamp_avoids_reading_entries_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planet(tmp_path / "store")
    monkeypatch.setattr(find, "_SETTLED_SECONDS", -1.0)
    first = open_index(store.path)
    assert first is not None

    def no_entries(*_: Any) -> Any:
        raise AssertionError("the entries were read")

    with monkeypatch.context() as patched:
        patched.setattr("marsretrieval.embeddings.open_store", no_entries)
        assert open_index(store.path).fingerprint == first.fingerprint  # type: ignore[union-attr]
    shutil.copy(store.path / "shards" / "000000.json", tmp_path / "entry")
    (store.path / "shards" / "000000.json").unlink()
    fewer = open_index(store.path)
    assert fewer is not None and fewer.rows == 3000 - 170
    shutil.copy(tmp_path / "entry", store.path / "shards" / "000000.json")
    again = open_index(store.path)
    assert again is not None and again.fingerprint == first.fingerprint
    assert open_index(store.path, build=False) is not None


def test_a_store_that_was_just_written_is_not_stamped(tmp_path: Path) -> None:
    store = planet(tmp_path / "store")
    assert open_index(store.path) is not None
    assert not (store.path / "view" / "stamp.json").exists()


@pytest.mark.parametrize("damage", ["short", "gone", "header", "format", "shape"])
def test_damaged_index_is_never_used_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(find, "_MIN_VALUES", 1)
    store = planet(tmp_path / "store")
    folder = make_index(store).path
    if damage == "short":
        with (folder / "plane.npy").open("r+b") as file:
            file.truncate(1000)
    elif damage == "gone":
        (folder / "error.npy").unlink()
    elif damage == "header":
        (folder / "header.json").write_text("{")
    elif damage == "format":
        header = (folder / "header.json").read_text()
        (folder / "header.json").write_text(header.replace(f'"format": {FORMAT}', '"format": 0'))
    else:
        size = (folder / "scale.npy").stat().st_size
        np.save(folder / "scale.npy", np.zeros(3000, np.int32))
        assert (folder / "scale.npy").stat().st_size == size
    fresh = open_store(store.path)
    plain = exact_topk(fresh, queries(), 40, index="ignore")
    with pytest.warns(SearchIndexWarning, match="not used"):
        assert_same(exact_topk(fresh, queries(), 40), plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was made anew
        assert_same(exact_topk(open_store(store.path), queries(), 40), plain)
        assert isinstance(open_index(store.path), SearchIndex)


def test_verify_detects_a_flipped_byte_and_rebuilds_the_index(tmp_path: Path) -> None:
    store = planet(tmp_path / "store")
    folder = make_index(store).path
    assert verify_index(store.path) == []
    with (folder / "plane.npy").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    assert "plane.npy" in verify_index(store.path)[0]
    assert not folder.exists()
    assert verify_index(store.path) == []


def test_inconsistent_index_is_detected_by_exact_scores(tmp_path: Path) -> None:
    """Damage that preserves the file size is detected by a search, since the bounds do not hold."""
    store = planet(tmp_path / "store")
    folder = make_index(store).path
    plane = np.load(folder / "plane.npy", mmap_mode="r+")
    plane[:] = np.random.default_rng(0).integers(-127, 128, plane.shape)
    plane.flush()
    with pytest.raises(StoreError, match="damaged"):
        exact_topk(open_store(store.path), queries(), 40)
    assert open_index(store.path, build=False) is None
    assert exact_topk(open_store(store.path), queries(), 40).rows.shape == (3, 40)


@pytest.mark.parametrize("name", ["ids.txt", "sources.txt", "row_of.npy", "source_of.npy"])
def test_index_with_invalid_offsets_is_named(tmp_path: Path, name: str) -> None:
    store = planet(tmp_path / "store")
    folder = make_index(store).path
    with (folder / name).open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\x7f" * ((folder / name).stat().st_size // 2 - 100))
    damaged = open_store(store.path)
    with pytest.raises(StoreError, match="store verify"):
        Hits.from_ranking(damaged, exact_topk(damaged, queries(), 3000))
    assert name in verify_index(store.path)[0]
    assert len(Hits.from_ranking(store, exact_topk(open_store(store.path), queries(), 9))) == 9


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed")
def test_open_index_may_be_replaced_by_another_process(tmp_path: Path) -> None:
    make_index(planet(tmp_path / "store"))
    held = open_store(tmp_path / "store")
    ranking = exact_topk(held, queries(), 5)
    shutil.rmtree(tmp_path / "store" / "view")
    hits = Hits.from_ranking(held, ranking)
    assert hits.ids == held.ids(ranking.rows[0]) and hits.sources[0].endswith(".tar")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_read_only_store_has_its_index_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_MIN_VALUES", 1)
    store = planet(tmp_path / "store")
    (store.path / "view").write_text("in the way, as a folder without permission would be")
    plain = exact_topk(store, queries(), 9, index="ignore")
    assert_same(exact_topk(store, queries(), 9), plain)
    view = open_index(store.path, build=False)
    assert view is not None and view.path.is_relative_to(tmp_path / "cache")
    assert drop_index(store.path) > 0 and open_index(store.path, build=False) is None
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way, too")
    with pytest.warns(SearchIndexWarning, match="slower"):
        assert_same(exact_topk(open_store(store.path), queries(), 9), plain)
    with pytest.raises(OutputError, match="cannot be written"):
        open_index(store.path)


def test_full_disk_is_reported_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planet(tmp_path / "store")
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match=r"needs .* bytes, 0 are free"):
        make_index(store)
    assert not list((store.path / "view").glob(".*.tmp"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.9])
def test_vectors_that_are_not_of_unit_length_are_refused(tmp_path: Path, wrong: float) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((300, 8)))
    vectors[123] = [0.6, 0.8, 0, 0, wrong, 0, 0, 0]
    store = write_store(tmp_path / "store", vectors)
    with pytest.raises(StoreError, match="'0000123' is not of unit length"):
        make_index(store)
    assert not list((store.path / "view").glob(".*.tmp"))


BUILD = """
import sys, time
from pathlib import Path
from marsretrieval.embeddings import open_store
from marsretrieval.search import make_index
from marsretrieval.search.index import build
slow = build.quantize_rows
def quantize_rows(*a):
    time.sleep(0.2)
    return slow(*a)
build.quantize_rows = quantize_rows
make_index(open_store(Path(sys.argv[1])))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_build_leaves_no_usable_index(tmp_path: Path) -> None:
    store = planet(tmp_path / "store")
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(store.path)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list((store.path / "view").glob(".*.tmp/plane.npy")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    assert open_index(store.path, build=False) is None
    with pytest.raises(OutputError, match="another process"):
        make_index(store, wait=False)
    process.kill()
    process.wait()
    assert list((store.path / "view").glob(".*.tmp"))
    view = make_index(store, wait=False)
    assert not list((store.path / "view").glob(".*.tmp"))
    assert_same(exact_topk(view, queries(), 40), exact_topk(store, queries(), 40, index="ignore"))


def test_usage_errors(tmp_path: Path) -> None:
    view = make_index(planet(tmp_path / "store"))
    for wrong, message in (
        ({"k": 0}, "at least 1"),
        ({"k": None}, "min_score"),
        ({"k": 1, "min_score": float("nan")}, "not a number"),
        ({"k": 1, "min_score": -float("inf")}, "not a number"),
        ({"k": 1, "kernel": "numpi"}, "numpy"),
    ):
        with pytest.raises(UsageError, match=message):
            exact_topk(view, queries(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NaN"):
        exact_topk(view, queries() * np.nan, 1)
    for use in (open_index, drop_index):
        with pytest.raises(StoreError, match="no embedding store"):
            use(tmp_path)


def test_removing_an_index_removes_nothing_else(tmp_path: Path) -> None:
    store = planet(tmp_path / "store")
    size = make_index(store).bytes
    (store.path / "view" / "notes").mkdir()
    assert drop_index(store.path) > size
    assert [path.name for path in (store.path / "view").iterdir()] == ["notes"]
    assert drop_index(store.path) == 0


def test_nothing_behind_a_link_of_a_store_is_removed(tmp_path: Path) -> None:
    store = planet(tmp_path / "store")
    elsewhere = tmp_path / "elsewhere"
    for name in (".kept.tmp", "kept"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "header.json").write_text("{}")
    (store.path / "view").symlink_to(elsewhere, target_is_directory=True)
    with pytest.warns(SearchIndexWarning, match="a link, which is not followed"):
        view = make_index(store)
    assert view.path.is_relative_to(tmp_path / "cache")
    assert verify_index(store.path) == []
    (view.path.parent / "linked").symlink_to(elsewhere / "kept", target_is_directory=True)
    drop_index(store.path)
    assert not view.path.exists()
    assert sorted(path.name for path in elsewhere.rglob("*")) == sorted(
        [".kept.tmp", "header.json", "header.json", "kept"]
    )


def test_area_filters_with_and_without_an_index(tmp_path: Path) -> None:
    store: EmbeddingStore = planet(tmp_path / "store")
    view = make_index(store)
    ring = [[150, -40], [210, -40], [230, 50], [170, 70], [150, -40]]
    hole = [[170, -10], [190, -10], [190, 10], [170, 10], [170, -10]]
    area = Area.from_geojson({"type": "Polygon", "coordinates": [ring, hole]})
    positions = store.positions()
    inside = np.flatnonzero(area.contains(positions[:, 0], positions[:, 1]))
    assert 50 < len(inside) < 1000
    for source in (view, store):
        result = exact_topk(source, queries(), 5000, region=area, index="ignore")
        assert all(sorted(rows) == inside.tolist() for rows in result.rows)
