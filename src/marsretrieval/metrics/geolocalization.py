"""Task 3: score a ranking of tiles against a catalogue of points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.metrics import validation
from marsretrieval.metrics.bootstrap import basis_of, interval
from marsretrieval.metrics.chance import RandomTiles
from marsretrieval.metrics.coverage import (
    NEVER,
    Blocks,
    Coverage,
    Pairs,
    average_precision,
    draw,
    f1_of,
    planar,
    published_cuts,
    resample_depths,
    spherical,
    spread,
    trapezoid,
)
from marsretrieval.metrics.ranking import id_order, ranked
from marsretrieval.results import Evaluation

BAND_DEG = 30  # latitude bands of `by_latitude`
BLOCK_DEG = 4.0  # the quads of the mosaic; landforms cluster within them

Floats = npt.NDArray[np.float64]


def average_precision_bounds(
    scores: npt.NDArray[np.float64], pairs: Pairs, points: int, max_k: int
) -> tuple[float, float]:
    """Bound average precision over all orders of tiles with equal scores.

    Average precision is the mean over points of the precision at the rank that covers the point, 0
    for a point not covered. A point is covered within the first group of equal scores that has a
    tile near it, at a tile that is a hit, whatever the order inside the group. Let `start` tiles
    precede the group, `before` of them hits, and let the group hold `hits` hits and `misses`
    others. With all hits first, precision is greatest at the last hit; with all misses first, the
    least precision at a hit is that of the first hit. The bounds are proven but not always
    reached: the best order for one point may differ from that for another.

    Args:
        scores: Scores, shape (n,).
        pairs: (tile, point) pairs within the radius.
        points: Number of points in the catalogue.
        max_k: Largest depth.

    Returns:
        Low and high; equal without ties.
    """
    tiles, near = pairs
    _, group = np.unique(-scores, return_inverse=True)
    relevant = np.zeros(len(scores), np.bool_)
    relevant[tiles] = True
    size = np.bincount(group)
    hits = np.bincount(group[relevant], minlength=len(size))
    start, before = np.cumsum(size) - size, np.cumsum(hits) - hits
    first = np.full(points, len(size))
    np.minimum.at(first, near, group[tiles])
    new = np.bincount(first, minlength=len(size) + 1)[:-1]  # points that each group covers first

    ranks_within = np.clip(max_k - start, 0, size)  # max_k may split the last group
    hits_within = np.minimum(hits, ranks_within)
    high = (before + hits_within) / np.maximum(start + hits_within, 1)
    low = np.where(ranks_within == size, (before + 1) / (start + size - hits + 1), 0.0)
    return float(new @ low) / points, float(new @ np.where(hits_within > 0, high, 0.0)) / points


def evaluate(
    scores: npt.ArrayLike,
    *,
    ids: Sequence[str],
    published_lonlat: npt.ArrayLike,
    centre_lonlat: npt.ArrayLike,
    truth_lonlat: npt.ArrayLike,
    all_centre_lonlat: npt.ArrayLike | None = None,
    radius_deg: float = 0.5,
    max_k: int = 20_000,
    seed: int = 0,
    resamples: int = 1000,
    chance: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """Score a ranking of tiles against a catalogue of points.

    For growing K, precision counts tiles near a point and recall counts points near a tile.

    Longitudes may be in -180..180 or 0..360; `strict` treats them alike, `published` uses them as
    given.

    Args:
        scores: Scores, shape (n,); higher is better.
        ids: n tile ids.
        published_lonlat: Positions as the published code reads them, lon and lat in degrees, shape
            (n, 2); rows of NaN are left out.
        centre_lonlat: Tile centres in degrees, shape (n, 2).
        truth_lonlat: Points of the catalogue in degrees, shape (m, 2).
        all_centre_lonlat: Centres of all ranked tiles if `scores` holds only the best of them; used
            for the ceiling.
        radius_deg: Radius; in the plane of degrees under `published`, an arc under `strict`.
        max_k: Largest depth.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        chance: Result of `expect_random` for all ranked tiles; by default computed if `scores`
            holds all tiles.

    Returns:
        The evaluation.

    Raises:
        DataError: If the input is invalid.
    """
    values = validation.scores_of(scores, "scores")
    corners = validation.lonlat(published_lonlat, "published positions", unknown=True)
    centres = validation.lonlat(centre_lonlat, "tile centres")
    truth = validation.lonlat(truth_lonlat, "ground truth")
    validation.same_length(scores=values, ids=ids, positions=corners, centres=centres)
    if not len(truth):
        raise DataError("ground truth: no points", remedy="Give at least one point.")
    if not 0 < radius_deg <= 180:
        raise DataError(f"radius {radius_deg}: must be greater than 0 and at most 180 degrees")
    if max_k < 1:
        raise DataError(f"max_k {max_k}: must be greater than 0")
    all_centres = (
        centres if all_centre_lonlat is None else validation.lonlat(all_centre_lonlat, "all tiles")
    )
    published, published_samples = _published(
        values, corners, truth, radius_deg, max_k, seed, resamples
    )
    order = ranked(values, id_order(ids))
    pairs = spherical(centres, truth, radius_deg)
    coverage = Coverage.from_order(order, pairs, len(truth)).head(max_k)
    reachable = spherical(all_centres, truth, radius_deg)
    strict = _strict(coverage, reachable, len(all_centres), len(truth), max_k)
    strict["by_latitude"] = by_latitude(
        coverage, centres[order[:max_k], 1], truth[:, 1], strict["best"]["k"]
    )
    strict_samples = draw(
        coverage,
        Blocks.from_positions(centres[order[:max_k]], truth, BLOCK_DEG),
        resample_depths(coverage, strict["best"]["k"]),
        average_precision,
        seed=seed,
        resamples=resamples,
    )
    samples_by_protocol = {
        "published": _rename_area(published_samples, "auprc"),
        "strict": _rename_area(strict_samples, "average_precision"),
    }
    intervals = {
        protocol: {name: interval(values) for name, values in samples.items()}
        for protocol, samples in samples_by_protocol.items()
    }
    if chance is None and all_centre_lonlat is None:
        chance = expect_random(corners, centres, truth, radius_deg=radius_deg, max_k=max_k)
    return Evaluation(
        task="geolocalization",
        n={"predictions": len(values), "points": len(truth), "tiles": len(all_centres)},
        published=published,
        strict=strict,
        intervals=intervals,
        ties=_ties(values, pairs, len(truth), max_k),
        per_query={
            "lon": truth[:, 0],
            "lat": truth[:, 1],
            "found_at": np.where(coverage.first == NEVER, 0, coverage.first),
        },
        chance=chance or {},
        interval_basis=basis_of(intervals, "spatial blocks", Blocks.count_of(truth, BLOCK_DEG)),
        samples=samples_by_protocol,
    )


def by_latitude(
    coverage: Coverage, tile_lat: Floats, point_lat: Floats, depth: int
) -> list[dict[str, Any]]:
    """Score the points and tiles of each latitude band of `BAND_DEG` degrees.

    Ranks are those of the whole ranking, so the average precision of all points is the mean of the
    bands' average precision, weighted by their points.

    Args:
        coverage: Coverage of the ranking, down to its largest depth.
        tile_lat: Latitude of the tile at each rank, degrees, shape (n,).
        point_lat: Latitude of each point, degrees, shape (m,).
        depth: Depth K of `precision` and `recall`.

    Returns:
        One entry per band, from south to north: `band` such as "-30..0", `points`,
        `average_precision` (mean, over its points, of the
        precision at the rank that covers the point), `recall` (share of its points covered by
        the first K tiles), `tiles` (of the first K tiles, those in the band) and `precision`
        (share of these near a point; 0 without tiles). Bands without a point and tile are left
        out; those without points have no `average_precision` and `recall`.
    """
    is_reached = coverage.first != NEVER
    gains = np.zeros(len(coverage.first))
    gains[is_reached] = coverage.precision()[coverage.first[is_reached] - 1]
    bands: list[dict[str, Any]] = []
    for low in range(-90, 90, BAND_DEG):
        high = low + BAND_DEG
        points, tiles = (
            (lat >= low) & ((lat < high) | (high == 90)) for lat in (point_lat, tile_lat[:depth])
        )
        if not points.any() and not tiles.any():
            continue
        band: dict[str, Any] = {
            "band": f"{low}..{high}",
            "points": int(points.sum()),
            "tiles": int(tiles.sum()),
        }
        if points.any():
            band["average_precision"] = float(gains[points].mean())
            band["recall"] = float((coverage.first[points] <= depth).mean())
        band["precision"] = float(coverage.hit[:depth][tiles].mean()) if tiles.any() else 0.0
        bands.append(band)
    return bands


def expect_random(
    published_lonlat: npt.ArrayLike,
    centre_lonlat: npt.ArrayLike,
    truth_lonlat: npt.ArrayLike,
    *,
    radius_deg: float = 0.5,
    max_k: int = 20_000,
) -> dict[str, dict[str, Any]]:
    """Expected metrics of a random ranking of all tiles, cut at max_k.

    The areas are exact; the best F1 over K is the mean of seeded permutations, which do not depend
    on the seed of a run.

    Args:
        published_lonlat: (n, 2) positions of all tiles as the published code reads them, NaN where
            it reads none.
        centre_lonlat: (n, 2) centres of all tiles, degrees.
        truth_lonlat: (m, 2) points of the catalogue, degrees.
        radius_deg: Tolerance in degrees.
        max_k: Depth of the ranking.

    Returns:
        `published` and `strict`, with the keys of an evaluation's metrics.

    Raises:
        DataError: If positions are invalid, or none is known.
    """
    corners = validation.lonlat(published_lonlat, "published positions", unknown=True)
    corners = corners[np.isfinite(corners).all(axis=1)]
    centres = validation.lonlat(centre_lonlat, "tile centres")
    truth = validation.lonlat(truth_lonlat, "ground truth")
    if not len(corners):
        raise DataError(
            "published positions: none of the tiles has one",
            remedy="Give the tiles positions: degrees east and north.",
        )
    # Sort the tiles so that permutations do not depend on their order.
    corners, centres = (tiles[np.lexsort(tiles.T)] for tiles in (corners, centres))
    cuts = published_cuts(len(corners), max_k)
    near = planar(corners, truth, radius_deg)
    published = RandomTiles(near, len(corners), len(truth), min(len(corners), max_k))
    near = spherical(centres, truth, radius_deg)
    strict = RandomTiles(near, len(centres), len(truth), min(len(centres), max_k))
    area = strict.expect_average_precision()
    ceiling = _ceiling(near, len(truth), max_k)["average_precision"]
    return {
        "published": {
            "auprc": published.expect_trapezoid(cuts),
            "best": published.expect_best(cuts),
        },
        "strict": {
            "average_precision": area,
            "normalised": area / ceiling if ceiling else 0.0,
            "best": strict.expect_best(np.arange(1, strict.depth + 1)),
        },
    }


def _published(
    scores: Floats,
    corners: Floats,
    truth: Floats,
    radius: float,
    max_k: int,
    seed: int,
    resamples: int,
) -> tuple[dict[str, Any], dict[str, Floats]]:
    has_position = np.isfinite(corners).all(axis=1)
    scores, corners = scores[has_position], corners[has_position]
    if not len(scores):
        raise DataError(
            "published positions: none of the tiles has one",
            remedy="Give the tiles positions: degrees east and north.",
        )
    order = np.argsort(-scores, kind="stable")
    coverage = Coverage.from_order(order, planar(corners, truth, radius), len(truth))
    cuts = published_cuts(len(scores), max_k)
    pred_hit = np.cumsum(coverage.hit)[cuts - 1]
    gt_hit = coverage.points_covered()[cuts - 1]
    precision, recall = pred_hit / cuts, gt_hit / len(truth)
    f1 = f1_of(precision, recall)
    top = int(np.argmax(f1))
    columns = {"k": cuts, "precision": precision, "recall": recall, "f1": f1,
               "gt_hit": gt_hit, "pred_hit": pred_hit}  # fmt: skip
    curve = [
        {name: column[row].item() for name, column in columns.items()} for row in range(len(cuts))
    ]
    best = {name: curve[top][name] for name in ("k", "f1", "precision", "recall")}
    blocks = Blocks.from_positions(corners[order], truth, BLOCK_DEG)
    samples = draw(coverage, blocks, cuts, trapezoid, seed=seed, resamples=resamples)
    area = float(trapezoid(precision, recall))
    return {"best": best, "auprc": area, "curve": curve}, samples


def _strict(coverage: Coverage, near: Pairs, tiles: int, points: int, max_k: int) -> dict[str, Any]:
    precision, recall = coverage.precision(), coverage.recall()
    f1 = f1_of(precision, recall)
    top = int(np.argmax(f1))
    area = float(average_precision(precision, recall))
    relevant = len(np.unique(near[0]))
    ceiling = _ceiling(near, points, max_k)
    curve_rows = spread(len(f1)) - 1
    return {
        "average_precision": area,
        "best": {
            "k": top + 1,
            "f1": float(f1[top]),
            "precision": float(precision[top]),
            "recall": float(recall[top]),
        },
        "ceiling": ceiling,
        "normalised": area / ceiling["average_precision"] if relevant else 0.0,
        "relevant_tiles": relevant,
        "chance_precision": relevant / tiles,
        "curve": [
            {"k": int(row) + 1, "precision": float(precision[row]), "recall": float(recall[row])}
            for row in curve_rows
        ],
    }


def _ceiling(near: Pairs, points: int, max_k: int) -> dict[str, Any]:
    """Return upper bounds over all rankings: precision 1 down to the greatest recall c.

    c is the share of points with a tile near them, limited to what the max_k tiles with the most
    points near them would cover if they shared none. `reached` tells whether a ranking attains it,
    which is certain if max_k allows a tile for each such point; else it is an upper bound (choosing
    the best max_k tiles is a maximum coverage problem, NP-hard: Feige 1998).
    """
    reachable = len(np.unique(near[1]))
    coverable = np.sort(np.bincount(near[0]))[::-1][:max_k].sum()
    recall = min(reachable, int(coverable)) / points
    return {
        "average_precision": recall,
        "f1": 2 * recall / (1 + recall),
        "reached": reachable <= max_k,
    }


def _ties(scores: Floats, pairs: Pairs, points: int, max_k: int) -> dict[str, tuple[float, float]]:
    low, high = average_precision_bounds(scores, pairs, points, max_k)
    return {"average_precision": (low, high)} if low < high else {}


def _rename_area(samples: Mapping[str, Floats], area: str) -> dict[str, Floats]:
    return {area if name == "area" else name: value for name, value in samples.items()}
