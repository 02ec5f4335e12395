"""The estimate of an inventory as plain data, from its files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marsretrieval.inventory.audit import Tally, count_answers, is_complete, target_reached
from marsretrieval.inventory.estimates import (
    CONFIDENCE,
    FORMULAS,
    Interval,
    completeness,
    correct_for_misses,
    elusion_limit,
    to_plain,
    wilson_interval,
)
from marsretrieval.inventory.files import Audit, InventoryFiles, Mark, statuses
from marsretrieval.inventory.places import PlaceSizes


def estimate(
    marks: Sequence[Mark],
    audits: Sequence[Audit],
    *,
    population: int,
    place_deg: float,
) -> dict[str, Any]:
    """Estimate the number of positive tiles and places from an inventory's files.

    The latest audit counts; every mark made before it, earlier audits included, is known.

    Args:
        marks: Lines of the log of marks.
        audits: All audits.
        population: Tiles of the store with data.
        place_deg: Positive tiles closer than this belong to one place.

    Returns:
        Plain data: `tiles`, `places`, `recall`, `elsewhere`, `marked`, `domain`, `audited`, ...
    """
    current = statuses(marks, audits)
    marked = {
        value: sum(mark.mark == value for mark in current.values())
        for value in ("yes", "no", "unsure")
    }
    sizes = PlaceSizes.from_marks(
        [mark for mark in current.values() if mark.mark in ("yes", "unsure")], place_deg
    )
    audit = audits[-1] if audits else None
    result: dict[str, Any] = {
        "marked": marked,
        "confirmed": {"tiles": marked["yes"], "places": sizes.confirmed},
        "population": population,
        "confidence": CONFIDENCE,
        "formulas": dict(FORMULAS),
    }
    if audit is None:
        return {**result, **_without_audit(marked, population, sizes)}
    tally = count_answers(audit, marks, audits)
    tiles = tally.tiles()
    confirmed = len(tally.known) + sum(tally.yes)
    agreement = wilson_interval(tally.agreed, tally.repeats)
    hit_rate = wilson_interval(tally.hits, tally.controls)
    positives = {name for name, _ in tally.positives} | {*tally.known}
    places, assumed = tally.places(sizes), sizes.count_assumed(positives)
    if assumed:
        # A place may be larger than assumed, and all positive tiles may belong to one place.
        places = Interval(places.estimate, min(places.low, 1.0), places.high)
    return {
        **result,
        "domain": audit.domain,
        "audited": sum(tally.sampled),
        "tiles": tiles.to_dict(),
        "places": {**places.to_dict(), "assumed": assumed},
        "recall": {**completeness(confirmed, tiles).to_dict(), "confirmed": confirmed},
        "elsewhere": _elsewhere(audit, tally),
        "corrected": to_plain(correct_for_misses(tiles, hit_rate)),
        "agreement": _rate(agreement, tally.agreed, tally.repeats),
        "hit_rate": _rate(hit_rate, tally.hits, tally.controls),
        "half_width": None if not tiles.estimate else tiles.half_width / tiles.estimate,
        "audit": {
            "number": audit.number,
            "state": audit.state,
            "complete": is_complete(audit, tally),
            "target": audit.target,
            "target_reached": target_reached(audit, tally),
            "pages": len(audit.pages),
            "pending": tally.pending,
            "seed": audit.seed,
            "ranking": audit.ranking,
            "vector": audit.vector,
            "created": audit.created,
            "closed": audit.closed,
            "known": len(tally.known),
            "strata": [
                {"size": size, "audited": n, "yes": x, "unsure": u}
                for size, n, x, u in zip(
                    tally.sizes, tally.sampled, tally.yes, tally.unsure, strict=True
                )
            ],
            "versions": dict(audit.versions),
        },
    }


def _without_audit(marked: Mapping[str, int], population: int, sizes: PlaceSizes) -> dict[str, Any]:
    """Return what is known without a random sample: exact if every tile is marked."""
    decided = marked["yes"] + marked["no"]
    yes, most = marked["yes"], population - marked["no"]
    is_exact = decided >= population
    tiles = Interval(yes if is_exact else None, yes, max(yes, most))
    confirmed = float(sizes.confirmed)
    places = Interval(
        confirmed if is_exact else None, confirmed, confirmed if is_exact else max(confirmed, most)
    )
    rest = population - decided - marked["unsure"]
    return {
        "domain": decided + marked["unsure"],
        "audited": 0,
        "tiles": tiles.to_dict(),
        "places": {**places.to_dict(), "assumed": 0},
        "recall": {**completeness(yes, tiles).to_dict(), "confirmed": yes},
        "elsewhere": {"tiles": rest, "audited": 0, "yes": 0, "high": float(rest)},
        "corrected": None,
        "agreement": None,
        "hit_rate": None,
        "half_width": 0.0 if is_exact and yes else None,
        "audit": None,
    }


def _elsewhere(audit: Audit, tally: Tally) -> dict[str, Any]:
    high = elusion_limit(audit.rest, tally.rest_sampled, tally.rest_yes + tally.rest_unsure)
    return {
        "tiles": audit.rest,
        "audited": tally.rest_sampled,
        "yes": tally.rest_yes,
        "high": round(high, 6),
    }


def _rate(interval: Interval | None, successes: int, trials: int) -> dict[str, Any] | None:
    return None if interval is None else {**interval.to_dict(), "of": trials, "equal": successes}


def estimate_files(files: InventoryFiles) -> dict[str, Any]:
    """Estimate from the files of an inventory alone.

    Args:
        files: The opened folder.

    Returns:
        Plain data; see `estimate`.
    """
    header = files.header
    population = header.store.rows - header.without_data
    last = files.audits[-1] if files.audits else None
    result = estimate(files.marks, files.audits, population=population, place_deg=header.place_deg)
    return {
        "inventory": str(files.path),
        "landform": header.landform,
        "texts": list(header.texts),
        "store": header.store.path,
        "set_hash": header.store.set_hash,
        "model": str(header.store.encoder.get("id")),
        "rows": header.store.rows,
        "without_data": header.without_data,
        "place_deg": header.place_deg,
        "new_since_audit": 0 if last is None else max(0, population - last.population),
        **result,
    }


def place_sizes(files: InventoryFiles) -> PlaceSizes:
    """Group the tiles marked yes into places.

    Args:
        files: The opened inventory.

    Returns:
        The places.
    """
    current = statuses(files.marks, files.audits)
    return PlaceSizes.from_marks(
        [mark for mark in current.values() if mark.mark in ("yes", "unsure")],
        files.header.place_deg,
    )
