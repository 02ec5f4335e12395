"""Task 2: score the retrieval of images by landform name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.metrics import validation
from marsretrieval.metrics.bootstrap import basis_of, over_queries
from marsretrieval.metrics.chance import (
    expect_average_precision,
    expect_average_precision_at,
    expect_hit_at,
    expect_ndcg_at,
    expect_precision_at,
    expect_r_precision,
)
from marsretrieval.metrics.ranking import (
    average_precision,
    average_precision_at,
    cosines,
    hit_at,
    id_order,
    ndcg_at,
    precision_at,
    r_precision,
    ranked,
)
from marsretrieval.results import Evaluation

PRECISION_DEPTHS = (1, 5, 10)
MAP_DEPTHS = (10, 100)
PUBLISHED_KEYS = ("mAP", "hit@10", "r_precision", "ndcg@10")
KEYS = (
    *PUBLISHED_KEYS,
    *(f"precision@{k}" for k in PRECISION_DEPTHS),
    *(f"mAP@{k}" for k in MAP_DEPTHS),
)
_ORDERS = ("published", "strict", "worst", "best")  # of ties
_AT_ONCE = 2**22  # scores per batch, to bound memory

_Metrics = dict[str, float]


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
    """Compute mAP, Hit@10, R-Precision, nDCG@10, P@k and mAP@k, per class and as means.

    An image is relevant if its label equals the query's name. Queries without a relevant image are
    left out; images without a query are distractors. P@k and mAP@k are computed under `strict`
    only. Ties are ordered by `id_order` under `strict` and by row under `published`.

    Args:
        images: Unit rows, shape (n, d).
        queries: Unit rows, shape (c, d).
        labels: n class names.
        image_ids: n ids.
        query_names: c distinct class names.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        The evaluation.

    Raises:
        DataError: If the input is invalid, or no query has a relevant image.
    """
    images = validation.unit_rows(images, "images")
    queries = validation.unit_rows(queries, "queries")
    validation.same_length(images=images, labels=labels, image_ids=image_ids)
    validation.same_length(queries=queries, query_names=query_names)
    validation.same_length(**{"dimensions of images": images.T, "dimensions of queries": queries.T})
    return evaluate_scores(
        cosines(queries, images), labels=labels, image_ids=image_ids, query_names=query_names,
        seed=seed, resamples=resamples,
    )  # fmt: skip


def evaluate_scores(
    scores: Iterable[npt.NDArray[np.float64]],
    *,
    labels: Sequence[str],
    image_ids: Sequence[str],
    query_names: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Compute the metrics of `evaluate` from the scores of all images for each query.

    Args:
        scores: c rows of n scores; higher is better.
        labels: n class names.
        image_ids: n ids.
        query_names: c distinct class names.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        The evaluation.

    Raises:
        DataError: If the input is invalid, or no query has a relevant image.
    """
    validation.unique(query_names, "query_names")
    validation.same_length(labels=labels, image_ids=image_ids)
    classes = np.asarray(labels)
    tie_order = id_order(list(image_ids))
    rows = np.arange(len(classes))
    published: dict[str, _Metrics] = {}
    strict: dict[str, _Metrics] = {}
    worst: dict[str, _Metrics] = {}
    best: dict[str, _Metrics] = {}
    chance: dict[str, _Metrics] = {}
    for name, values in zip(query_names, scores, strict=True):
        relevant = classes == name
        if not relevant.any():
            continue
        published[name] = _without_additions(class_metrics(relevant[ranked(values, rows)]))
        strict[name] = class_metrics(relevant[ranked(values, tie_order)])
        worst[name] = class_metrics(relevant[ranked(values, relevant.astype(np.int64))])
        best[name] = class_metrics(relevant[ranked(values, 1 - relevant.astype(np.int64))])
        chance[name] = _expect_random(len(classes), int(relevant.sum()))
    if not strict:
        raise DataError(
            "no query name matches the label of an image",
            remedy=f"Queries: {', '.join(list(query_names)[:5])}; "
            f"labels: {', '.join(sorted(set(labels))[:5])}.",
        )
    per_class = {"published": published, "strict": strict, "worst": worst, "best": best}
    return _assemble(per_class, chance, images=len(classes), seed=seed, resamples=resamples)


def evaluate_examples(
    images: npt.ArrayLike,
    *,
    labels: Sequence[str],
    image_ids: Sequence[str],
    query_names: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Compute the metrics of `evaluate` with every image as a query for the others of its class.

    Each image of a class of `query_names` ranks all other images (leave-one-out); an image is
    relevant if it has the same label. The value of a class is the mean over its images, and the
    metrics are means over classes. Classes with one image are left out. The protocol is not of the
    paper.

    Args:
        images: Unit rows, shape (n, d).
        labels: n class names.
        image_ids: n ids.
        query_names: Distinct class names whose images are queries.
        seed: Seed of the bootstrap over classes.
        resamples: Number of resamples.

    Returns:
        The evaluation.

    Raises:
        DataError: If the input is invalid, or no class has two images.
    """
    vectors = validation.unit_rows(images, "images")
    validation.same_length(images=vectors, labels=labels, image_ids=image_ids)
    return evaluate_example_scores(
        lambda rows: cosines(vectors[rows], vectors), labels=labels, image_ids=image_ids,
        query_names=query_names, seed=seed, resamples=resamples,
    )  # fmt: skip


def evaluate_example_scores(
    scores_of: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    *,
    labels: Sequence[str],
    image_ids: Sequence[str],
    query_names: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Compute the metrics of `evaluate_examples` from the scores of all images for each image.

    Args:
        scores_of: Returns the scores of all n images for q query images, shape (q, n), given the
            rows of the query images. The score of a query image itself is not used.
        labels: n class names.
        image_ids: n ids.
        query_names: Distinct class names whose images are queries.
        seed: Seed of the bootstrap over classes.
        resamples: Number of resamples.

    Returns:
        The evaluation.

    Raises:
        DataError: If the input is invalid, or no class has two images.
    """
    validation.same_length(labels=labels, image_ids=image_ids)
    validation.unique(query_names, "query_names")
    classes = np.asarray(labels)
    count = len(classes)
    tie_order = id_order(list(image_ids))
    chance: dict[str, _Metrics] = {}
    per_class: dict[str, dict[str, _Metrics]] = {name: {} for name in _ORDERS}
    for name in query_names:
        members = np.flatnonzero(classes == name)
        if len(members) < 2:
            continue
        values: dict[str, list[_Metrics]] = {order: [] for order in _ORDERS}
        step = max(1, _AT_ONCE // count)
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            for row, scores in zip(rows, scores_of(rows), strict=True):
                others = np.delete(np.arange(count), row)
                rankings = _rankings(scores[others], classes[others] == name, tie_order[others])
                for order, relevant in zip(_ORDERS, rankings, strict=True):
                    values[order].append(class_metrics(relevant))
        for order, metrics in values.items():
            means = {key: float(np.mean([image[key] for image in metrics])) for key in KEYS}
            per_class[order][name] = _without_additions(means) if order == "published" else means
        chance[name] = _expect_random(count - 1, len(members) - 1)
    if not chance:
        raise DataError(
            "no class has two images: an image has no other of its class to be found",
            remedy="Image queries need at least two images per class.",
        )
    return _assemble(per_class, chance, images=count, seed=seed, resamples=resamples)


def _rankings(
    scores: npt.NDArray[np.float64],
    relevant: npt.NDArray[np.bool_],
    tie_order: npt.NDArray[np.int64],
) -> list[npt.NDArray[np.bool_]]:
    """Return relevance in rank order for each order of ties in `_ORDERS`."""
    order = np.argsort(-scores, kind="stable")
    if not (np.diff(scores[order]) == 0).any():
        return [relevant[order]] * len(_ORDERS)
    orders = (tie_order, relevant.astype(np.int64), 1 - relevant.astype(np.int64))
    return [relevant[order], *(relevant[ranked(scores, ties)] for ties in orders)]


def _assemble(
    per_class: Mapping[str, dict[str, _Metrics]],
    chance: dict[str, _Metrics],
    *,
    images: int,
    seed: int,
    resamples: int,
) -> Evaluation:
    published, strict, worst, best = (per_class[order] for order in _ORDERS)
    intervals = {
        protocol: over_queries(_columns(figures), seed=seed, resamples=resamples)
        for protocol, figures in (("published", published), ("strict", strict))
    }
    return Evaluation(
        task="landform",
        n={"images": images, "classes": len(strict)},
        published=_macro_average(published),
        strict=_macro_average(strict),
        intervals=intervals,
        ties={
            key: (float(np.mean(_columns(worst)[key])), float(np.mean(_columns(best)[key])))
            for key in KEYS
            if worst != best
        },
        per_query={"class": list(strict), **_columns(strict)},
        chance={
            "published": _macro_average(
                {name: _without_additions(metrics) for name, metrics in chance.items()}
            ),
            "strict": _macro_average(chance),
        },
        interval_basis=basis_of(intervals, "classes", len(strict)),
    )


def _without_additions(metrics: _Metrics) -> _Metrics:
    """Drop the metrics that the published protocol, which is frozen, does not have."""
    return {key: metrics[key] for key in PUBLISHED_KEYS}


def class_metrics(relevant: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Compute all metrics of one class.

    Args:
        relevant: Relevance of all images in rank order, shape (n,).

    Returns:
        Metric name to value.
    """
    return {
        "mAP": average_precision(relevant),
        "hit@10": hit_at(relevant, 10),
        "r_precision": r_precision(relevant),
        "ndcg@10": ndcg_at(relevant, 10),
        **{f"precision@{k}": precision_at(relevant, k) for k in PRECISION_DEPTHS},
        **{f"mAP@{k}": average_precision_at(relevant, k) for k in MAP_DEPTHS},
    }


def _expect_random(images: int, relevant: int) -> _Metrics:
    return {
        "mAP": expect_average_precision(images, relevant),
        "hit@10": expect_hit_at(images, relevant, 10),
        "r_precision": expect_r_precision(images, relevant),
        "ndcg@10": expect_ndcg_at(images, relevant, 10),
        **{f"precision@{k}": expect_precision_at(images, relevant, k) for k in PRECISION_DEPTHS},
        **{f"mAP@{k}": expect_average_precision_at(images, relevant, k) for k in MAP_DEPTHS},
    }


def _columns(per_class: dict[str, _Metrics]) -> dict[str, npt.NDArray[np.float64]]:
    keys = next(iter(per_class.values()), {})
    return {key: np.array([metrics[key] for metrics in per_class.values()]) for key in keys}


def _macro_average(per_class: dict[str, _Metrics]) -> dict[str, object]:
    means = {key: float(np.mean(column)) for key, column in _columns(per_class).items()}
    return {**means, "per_class": per_class}
