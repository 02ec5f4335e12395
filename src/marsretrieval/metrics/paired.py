"""Task 1: score the retrieval of captions by image and of images by caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from marsretrieval.metrics import validation
from marsretrieval.metrics.bootstrap import basis_of, over_queries
from marsretrieval.metrics.chance import expect_reciprocal_rank
from marsretrieval.metrics.ranking import Ranks, id_order, own_ranks
from marsretrieval.results import Evaluation

_Value = TypeVar("_Value")


def evaluate(
    images: npt.ArrayLike,
    texts: npt.ArrayLike,
    *,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Compute R@1, R@5, R@10, median rank and MRR in both directions over all pairs.

    Ties are ordered by the `id_order` of `ids` under `strict` and by row under `published`. R@5 is
    computed under `strict` only.

    Args:
        images: Unit rows, shape (n, d).
        texts: Unit rows, shape (n, d); row i belongs to row i of `images`.
        ids: n ids; row numbers by default.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        The evaluation.

    Raises:
        DataError: If the input is invalid.
    """
    images = validation.unit_rows(images, "images")
    texts = validation.unit_rows(texts, "texts")
    validation.same_length(images=images, texts=texts)
    validation.same_length(**{"dimensions of images": images.T, "dimensions of texts": texts.T})
    names = list(ids) if ids is not None else [f"{row:09d}" for row in range(len(images))]
    validation.same_length(pairs=images, ids=names)
    return evaluate_ranks(
        *own_ranks(images, texts, id_order(names)), ids=names, seed=seed, resamples=resamples
    )


def evaluate_ranks(
    i2t: Ranks, t2i: Ranks, *, ids: Sequence[str], seed: int = 0, resamples: int = 1000
) -> Evaluation:
    """Compute the metrics of `evaluate` from the ranks of the correct answers.

    Args:
        i2t: Ranks of the texts for n images.
        t2i: Ranks of the images for n texts.
        ids: n ids.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        The evaluation.
    """
    names = list(ids)
    published: dict[str, npt.NDArray[np.float64]] = {}
    strict: dict[str, npt.NDArray[np.float64]] = {}
    tie_columns: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    per_query: dict[str, npt.NDArray[np.generic] | list[str]] = {"id": names}
    for direction, ranks in (("i2t", i2t), ("t2i", t2i)):
        published |= _without_additions(_columns(direction, ranks.by_row))
        strict |= _columns(direction, ranks.stated)
        tie_columns |= _tie_columns(direction, ranks)
        per_query[f"{direction}_rank"] = ranks.stated
    intervals = {
        protocol: _intervals(columns, seed, resamples)
        for protocol, columns in (("published", published), ("strict", strict))
    }
    chance = expect_random(len(names))
    return Evaluation(
        task="paired-image-text",
        n={"pairs": len(names)},
        published=_metrics(published),
        strict=_metrics(strict),
        intervals=intervals,
        ties={
            name: (_metric(name, worst), _metric(name, best))
            for name, (worst, best) in tie_columns.items()
        },
        per_query=per_query,
        chance={"published": _without_additions(chance), "strict": chance},
        interval_basis=basis_of(intervals, "pairs", len(names)),
    )


def score_ranks(
    ranks: Mapping[str, npt.NDArray[np.int64]], *, seed: int, resamples: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Compute the metrics and intervals of given ranks.

    Args:
        ranks: "i2t" and "t2i" to the rank of the correct answer per query, from 1.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        Metrics, and intervals, by name.
    """
    columns = {
        name: column
        for direction, of_direction in ranks.items()
        for name, column in _columns(direction, of_direction).items()
    }
    return _metrics(columns), _intervals(columns, seed, resamples)


def _without_additions(metrics: Mapping[str, _Value]) -> dict[str, _Value]:
    """Drop the metrics that the published protocol, which is frozen, does not have."""
    return {name: value for name, value in metrics.items() if not name.endswith("_r5")}


def _intervals(
    columns: Mapping[str, npt.NDArray[np.float64]], seed: int, resamples: int
) -> dict[str, tuple[float, float]]:
    statistics = {name: np.median for name in columns if name.endswith("_medr")}
    return over_queries(columns, seed=seed, resamples=resamples, statistics=statistics)


def expect_random(pairs: int) -> dict[str, float]:
    """Compute expected metrics if every query has an independent random ranking.

    Its rank is uniform on 1 to `pairs` and symmetric, so the expected median is (1 + pairs) / 2.

    Args:
        pairs: Number of pairs.

    Returns:
        Metric name to expectation.
    """
    expected = {
        "r1": 1 / pairs,
        "r5": min(5, pairs) / pairs,
        "r10": min(10, pairs) / pairs,
        "medr": (1 + pairs) / 2,
        "mrr": expect_reciprocal_rank(pairs),
    }
    return {f"{way}_{name}": value for way in ("i2t", "t2i") for name, value in expected.items()}


def _columns(direction: str, ranks: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return each metric's value per query; the metric is the mean, or the median for medr."""
    return {
        f"{direction}_r1": (ranks <= 1).astype(np.float64),
        f"{direction}_r5": (ranks <= 5).astype(np.float64),
        f"{direction}_r10": (ranks <= 10).astype(np.float64),
        f"{direction}_medr": ranks.astype(np.float64),
        f"{direction}_mrr": 1.0 / ranks,
    }


def _tie_columns(
    direction: str, ranks: Ranks
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    if np.array_equal(ranks.best, ranks.worst):
        return {}
    worst, best = _columns(direction, ranks.worst), _columns(direction, ranks.best)
    return {name: (worst[name], best[name]) for name in best}


def _metrics(columns: dict[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    return {name: _metric(name, column) for name, column in columns.items()}


def _metric(name: str, column: npt.NDArray[np.float64]) -> float:
    return float(np.median(column) if name.endswith("_medr") else np.mean(column))
