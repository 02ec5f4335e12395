"""Score rankings of tiles: the part of geo-localization after the search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.ground_truth import Points
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.metrics import geolocalization
from marsretrieval.metrics.bootstrap import seed_of
from marsretrieval.results import Evaluation
from marsretrieval.search.topk import exact_topk
from marsretrieval.tasks.base import Hits, Settings

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Vectors

MAX_K = 20_000  # depth of the published evaluation


def score_rankings(
    images: EmbeddingStore,
    tiles: npt.NDArray[np.float64],
    queries: Sequence[tuple[str, str]],
    rankings: Iterable[tuple[tuple[str, str], npt.NDArray[Any], npt.NDArray[np.int64]]],
    catalogues: Mapping[str, Points],
    settings: Settings,
    *,
    radius: float,
    depth: int,
    on_query: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Evaluation], Hits]:
    """Score rankings of tiles.

    Args:
        images: Store of all ranked tiles.
        tiles: Centres of all tiles, degrees, shape (n, 2).
        queries: Landform and kind of each query.
        rankings: Per query its landform and kind, and the scores and rows of the best `depth`
            tiles and of all that tie with the last of them.
        catalogues: Landform to the points that count.
        settings: Settings of the evaluation.
        radius: Tolerance in degrees.
        depth: Depth at which the rankings are truncated.
        on_query: Called after each query.

    Returns:
        Evaluations by "landform/kind", and their hits.
    """
    groups: dict[str, Evaluation] = {}
    hits = Hits()
    corners = np.concatenate(
        [published_positions(block.ids, block.lon, block.lat) for block in images.blocks()]
    )
    chance = {
        name: geolocalization.expect_random(
            corners,
            tiles,
            np.column_stack([catalogues[name].lon, catalogues[name].lat]),
            radius_deg=radius,
            max_k=depth,
        )
        for name in dict.fromkeys(name for name, _ in queries)
    }
    for (landform, mode), scores, rows in rankings:
        points = catalogues[landform]
        group = f"{landform}/{mode}"
        tile_block = images.take(rows)
        groups[group] = geolocalization.evaluate(
            scores,
            ids=tile_block.ids,
            published_lonlat=corners[rows],
            centre_lonlat=np.column_stack([tile_block.lon, tile_block.lat]),
            truth_lonlat=np.column_stack([points.lon, points.lat]),
            all_centre_lonlat=tiles,
            radius_deg=radius,
            max_k=depth,
            seed=seed_of(settings.seed, landform),
            resamples=settings.resamples,
            chance=chance[landform],
        )
        relevant = geo.near_any(tile_block.lon, tile_block.lat, points.lon, points.lat, radius)
        for row in range(min(len(rows), depth)):
            hits.append(
                group, landform, row + 1, tile_block.ids[row], float(scores[row]),
                relevant=bool(relevant[row]),
                lon=float(tile_block.lon[row]), lat=float(tile_block.lat[row]),
            )  # fmt: skip
        on_query()
    return groups, hits


def best_tiles(
    images: EmbeddingStore,
    query: Vectors,
    scores: Vectors,
    rows: npt.NDArray[np.int64],
    *,
    depth: int = MAX_K,
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return the best `depth` tiles and all tiles that tie with the last of them.

    The metric selects among the ties and reports their effect.

    Args:
        images: Store of the tile embeddings.
        query: Query vector, shape (dim,).
        scores: Scores of the best `depth` + 1 tiles, descending.
        rows: Their rows in the store.
        depth: Number of tiles to return; the scores are of one tile more.

    Returns:
        Scores and rows.
    """
    if len(rows) <= depth or scores[depth] < scores[depth - 1]:
        return scores[:depth], rows[:depth]
    least = float(scores[depth - 1])
    return exact_topk(images, query, None, min_score=least, index="use").hits(0)


def published_positions(ids: Sequence[str], lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return positions as the published code reads them: the south-west corner in a tile's name.

    If the name is not that of a tile, the stored position is used.

    Args:
        ids: n tile ids.
        lon: Longitudes of the centres, degrees, shape (n,).
        lat: Latitudes of the centres, degrees, shape (n,).

    Returns:
        float64 array of shape (n, 2).
    """
    corners = [
        geo.tile_corner(name) or centre
        for name, centre in zip(ids, zip(lon, lat, strict=True), strict=True)
    ]
    return np.array(corners, dtype=np.float64).reshape(-1, 2)
