"""Tiles by id and by position."""

from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import UsageError
from marsretrieval.geo import tile_name
from marsretrieval.search import SearchIndex, make_index, parse_lonlat, row_at, rows_of
from marsretrieval.search.index.find import known_of
from tests.search.places import make_store

CORNERS = [(137.2, 4.6), (137.4, 4.6), (179.8, -4.0), (-180.0, -4.0), (-0.2, 79.8), (0.0, 79.8)]
NAMES = [tile_name(*corner) for corner in CORNERS]


@pytest.fixture(scope="module", params=["store", "view"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> EmbeddingStore:
    positions = [(lon + 0.1, lat + 0.1, 0.2) for lon, lat in CORNERS]
    made = make_store(tmp_path_factory.mktemp("tiles") / "store", positions, NAMES)
    if request.param == "view":
        make_index(made)
    assert isinstance(known_of(made), SearchIndex) == (request.param == "view")
    return made


def test_by_id(store: EmbeddingStore) -> None:
    assert rows_of(store, NAMES[::-1]).tolist() == [5, 4, 3, 2, 1, 0]
    assert rows_of(store, [f"{NAMES[2]}.png", f"{NAMES[1]}.JPG"]).tolist() == [2, 1]
    assert rows_of(store, []).tolist() == []


def test_unknown_ids_get_the_nearest(store: EmbeddingStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean E137_4_N4_6 or E137_2_N4_6"):
        rows_of(store, ["E137_6_N4_6"])
    with pytest.raises(UsageError, match="Did you mean E179_8_N_4_0 or E_180_0_N_4_0"):
        rows_of(store, ["E179_6_N_4_0"])
    named = make_store(tmp_path / "named", [(1.0, 1.0, 0.2)] * 2, ["crater-a.1", "dune-b"])
    with pytest.raises(UsageError, match=r"Did you mean crater-a\.1\?"):
        rows_of(named, ["crater-a"])
    with pytest.raises(UsageError, match=r"List the ids with `marsretrieval search --json`"):
        rows_of(named, ["xyz"])


@pytest.mark.parametrize("name", ["177.3,-1.1", "-177, 0"])
def test_a_position_is_not_an_id(store: EmbeddingStore, name: str) -> None:
    with pytest.raises(UsageError, match=r"position, not an id: .*--similar-to-location=LON,LAT"):
        rows_of(store, [name])
    with pytest.raises(UsageError, match=r"similar_to_location=\(lon, lat\)"):
        rows_of(store, [177.3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("lon", "lat", "row"),
    [
        (137.25, 4.79, 0),
        (137.45, 4.61, 1),
        (179.95, -3.9, 2),
        (-179.95, -3.9, 3),
        (180.05, -3.9, 3),
        (359.9, 79.99, 4),
        (0.19, 79.81, 5),
    ],
)
def test_by_position(store: EmbeddingStore, lon: float, lat: float, row: int) -> None:
    assert row_at(store, lon, lat) == row


def test_the_tile_that_holds_it_need_not_have_the_nearest_centre(tmp_path: Path) -> None:
    large_and_small = make_store(tmp_path / "sizes", [(10.0, 10.0, 4.0), (12.5, 10.0, 0.2)])
    assert row_at(large_and_small, 11.9, 10.0) == 0
    assert row_at(large_and_small, 12.45, 10.0) == 1
    # Circles of longitude are shorter to the north: so near the corner its centre is the nearer.
    rows = make_store(tmp_path / "rows", [(10.1, 60.1, 0.2), (10.1, 60.3, 0.2)])
    assert row_at(rows, 10.199, 60.19999) == 0


def test_positions_without_a_tile(store: EmbeddingStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The nearest is E137_4_N4_6 at 137\.5,4\.7, 0\.29"):
        row_at(store, 137.8, 4.7)
    with pytest.raises(UsageError, match="not a position on Mars"):
        row_at(store, 10, 95)
    points = make_store(tmp_path / "points", [(10.0, 10.0, None), (None, None, None)])
    assert row_at(points, 10.3, 10.3) == 0
    with pytest.raises(UsageError, match="The nearest is tile-000000"):
        row_at(points, 11, 10)
    nowhere = make_store(tmp_path / "nowhere", [(None, None, None)])
    with pytest.raises(UsageError, match="known position"):
        row_at(nowhere, 0, 0)


def test_parsing_positions() -> None:
    assert parse_lonlat("137.4,-4.6") == (137.4, -4.6)
    for wrong in ("137.4", "a,b", "1,2,3"):
        with pytest.raises(UsageError, match="is not a position"):
            parse_lonlat(wrong)
