"""Merging of hits that are near each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.errors import UsageError
from marsretrieval.geo import great_circle_deg
from marsretrieval.search import Hits


def hits_at(positions: list[tuple[float | None, float | None]]) -> Hits:
    count = len(positions)
    return Hits(
        scores=np.linspace(1, 0, count, dtype=np.float32),
        ids=[f"t{number}" for number in range(count)],
        lon=[lon for lon, _ in positions],
        lat=[lat for _, lat in positions],
        sources=["s.tar:x.png"] * count,
        shapes=[None] * count,
        about={"text": "x"},
    )


def merged_rows(hits: Hits) -> list[tuple[int, str, int | None]]:
    return [(hit.rank, hit.id, hit.tiles) for hit in hits]


def test_best_tile_represents_the_cluster() -> None:
    hits = hits_at([(10, 0), (50, 0), (10.4, 0), (9.6, 0), (10.9, 0), (None, None), (None, None)])
    merged = hits.merge(0.5)
    expected = [(1, "t0", 3), (2, "t1", 1), (3, "t4", 1), (4, "t5", 1), (5, "t6", 1)]
    assert merged_rows(merged) == expected
    assert merged.about == {"text": "x", "merge_deg": 0.5}
    assert [hit.score for hit in merged] == sorted((hit.score for hit in merged), reverse=True)
    assert merged_rows(merged.merge(1)) == [(1, "t0", 4), (2, "t1", 1), (3, "t5", 1), (4, "t6", 1)]
    assert hits[0].tiles is None and hits[-1].id == "t6"


def test_over_the_antimeridian_and_at_the_pole() -> None:
    assert merged_rows(hits_at([(-179.9, 0), (179.9, 0)]).merge(0.21)) == [(1, "t0", 2)]
    assert merged_rows(hits_at([(0, 89.9), (180, 89.9), (90, 89.9)]).merge(0.2001)) == [
        (1, "t0", 3)
    ]
    assert len(hits_at([]).merge(1)) == 0


positions = st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), max_size=25)


@given(positions, st.floats(0.1, 60))
def test_laws(lonlats: list[Any], deg: float) -> None:
    hits = hits_at(lonlats)
    merged = hits.merge(deg)
    assert sum(merged.tiles or []) == len(hits)
    best = [(hit.lon, hit.lat) for hit in merged]
    for index, (lon, lat) in enumerate(best):
        for other in best[:index]:
            assert great_circle_deg(lon, lat, *other) > deg * (1 - 1e-9)
    for lon, lat in lonlats:  # every hit is near a place
        assert min(float(great_circle_deg(lon, lat, *item)) for item in best) <= deg * (1 + 1e-9)
    if lonlats:
        assert merged[0].id == "t0"


@pytest.mark.parametrize("deg", [0, -1, 181, float("nan")])
def test_wrong_distances(deg: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        hits_at([(0, 0)]).merge(deg)


@pytest.mark.parametrize(
    ("source", "lon", "lat", "quad"),
    [
        ("E-180_N-04.tar:E_179_8_N_1_2.png", -179.7, -1.1, "E-180_N-04"),
        ("/data/MurrayLab_CTX_V01_E137_N4.tif", 0, 0, "E000_N00"),
        ("B01_009958_1524_XI_E-004_N-04.tif", None, None, None),
        ("000000.tar:E137_2_N_4_6.png", 137.3, -4.5, "E136_N-08"),
        ("000000.tar:E137_2_N_4_6.png", None, None, None),
        ("tiles/x.png", 10, 89, None),
    ],
)
def test_quads(source: str, lon: float | None, lat: float | None, quad: str | None) -> None:
    hits = hits_at([(lon, lat)])
    hits.sources[0] = source
    assert hits[0].quad == quad
    assert list(hits[0].record()) == ["rank", "score", "id", "lon", "lat", "quad", "source"]
