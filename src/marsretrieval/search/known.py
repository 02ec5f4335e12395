"""Compare hits with a catalogue of known features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval import geo
from marsretrieval.errors import UsageError
from marsretrieval.search.hits import KNOWN_KM, Hit, Hits, count_known

if TYPE_CHECKING:
    from marsretrieval.datasets.ground_truth import Points

_MAX_KM = np.pi * geo.MARS_RADIUS_M / 1000
_KM_DECIMALS = 3
_MAX_NAME = 28


def compare_with_catalogue(hits: Hits, catalogue: Points, *, km: float = KNOWN_KM) -> Hits:
    """Find the nearest feature of a catalogue for each hit.

    Distances are great circles on the sphere of Mars (radius 3,396.19 km) from the centre of the
    hit's tile; of two features at the same distance, the first of the catalogue is the nearest.

    Args:
        hits: Hits, merged or not.
        catalogue: Known features.
        km: Largest distance of a known hit in kilometres.

    Returns:
        The hits with `nearest_name`, `nearest_km` and `known`, None for hits without a position,
        and the counts in `about["against"]`.

    Raises:
        UsageError: If the distance is invalid.
    """
    check_known_km(km)
    from scipy.spatial import cKDTree

    lon = np.array([np.nan if value is None else value for value in hits.lon], np.float64)
    lat = np.array([np.nan if value is None else value for value in hits.lat], np.float64)
    located = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
    names: list[str | None] = [None] * len(hits)
    distances: list[float | None] = [None] * len(hits)
    known: list[bool | None] = [None] * len(hits)
    if located.size:
        tree = cKDTree(geo.unit_vectors(catalogue.lon, catalogue.lat))
        chord, _ = tree.query(geo.unit_vectors(lon[located], lat[located]))
        # Candidates within rounding of the least chord, so that ties go to the first feature.
        near = tree.query_ball_point(
            geo.unit_vectors(lon[located], lat[located]), chord + 1e-12, return_sorted=True
        )
        feature = np.array([numbers[0] for numbers in near], np.int64)
        degrees = geo.great_circle_deg(
            lon[located], lat[located], catalogue.lon[feature], catalogue.lat[feature]
        )
        kilometres = np.radians(degrees) * geo.MARS_RADIUS_M / 1000
        for index, number, distance in zip(
            located.tolist(), feature.tolist(), kilometres.tolist(), strict=True
        ):
            names[index] = catalogue.names[number] if catalogue.names else str(number + 1)
            distances[index] = round(distance, _KM_DECIMALS)
            known[index] = bool(distance <= km)
    against = {
        **catalogue.to_dict(),
        "file": None if catalogue.source is None else str(catalogue.source),
        "km": float(km),
        **count_known(known),
    }
    return replace(
        hits,
        nearest_name=names,
        nearest_km=distances,
        known=known,
        about={**hits.about, "against": against},
    )


def check_known_km(km: float) -> None:
    """Check the largest distance of a known hit.

    Args:
        km: Distance in kilometres.

    Raises:
        UsageError: If it is not above 0 and at most half the circumference of Mars.
    """
    if not (np.isfinite(km) and 0 < km <= _MAX_KM):
        raise UsageError(
            f"known hits within {km:g} km", remedy="Give a distance above 0, such as 10 km."
        )


def describe_nearest(hit: Hit) -> str:
    """Describe the nearest known feature of a hit for a terminal.

    Args:
        hit: A hit compared with a catalogue, or not.

    Returns:
        "known", the distance and the feature; empty if not compared.
    """
    if hit.nearest_km is None or hit.nearest_name is None:
        return ""
    name = hit.nearest_name
    name = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 3] + "..."
    return f"  {'known' if hit.known else 'new':<5} {hit.nearest_km:8,.1f} km from {name}"


def describe_known(hits: Hits) -> str:
    """Describe how many hits are known.

    Args:
        hits: Hits compared with a catalogue.

    Returns:
        One line; empty if not compared.
    """
    against: dict[str, Any] | None = hits.about.get("against")
    if against is None:
        return ""
    what = "hits" if hits.tiles is None else "places"
    line = (
        f"{against['known']:,} of {len(hits):,} {what} are known (within {against['km']:g} km of "
        f"{against['file'] or 'the catalogue'}), {against['new']:,} new"
    )
    if against["without_position"]:
        line += f", {against['without_position']:,} without a position"
    return line
