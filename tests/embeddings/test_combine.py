"""Tests of merged stores, subsets and several stores read as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from marsretrieval.embeddings import (
    CombinedStore,
    build_store,
    merge_stores,
    open_store,
    subset_store,
    verify_store,
)
from marsretrieval.errors import (
    DataError,
    OutputError,
    StoreError,
    StoreMismatchError,
    UsageError,
)
from marsretrieval.geo import Box
from marsretrieval.search import exact_topk
from tests.fakes import FakeEncoder, FakeSource
from tests.search.places import make_store

Command = Callable[..., Result]

WEST = [(-120.0 + number, 5.0, 0.2) for number in range(6)]
EAST = [(20.0 + number, -5.0, 0.2) for number in range(4)]


@pytest.fixture
def west(tmp_path: Path) -> Path:
    make_store(tmp_path / "west", WEST, [f"w{number}" for number in range(6)])
    return tmp_path / "west"


@pytest.fixture
def east(tmp_path: Path) -> Path:
    make_store(tmp_path / "east", EAST, [f"e{number}" for number in range(4)])
    return tmp_path / "east"


def brute_force(folders: list[Path], k: int) -> list[tuple[float, str]]:
    """The best k rows of all stores in numpy: by score, then id, then store."""
    query = FakeEncoder().encode_texts(["dunes"])[0].astype(np.float64)
    rows = []
    for number, folder in enumerate(folders):
        ids, vectors = open_store(folder).load()
        for name, vector in zip(ids, vectors, strict=True):
            rows.append((-float(np.float32(vector.astype(np.float64) @ query)), name, number))
    return [(-score, name) for score, name, _ in sorted(rows)[:k]]


def test_several_stores_give_one_exact_ranking(west: Path, east: Path) -> None:
    both = CombinedStore([open_store(west), open_store(east)])
    assert (both.rows, both.complete, both.names) == (10, True, ["west", "east"])
    ranking = exact_topk(both, FakeEncoder().encode_texts(["dunes"]), 7)
    scores, rows = ranking.hits(0)
    expected = brute_force([west, east], 7)
    assert both.ids(rows) == [name for _, name in expected]
    np.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-6)
    assert both.store_names(rows) == [
        "west" if n.startswith("w") else "east" for n in both.ids(rows)
    ]
    mask = np.zeros(10, bool)
    mask[rows[0]] = True
    remaining = exact_topk(both, FakeEncoder().encode_texts(["dunes"]), 7, exclude=mask).hits(0)[1]
    assert remaining.tolist()[:6] == rows.tolist()[1:]
    east_box = Box(0, -10, 90, 0)
    inside = exact_topk(both, FakeEncoder().encode_texts(["dunes"]), 7, region=east_box).hits(0)[1]
    assert set(both.ids(inside)) == {"e0", "e1", "e2", "e3"}


def test_an_id_of_two_stores_must_name_its_store(tmp_path: Path, west: Path) -> None:
    make_store(tmp_path / "other", EAST, ["w0", "w1", "x", "y"])
    both = CombinedStore([open_store(west), open_store(tmp_path / "other")])
    with pytest.raises(UsageError, match="tile 'w0' is in 2 stores: west, other"):
        both.find("w0")
    assert (both.find("west:w0"), both.find("other:w0"), both.find("x")) == (0, 6, 8)
    assert both.find("nothing") == both.find("other:nothing") == -1


def test_other_encoders_and_repeated_stores_are_refused(tmp_path: Path, west: Path) -> None:
    class Other(FakeEncoder):
        @property
        def fingerprint(self) -> dict:  # type: ignore[override]
            return {**super().fingerprint, "dtype": "float16"}

    build_store(Other(), FakeSource((3,)), tmp_path / "other")
    with pytest.raises(StoreMismatchError, match=r"dtype: .* in .*west, float16 in .*other"):
        CombinedStore([open_store(west), open_store(tmp_path / "other")])
    with pytest.raises(UsageError, match="given twice"):
        CombinedStore([open_store(west), open_store(west)])


def test_merge_links_the_shards_and_verifies(west: Path, east: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "mars"
    plan = merge_stores([west, east], str(out), dry_run=True)
    assert (plan.rows, plan.shards, plan.linked, plan.written) == (10, 2, 2, False)
    assert not out.exists()
    report = merge_stores([west, east], out)
    assert report.written and not verify_store(out).problems
    merged = open_store(out)
    ids, vectors = merged.load()
    expected = [open_store(folder).load() for folder in (west, east)]
    assert ids == [*expected[0][0], *expected[1][0]]
    np.testing.assert_array_equal(vectors, np.concatenate([part[1] for part in expected]))
    for shard, folder in zip(merged.manifest.shards, (west, east), strict=True):
        original = folder / "shards" / f"{open_store(folder).manifest.shards[0]}.arrow"
        assert original.samefile(out / "shards" / f"{shard}.arrow")
    derived = merged.dataset["derived"]
    assert [source["set_hash"] for source in derived["sources"]] == [
        open_store(folder).set_hash for folder in (west, east)
    ]
    again = merge_stores([west, east], out)
    assert again.exists and not again.written
    with pytest.raises(OutputError, match="exists already"):
        merge_stores([east, west], out)


def test_repeated_ids_are_kept_once_or_refused(west: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "same", WEST, [f"w{number}" for number in range(6)])
    report = merge_stores([west, tmp_path / "same"], tmp_path / "once")
    assert (report.rows, report.duplicates) == (6, 6)
    make_store(tmp_path / "shuffled", EAST, ["w3", "w2", "new", "other"])
    with pytest.raises(DataError, match="2 ids with different vectors in several stores: w3, w2"):
        merge_stores([west, tmp_path / "shuffled"], tmp_path / "out")
    report = merge_stores([west, tmp_path / "shuffled"], tmp_path / "out", prefer="first")
    assert (report.rows, report.duplicates, report.linked) == (8, 2, 1)
    assert not verify_store(tmp_path / "out").problems
    first, merged = open_store(west), open_store(tmp_path / "out")
    np.testing.assert_array_equal(merged.vectors([3]), first.vectors([3]))
    assert merged.load()[0][6:] == ["new", "other"]


def test_a_failed_merge_leaves_nothing(west: Path, east: Path, tmp_path: Path) -> None:
    next((east / "shards").glob("*.arrow")).unlink()
    with pytest.raises(StoreError, match="missing"):
        merge_stores([west, east], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_a_subset_searches_as_the_region_of_the_store(west: Path, tmp_path: Path) -> None:
    box = Box(-118.5, 0, -116.5, 10)
    report = subset_store(west, tmp_path / "part", region=box, options={"bbox": "..."})
    assert (report.rows, report.linked) == (2, 0) and not verify_store(tmp_path / "part").problems
    query = FakeEncoder().encode_texts(["dunes"])
    part, full = open_store(tmp_path / "part"), open_store(west)
    got, want = exact_topk(part, query, 5).hits(0), exact_topk(full, query, 5, region=box).hits(0)
    assert part.ids(got[1]) == full.ids(want[1])
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(part.positions(), full.positions()[[2, 3]])
    source = part.dataset["derived"]["sources"][0]
    assert source["set_hash"] == full.set_hash and source["rows"] == 6


def test_subsets_by_id(west: Path, tmp_path: Path) -> None:
    subset_store(west, tmp_path / "two", ids=["w5", "w0"])
    assert open_store(tmp_path / "two").load()[0] == ["w0", "w5"]
    with pytest.raises(DataError, match="lacks 1 of 2 ids: gone"):
        subset_store(west, tmp_path / "no", ids=["w0", "gone"])
    with pytest.raises(DataError, match="no tile in this selection"):
        subset_store(west, tmp_path / "no", region=Box(0, 0, 1, 1))
    with pytest.raises(UsageError, match="Give one of them"):
        subset_store(west, tmp_path / "no")


def test_the_commands(west: Path, east: Path, tmp_path: Path, marsretrieval: Command) -> None:
    out = tmp_path / "mars"
    marsretrieval("store", "merge", west, east, "-o", out, "--dry-run")
    assert not out.exists()
    merged = json.loads(marsretrieval("store", "merge", west, east, "-o", out, "--json").stdout)
    assert (merged["rows"], merged["written"]) == (10, True)
    assert "made before, kept" in marsretrieval("store", "merge", west, east, "-o", out).stdout
    assert "made of" in marsretrieval("store", "info", out).stdout
    part = tmp_path / "part"
    marsretrieval("store", "subset", out, "-o", part, "--bbox=-130,0,-100,10")
    assert json.loads(marsretrieval("store", "verify", part, "--json").stdout)["rows"] == 6
    (tmp_path / "ids.txt").write_text("e0\nw1\n")
    marsretrieval("store", "subset", out, "-o", tmp_path / "ids", "--ids", tmp_path / "ids.txt")
    assert open_store(tmp_path / "ids").rows == 2
    marsretrieval("store", "subset", out, "-o", tmp_path / "x", code=2)
    marsretrieval("store", "merge", west, "-o", tmp_path / "x", code=2)


def test_lists_of_ids_and_folders_that_are_refused(
    west: Path, tmp_path: Path, marsretrieval
) -> None:
    binary = tmp_path / "ids.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, problem in (
        (tmp_path, "a folder, not a list of ids"),
        (binary, "not a text file in UTF-8"),
        (tmp_path / "ids.tx", "no such file"),
    ):
        verb = ("store", "subset", west, "-o", tmp_path / "x", "--ids", path)
        refused = marsretrieval(*verb, code=1).stderr
        assert f"{path}: {problem}" in refused and "Errno" not in refused
    inside = ("store", "subset", west, "-o", west / "part", "--bbox=-180,-90,180,90")
    for option in ((), ("--dry-run",)):
        refused = marsretrieval(*inside, *option, code=1).stderr
        assert f"{west / 'part'}: inside the store" in refused and "outside" in refused
    assert not (west / "part").exists()
