"""Well-known features of Mars by their IAU names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from marsretrieval.errors import UnknownNameError
from marsretrieval.geo import Box

_WIDE = {"Planitia", "Planum", "Terra", "Vastitas", "Undae", "Montes"}
_LONG = {"Fossae", "Mensae", "Montes", "Vallis", "Colles"}


@dataclass(frozen=True, slots=True)
class Feature:
    """A named feature. lon -180..180, lat: its centre, planetocentric degrees, east positive."""

    name: str
    type: str  # Crater, Mons, Planitia, ...
    lon: float
    lat: float
    diameter_km: float

    @property
    def weight(self) -> float:
        """Which names come first on a map: the size, counted fourfold for volcanoes and craters,
        which readers look for, and by a third for what is long and thin."""
        if self.is_round:
            return 4.0 * self.diameter_km
        return self.diameter_km / (3.0 if self.type in _LONG else 1.0)

    @property
    def is_wide(self) -> bool:
        """A landscape without an edge: its name stands across it."""
        return self.type in _WIDE

    @property
    def is_round(self) -> bool:
        return self.type in ("Crater", "Mons", "Tholus", "Patera")


@cache
def features() -> tuple[Feature, ...]:
    """All that come with the package, largest first."""
    text = resources.files("marsretrieval.plotting").joinpath("features.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    found = [
        Feature(
            row["name"],
            row["type"],
            float(row["lon"]),
            float(row["lat"]),
            float(row["diameter_km"]),
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda each: (-each.diameter_km, each.name)))


def features_in(box: Box) -> Sequence[Feature]:
    """Those whose centre lies in `box`, largest first."""
    found = features()
    inside = box.contains([each.lon for each in found], [each.lat for each in found])
    return [each for each, there in zip(found, inside.tolist(), strict=True) if there]


def feature(name: str) -> Feature:
    """One by its name, in any case. Raises UnknownNameError with the nearest names."""
    by_name = {each.name.lower(): each for each in features()}
    found = by_name.get(name.strip().lower())
    if found is None:
        raise UnknownNameError("feature", name, [each.name for each in features()])
    return found
