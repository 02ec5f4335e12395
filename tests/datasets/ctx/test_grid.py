from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval import geo
from marsretrieval.datasets.ctx import (
    Quad,
    TileSpec,
    all_quads,
    parse_quads,
    quads_in,
    select_quads,
    tile_rows,
)
from marsretrieval.errors import UsageError
from tests.shared import shared_file

DELTAS = ["0.2", "0.1", "0.05", "0.25", "0.125", "0.025", "0.5", "0.8", "1", "2", "4", "0.03125"]
QUADS = [Quad(0, 0), Quad(-4, -4), Quad(-80, -180), Quad(0, -180), Quad(76, 176), Quad(-4, 176)]


def tiles(quad: Quad, **spec):
    return [tile for row in tile_rows(quad, TileSpec.of(**spec)) for tile in row]


@pytest.mark.parametrize(
    ("quad", "delta"), [*((quad, "0.2") for quad in QUADS), *((QUADS[2], item) for item in DELTAS)]
)
def test_names_give_the_exact_corner(quad: Quad, delta: str) -> None:
    tiles_of_quad = tiles(quad, delta=delta)
    side = float(delta)
    assert len(tiles_of_quad) == round(4 / side) ** 2
    assert len({tile.name for tile in tiles_of_quad}) == len(tiles_of_quad)
    for tile in tiles_of_quad:
        assert geo.parse_tile_name(f"{tile.name}.png") == (tile.west, tile.south)
        assert abs(tile.east - tile.west - side) <= 1e-12
        assert abs(tile.north - tile.south - side) <= 1e-12
        assert quad.west <= tile.west < tile.east <= quad.west + 4
        assert quad.south <= tile.south < tile.north <= quad.south + 4


def test_names_are_readable_by_the_published_code() -> None:
    golden = json.loads(shared_file("golden/golden.json").read_text())
    cases = next(item["cases"] for item in golden if item["task"] == "tile_name")
    count = 0
    for case in cases:
        lon, lat = case["lonlat"]
        if lon is None or abs(lon * 5 - round(lon * 5)) > 1e-9:
            continue  # not read at all, or not on the grid of 0.2 degrees
        (quad,) = parse_quads(geo.quad_name(lon, lat))
        corners = {tile.name: [tile.west, tile.south] for tile in tiles(quad, delta="0.2")}
        assert corners[case["name"].split("/")[-1].removesuffix(".png")] == [lon, lat]
        count += 1
    assert count >= 6


def test_rows_run_from_the_north_and_columns_from_the_west() -> None:
    rows = tile_rows(Quad(-4, -4), TileSpec())
    assert [len(row) for row in rows] == [20] * 20
    assert rows[0][0].name == "E_4_0_N_0_2"
    assert rows[-1][-1].name == "E_0_2_N_4_0"
    assert (rows[0][-1].east, rows[0][0].north) == (0.0, 0.0)


def test_the_last_column_before_the_antimeridian_ends_at_180() -> None:
    last = tiles(Quad(0, 176), delta="0.2")[19]
    assert (last.name, last.east) == ("E179_8_N3_8", 180.0)
    assert tiles(Quad(0, -180), delta="0.2")[0].name == "E_180_0_N3_8"


@pytest.mark.parametrize("delta", ["0.3", "0.7", "3", "8", "0", "-0.2", "0.005", "nan", "1e99"])
def test_delta_that_does_not_divide_a_quad_is_refused(delta: str) -> None:
    with pytest.raises(UsageError, match="--delta"):
        TileSpec.of(delta)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 100_000}, {"format": "gif"}, {"drop_below": 1.5},
     {"exact": True, "format": "jpeg"}],
)  # fmt: skip
def test_invalid_requests_are_refused(options) -> None:
    with pytest.raises(UsageError):
        TileSpec.of("0.2", **options)


def test_every_option_changes_the_hash() -> None:
    specs = [
        TileSpec(), TileSpec.of("0.1"), TileSpec(size=256), TileSpec(format="jpeg"),
        TileSpec(equal_aspect=True), TileSpec(exact=True), TileSpec(drop_below=0.1),
        TileSpec(clip=geo.Box(0, 0, 1, 1)),
    ]  # fmt: skip
    assert len({spec.hash for spec in specs}) == len(specs)
    assert TileSpec.of("0.20").hash == TileSpec.of(0.2).hash == TileSpec().hash


@given(st.sampled_from(["0.2", "0.1", "0.25", "0.5"]), st.sampled_from(range(-88, 88, 4)))
def test_equal_aspect_tiles_are_nearly_square(delta: str, south: int):
    quad = Quad(south, 8)
    names = set()
    rows = tile_rows(quad, TileSpec.of(delta, equal_aspect=True))
    for row in rows:
        assert (row[0].west, row[-1].east) == (8, 12)
        for left, right in pairwise(row):
            assert left.east == right.west
        for tile in row:
            assert geo.parse_tile_name(f"{tile.name}.png") == (tile.west, tile.south)
            names.add(tile.name)
        tile = row[0]
        shrink = math.cos(math.radians((tile.south + tile.north) / 2))
        fitting = 4 * shrink / float(delta)
        if fitting >= 1:
            width = (tile.east - tile.west) * shrink / float(delta)
            assert abs(math.log(width)) <= math.log(1 + 1 / math.floor(fitting)) + 1e-3
    assert len(names) == sum(map(len, rows))


def test_clip_selects_only_tiles_that_overlap_the_box() -> None:
    box = geo.Box(-0.3, -0.3, 0.3, 0.1)
    names = [tile.name for quad in quads_in(box) for tile in tiles(quad, delta="0.2", clip=box)]
    assert len(names) == len(set(names)) == 4 * 3
    assert set(names) >= {"E_0_4_N_0_4", "E0_2_N0_0", "E_0_2_N_0_2"}


def test_mosaic_has_3960_quads_of_which_the_benchmark_uses_3600() -> None:
    assert len(list(all_quads())) == 3960
    planet = quads_in(geo.Box.parse("-180,-80,180,80"))
    assert len(planet) == 3600
    assert {quad.south for quad in planet} == set(range(-80, 80, 4))


def test_region_selects_overlapping_quads() -> None:
    assert [quad.name for quad in quads_in(geo.Box(175, -1, -175, 1))] == [
        "E-180_N-04", "E-176_N-04", "E172_N-04", "E176_N-04",
        "E-180_N00", "E-176_N00", "E172_N00", "E176_N00",
    ]  # fmt: skip
    assert [quad.name for quad in quads_in(geo.Box(0, 0, 4, 4))] == ["E000_N00"]
    assert {quad.south for quad in quads_in(geo.Box(-180, -30, 180, 30))} == set(range(-32, 32, 4))
    with pytest.raises(UsageError, match="no quad"):
        quads_in(geo.Box(0, 88.5, 4, 90))


def test_quads_by_name() -> None:
    quads = parse_quads("E-004_N-04, E000_N00,E-004_N-04")
    assert [quad.name for quad in quads] == ["E-004_N-04", "E000_N00"]
    assert quads[0].zip_name == "MurrayLab_GlobalCTXMosaic_V01_E-004_N-04.zip"
    assert select_quads(geo.Box(0, 0, 1, 1), quads) == quads
    for text in ("E-4_N-4", "E-003_N-04", "E180_N00", "E000_N88", "", "x"):
        with pytest.raises(UsageError):
            parse_quads(text)
