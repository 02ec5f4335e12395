"""Task 1: an image finds its caption, and a caption its image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from marsretrieval.metrics import validation
from marsretrieval.metrics.bootstrap import basis_of, over_queries
from marsretrieval.metrics.chance import expect_reciprocal_rank
from marsretrieval.metrics.ranking import Ranks, id_order, own_ranks
from marsretrieval.results import PROTOCOLS, Evaluation


def evaluate(
    images: npt.ArrayLike,
    texts: npt.ArrayLike,
    *,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """R@1, R@10, median rank and MRR in both directions, over all pairs.

    images, texts: (n, d) unit rows; row i of one belongs to row i of the other. Under `strict`
    ties go by the `id_order` of `ids` (default: the row numbers), under `published` by row.
    Raises DataError.
    """
    images = validation.unit_rows(images, "images")
    texts = validation.unit_rows(texts, "texts")
    validation.same_length(images=images, texts=texts)
    validation.same_length(**{"dimensions of images": images.T, "dimensions of texts": texts.T})
    names = list(ids) if ids is not None else [f"{row:09d}" for row in range(len(images))]
    validation.same_length(pairs=images, ids=names)
    places = id_order(names)
    published: dict[str, npt.NDArray[np.float64]] = {}
    strict: dict[str, npt.NDArray[np.float64]] = {}
    luck: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    per_query: dict[str, npt.NDArray[np.generic] | list[str]] = {"id": names}
    both = own_ranks(images, texts, places)
    for direction, ranks in zip(("i2t", "t2i"), both, strict=True):
        published |= _columns(direction, ranks.by_row)
        strict |= _columns(direction, ranks.stated)
        luck |= _luck(direction, ranks)
        per_query[f"{direction}_rank"] = ranks.stated
    statistics = {name: np.median for name in strict if name.endswith("_medr")}
    intervals = {
        protocol: over_queries(columns, seed=seed, resamples=resamples, statistics=statistics)
        for protocol, columns in (("published", published), ("strict", strict))
    }
    return Evaluation(
        task="paired-image-text",
        n={"pairs": len(images)},
        published=_figures(published),
        strict=_figures(strict),
        intervals=intervals,
        ties={
            name: (_figure(name, worst), _figure(name, best))
            for name, (worst, best) in luck.items()
        },
        per_query=per_query,
        chance=dict.fromkeys(PROTOCOLS, _expect_random(len(images))),
        interval_basis=basis_of(intervals, "pairs", len(images)),
    )


def _expect_random(pairs: int) -> dict[str, float]:
    """Expected metrics when every query has a random ranking of its own: its rank is uniform on
    1 to `pairs`, and so symmetric that the expected median is the mean of 1 and `pairs`."""
    expected = {
        "r1": 1 / pairs,
        "r10": min(10, pairs) / pairs,
        "medr": (1 + pairs) / 2,
        "mrr": expect_reciprocal_rank(pairs),
    }
    return {f"{way}_{name}": value for way in ("i2t", "t2i") for name, value in expected.items()}


def _columns(direction: str, ranks: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """Each figure's value for every query; the figure is their mean, or median for medr."""
    return {
        f"{direction}_r1": (ranks <= 1).astype(np.float64),
        f"{direction}_r10": (ranks <= 10).astype(np.float64),
        f"{direction}_medr": ranks.astype(np.float64),
        f"{direction}_mrr": 1.0 / ranks,
    }


def _luck(
    direction: str, ranks: Ranks
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    if np.array_equal(ranks.best, ranks.worst):
        return {}
    worst, best = _columns(direction, ranks.worst), _columns(direction, ranks.best)
    return {name: (worst[name], best[name]) for name in best}


def _figures(columns: dict[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    return {name: _figure(name, column) for name, column in columns.items()}


def _figure(name: str, column: npt.NDArray[np.float64]) -> float:
    return float(np.median(column) if name.endswith("_medr") else np.mean(column))
