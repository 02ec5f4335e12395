"""Task 2: a landform's name finds its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.metrics import validation
from marsretrieval.metrics.bootstrap import basis_of, over_queries
from marsretrieval.metrics.chance import (
    expect_average_precision,
    expect_hit_at,
    expect_ndcg_at,
    expect_r_precision,
)
from marsretrieval.metrics.ranking import (
    average_precision,
    cosines,
    hit_at,
    id_order,
    ndcg_at,
    r_precision,
    ranked,
)
from marsretrieval.results import PROTOCOLS, Evaluation

_KEYS = ("mAP", "hit@10", "r_precision", "ndcg@10")

_Figures = dict[str, float]


def evaluate(
    images: npt.ArrayLike,
    queries: npt.ArrayLike,
    *,
    labels: Sequence[str],
    image_ids: Sequence[str],
    query_names: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """mAP, Hit@10, R-Precision and nDCG@10, each the mean over classes, and per class.

    images: (n, d) unit rows with a label and an id each; queries: (c, d) unit rows with a name
    each, no name twice. An image is relevant when its label is the query's name. A query whose
    class has no image has no figure and is left out of the means; an image whose class has no
    query is a distractor for all. Under `strict` ties go by `id_order`, under `published` by row.
    Raises DataError.
    """
    images = validation.unit_rows(images, "images")
    queries = validation.unit_rows(queries, "queries")
    validation.same_length(images=images, labels=labels, image_ids=image_ids)
    validation.same_length(queries=queries, query_names=query_names)
    validation.unique(query_names, "query_names")
    validation.same_length(**{"dimensions of images": images.T, "dimensions of queries": queries.T})
    classes = np.asarray(labels)
    places = id_order(list(image_ids))
    rows = np.arange(len(images))
    published: dict[str, _Figures] = {}
    strict: dict[str, _Figures] = {}
    worst: dict[str, _Figures] = {}
    best: dict[str, _Figures] = {}
    chance: dict[str, _Figures] = {}
    for name, scores in zip(query_names, cosines(queries, images), strict=True):
        relevant = classes == name
        if not relevant.any():
            continue
        published[name] = _of(relevant[ranked(scores, rows)])
        strict[name] = _of(relevant[ranked(scores, places)])
        worst[name] = _of(relevant[ranked(scores, relevant.astype(np.int64))])
        best[name] = _of(relevant[ranked(scores, 1 - relevant.astype(np.int64))])
        chance[name] = _expect_random(len(images), int(relevant.sum()))
    if not strict:
        raise DataError(
            "no query names a class that an image has",
            remedy=f"Queries: {', '.join(list(query_names)[:5])}; "
            f"labels: {', '.join(sorted(set(labels))[:5])}.",
        )
    intervals = {
        protocol: over_queries(_columns(figures), seed=seed, resamples=resamples)
        for protocol, figures in (("published", published), ("strict", strict))
    }
    return Evaluation(
        task="landform",
        n={"images": len(images), "classes": len(strict)},
        published=_macro(published),
        strict=_macro(strict),
        intervals=intervals,
        ties={
            key: (float(np.mean(_columns(worst)[key])), float(np.mean(_columns(best)[key])))
            for key in _KEYS
            if worst != best
        },
        per_query={"class": list(strict), **_columns(strict)},
        chance=dict.fromkeys(PROTOCOLS, _macro(chance)),
        interval_basis=basis_of(intervals, "classes", len(strict)),
    )


def _of(relevant: npt.NDArray[np.bool_]) -> _Figures:
    return {
        "mAP": average_precision(relevant),
        "hit@10": hit_at(relevant, 10),
        "r_precision": r_precision(relevant),
        "ndcg@10": ndcg_at(relevant, 10),
    }


def _expect_random(images: int, relevant: int) -> _Figures:
    return {
        "mAP": expect_average_precision(images, relevant),
        "hit@10": expect_hit_at(images, relevant, 10),
        "r_precision": expect_r_precision(images, relevant),
        "ndcg@10": expect_ndcg_at(images, relevant, 10),
    }


def _columns(figures: dict[str, _Figures]) -> dict[str, npt.NDArray[np.float64]]:
    return {key: np.array([each[key] for each in figures.values()]) for key in _KEYS}


def _macro(figures: dict[str, _Figures]) -> dict[str, object]:
    means = {key: float(np.mean(column)) for key, column in _columns(figures).items()}
    return {**means, "per_class": figures}
