"""Named features compared with the gazetteer, and their lookup."""

from __future__ import annotations

import csv

import pytest

from marsretrieval.errors import UnknownNameError
from marsretrieval.geo import Box, great_circle_deg
from marsretrieval.plotting import feature, features, features_in
from tests.shared import shared_file


def test_the_list_is_tidy() -> None:
    found = features()
    assert 100 <= len(found) == len({each.name for each in found})
    sizes = [each.diameter_km for each in found]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0
    for each in found:
        assert -180 <= each.lon < 180 and -90 <= each.lat <= 90
        assert each.name == each.name.strip() and each.type[0].isupper()


def test_positions_are_those_of_the_gazetteer() -> None:
    rows = csv.DictReader(
        shared_file("marsdata/catalogues/iau_mars_nomenclature.csv").read_text().splitlines()
    )
    known: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        known.setdefault(row["name"], []).append((float(row["lon_180"]), float(row["lat"])))
    missing = [each.name for each in features() if each.name not in known]
    assert missing == ["Ma'adim Vallis"]  # that copy of the gazetteer has lost it
    for each in features():
        for lon, lat in known.get(each.name, [])[:1]:
            assert great_circle_deg(each.lon, each.lat, lon, lat) < 0.15, each.name


def test_features_in_a_box() -> None:
    gale = feature(" gale ")
    assert (gale.name, gale.type) == ("Gale", "Crater")
    with pytest.raises(UnknownNameError, match="Did you mean Jezero"):
        feature("Jezro")
    assert [each.name for each in features_in(Box(135, -7, 140, -4))] == ["Gale", "Aeolis Mons"]
    across = {each.name for each in features_in(Box(170, -60, -170, 60))}
    assert {"Gusev", "Lucus Planum", "Arcadia Planitia"} <= across and "Gale" not in across
