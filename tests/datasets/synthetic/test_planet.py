from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marsretrieval import geo
from marsretrieval.datasets.synthetic.planet import (
    SIZES,
    PlantedFeature,
    TerrainRegion,
    cut_quads,
    paint,
    scatter_features,
)
from marsretrieval.datasets.synthetic.registry import BENCHMARK

ACROSS = TerrainRegion(176, -4, 2, 1, {"yardangs": 8, "pitted_cones": 5}, ("mounds",))
HIGH = TerrainRegion(-60, 76, 1, 1, {"pitted_cones": 4}, ("impact_crater",))
PIXELS = 24


def seeded(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(list(entropy))


@pytest.fixture(scope="module")
def across() -> tuple[list[PlantedFeature], np.ndarray, list[PlantedFeature]]:
    """Features of ACROSS, their image, and the painted features; tests must not change them."""
    features = scatter_features(ACROSS, seeded(1))
    return features, *paint(ACROSS, features, PIXELS, seeded(2))


def test_default_planet_covers_difficult_positions() -> None:
    regions = SIZES["default"].regions
    quads = [quad for region in regions for quad in region.quads]
    assert len(quads) == len(set(quads)) == 8
    assert {(176, -4), (-180, -4)} <= set(quads), "adjacent across the antimeridian"
    assert any(south >= 60 for _, south in quads), "one at a high latitude"
    assert all(-80 <= south <= 76 for _, south in quads), "of the published grid"
    planted = [name for region in regions for name in region.clusters]
    assert set(planted) == set(BENCHMARK)


@pytest.mark.parametrize("region", [ACROSS, HIGH], ids=["antimeridian", "high latitude"])
def test_a_feature_changes_the_tile_at_its_position_and_nothing_far_away(
    region: TerrainRegion, across
) -> None:
    if region is ACROSS:
        features, full, drawn = across
    else:
        features = scatter_features(region, seeded(1))
        full, drawn = paint(region, features, PIXELS, seeded(2))
    for index in (0, len(features) // 2, len(features) - 1):
        feature = drawn[index]
        rest = [item for item in features if item.seed != feature.seed]
        without, _ = paint(region, rest, PIXELS, seeded(2))
        changed: set[str] = set()
        for pixels, differs in zip(
            cut_quads(region, full), cut_quads(region, full != without), strict=True
        ):
            west, south, _ = pixels
            rows, columns = np.nonzero(differs[2])
            lon = west + (columns + 0.5) * 4 / differs[2].shape[1]
            lat = south + 4 - (rows + 0.5) * 4 / differs[2].shape[0]
            reach = feature.reach * geo.TILE_DEG * 1.3 + 0.2
            assert (geo.great_circle_deg(lon, lat, feature.lon, feature.lat) < reach).all()
            corners = np.floor(np.stack([lon, lat], axis=1) / 0.2) * 0.2
            changed |= {geo.tile_name(*corner) for corner in np.unique(corners, axis=0).tolist()}
        west, south = np.floor(feature.lon / 0.2) * 0.2, np.floor(feature.lat / 0.2) * 0.2
        assert geo.tile_name(west, south) in changed


def test_features_lie_in_their_quads_and_cross_the_antimeridian() -> None:
    features = scatter_features(ACROSS, seeded(1))
    names = {geo.quad_name(feature.lon, feature.lat) for feature in features}
    assert names == {"E176_N-04", "E-180_N-04"}
    yardangs = [feature.lon for feature in features if feature.landform == "yardangs"]
    assert min(yardangs) < -179, "west of the line in longitude, east of it on the ground"
    assert max(yardangs) > 179
    assert all(-180 <= lon < 180 for lon in yardangs)


def test_features_do_not_overlap() -> None:
    features = scatter_features(SIZES["default"].regions[0], seeded(4))
    for index, one in enumerate(features):
        for other in features[:index]:
            away = np.hypot(one.east - other.east, one.south - other.south)
            if one.landform != other.landform:
                assert away > 0.8 * (one.reach + other.reach)


def test_quad_borders_are_seamless(across) -> None:
    _, image, _ = across
    (_, _, left), (_, _, right) = cut_quads(ACROSS, image)
    around = np.hstack([left[:, -20:], right[:, :20]]).astype(float)
    steps = np.abs(np.diff(around, axis=1)).mean(axis=0)
    others = np.delete(steps, 19)
    assert others.min() * 0.9 < steps[19] < others.max() * 1.1


def test_features_do_not_depend_on_each_other(across) -> None:
    """Each feature has a separate seed: removing one does not change the others."""
    features, _, all_drawn = across
    _, fewer = paint(ACROSS, features[1:], PIXELS, seeded(2))
    assert all_drawn[1:] == fewer
    assert all(feature.size_km > 0.5 for feature in all_drawn)
    assert replace(all_drawn[0], size_km=0.0) == features[0]


def test_some_strips_have_no_data() -> None:
    image, _ = paint(SIZES["tiny"].regions[0], [], 32, seeded(0))
    empty = float((image == 0).mean())
    assert 0 < empty < 0.05
