"""Named features compared with the gazetteer, and their lookup."""

from __future__ import annotations

import csv

import pytest

from marsretrieval.errors import UnknownNameError
from marsretrieval.geo import Box, great_circle_deg
from marsretrieval.plotting import feature, features, features_in
from tests.shared import shared_file


def test_the_list_is_tidy() -> None:
    feature_list = features()
    assert 100 <= len(feature_list) == len({item.name for item in feature_list})
    sizes = [item.diameter_km for item in feature_list]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0
    for item in feature_list:
        assert -180 <= item.lon < 180 and -90 <= item.lat <= 90
        assert item.name == item.name.strip() and item.type[0].isupper()


def test_positions_are_those_of_the_gazetteer() -> None:
    rows = csv.DictReader(
        shared_file("marsdata/catalogues/iau_mars_nomenclature.csv").read_text().splitlines()
    )
    gazetteer: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        gazetteer.setdefault(row["name"], []).append((float(row["lon_180"]), float(row["lat"])))
    missing = [item.name for item in features() if item.name not in gazetteer]
    assert missing == ["Ma'adim Vallis"]  # that copy of the gazetteer has lost it
    for item in features():
        for lon, lat in gazetteer.get(item.name, [])[:1]:
            assert great_circle_deg(item.lon, item.lat, lon, lat) < 0.15, item.name


def test_features_in_a_box() -> None:
    gale = feature(" gale ")
    assert (gale.name, gale.type) == ("Gale", "Crater")
    with pytest.raises(UnknownNameError, match="Did you mean Jezero"):
        feature("Jezro")
    assert [item.name for item in features_in(Box(135, -7, 140, -4))] == ["Gale", "Aeolis Mons"]
    across = {item.name for item in features_in(Box(170, -60, -170, 60))}
    assert {"Gusev", "Lucus Planum", "Arcadia Planitia"} <= across and "Gale" not in across
