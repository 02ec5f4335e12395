"""Ranks and rank metrics on arrays; the order is score descending, then `id_order`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_AT_ONCE = 2**22  # scores per batch, to bound memory
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks from 1 of n queries' own items, arrays of shape (n,).

    Attributes:
        stated: Rank with ties ordered by `id_order`.
        by_row: Rank with ties ordered by row.
        best: Rank if ties are broken in favour of the item.
        worst: Rank if ties are broken against the item.
    """

    stated: npt.NDArray[np.int64]
    by_row: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    worst: npt.NDArray[np.int64]


def id_order(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the position of each id in the order of SHA-256 digests.

    The order is the same for every model and machine. Unlike the order of the ids, which often
    follows class or longitude, it favours no item. Equal ids keep the order of their rows.

    Args:
        ids: n ids.

    Returns:
        int64 array of shape (n,).
    """
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in ids]
    positions = np.empty(len(ids), np.int64)
    positions[sorted(range(len(ids)), key=digests.__getitem__)] = np.arange(len(ids))
    return positions


def cosines(
    queries: npt.NDArray[np.floating], corpus: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Compute scores of unit rows in float64, rounded to 9 decimals.

    A matrix product sums in an order that depends on the row and on the library, so equal rows may
    differ in the last bits. Rounding makes them tie on any machine, except for about one score in a
    million that lies on a rounding boundary.

    Args:
        queries: Unit rows, shape (q, d).
        corpus: Unit rows, shape (n, d).

    Returns:
        float64 array of shape (q, n).
    """
    product = queries.astype(np.float64, copy=False) @ corpus.astype(np.float64, copy=False).T
    scores: npt.NDArray[np.float64] = np.round(product, _DECIMALS, out=product)
    return scores


def own_ranks(
    queries: npt.NDArray[np.floating],
    corpus: npt.NDArray[np.floating],
    tie_order: npt.NDArray[np.int64],
) -> tuple[Ranks, Ranks]:
    """Rank corpus row i for query row i among all corpus rows, and the reverse.

    Counting greater scores gives the same ranks as sorting every row and column of the score
    matrix, in one pass and bounded memory.

    Args:
        queries: Unit rows, shape (n, d).
        corpus: Unit rows, shape (n, d).
        tie_order: Order of ties, shape (n,); see `id_order`.

    Returns:
        Ranks of corpus rows for queries, and of query rows for corpus rows.
    """
    queries, corpus = queries.astype(np.float64), corpus.astype(np.float64)
    own_scores = np.round(np.einsum("ij,ij->i", queries, corpus), _DECIMALS)
    forward, backward = _RankCounter(len(queries)), _RankCounter(len(queries))
    step = max(1, _AT_ONCE // len(corpus))
    for start in range(0, len(queries), step):
        scores = cosines(queries[start : start + step], corpus)
        rows = np.arange(start, start + len(scores))
        scores[np.arange(len(scores)), rows] = own_scores[rows]
        forward.better[rows] = (scores > own_scores[rows, None]).sum(axis=1)
        query, item = np.nonzero(scores == own_scores[rows, None])
        forward.add_ties(query + start, item, tie_order)
        backward.better += (scores > own_scores).sum(axis=0)
        item, query = np.nonzero(scores == own_scores)
        backward.add_ties(query, item + start, tie_order)
    return forward.ranks(), backward.ranks()


def own_ranks_of_scores(
    scores: Iterable[npt.NDArray[np.floating]], tie_order: npt.NDArray[np.int64]
) -> Ranks:
    """Rank item i for query i among all items, from given scores.

    Args:
        scores: n rows of n scores; row i holds the scores of all items for query i.
        tie_order: Order of ties, shape (n,); see `id_order`.

    Returns:
        Ranks of the own items.
    """
    counter = _RankCounter(len(tie_order))
    for query, row in enumerate(scores):
        counter.better[query] = int((row > row[query]).sum())
        items = np.flatnonzero(row == row[query])
        counter.add_ties(np.full(len(items), query), items, tie_order)
    return counter.ranks()


class _RankCounter:
    """Count, per query, the items with a greater score and the tied items before its own."""

    def __init__(self, count: int) -> None:
        self.better = np.zeros(count, np.int64)
        self._tied = np.zeros(count, np.int64)
        self._before = np.zeros(count, np.int64)
        self._above = np.zeros(count, np.int64)

    def add_ties(
        self,
        query: npt.NDArray[np.int64],
        item: npt.NDArray[np.int64],
        tie_order: npt.NDArray[np.int64],
    ) -> None:
        count = len(self.better)
        self._tied += np.bincount(query, minlength=count)
        self._before += np.bincount(query[tie_order[item] < tie_order[query]], minlength=count)
        self._above += np.bincount(query[item < query], minlength=count)

    def ranks(self) -> Ranks:
        first = 1 + self.better
        return Ranks(first + self._before, first + self._above, first, first + self._tied - 1)


def ranked(
    scores: npt.NDArray[np.floating], tie_order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return rows by score descending, then `tie_order` ascending.

    Args:
        scores: Scores, shape (n,).
        tie_order: Order of ties, shape (n,).

    Returns:
        int64 array of shape (n,).
    """
    return np.lexsort((tie_order, -scores))


def average_precision(relevant: npt.NDArray[np.bool_]) -> float:
    """Mean of precision at each relevant item of a full ranking (TREC `map`).

    Args:
        relevant: Relevance in rank order, shape (n,).

    Returns:
        Average precision; 0 without relevant items.
    """
    hits = np.flatnonzero(relevant)
    if not hits.size:
        return 0.0
    return float(np.mean(np.arange(1, hits.size + 1) / (hits + 1)))


def average_precision_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """Sum of precision at the relevant items among the first k, over all relevant items.

    This is TREC `map_cut_k`; with k = n it is `average_precision`.

    Args:
        relevant: Relevance in rank order, shape (n,).
        k: Depth.

    Returns:
        Average precision of the first k; 0 without relevant items.
    """
    count = int(relevant.sum())
    if not count:
        return 0.0
    hits = np.flatnonzero(relevant[:k])
    return float(np.sum(np.arange(1, hits.size + 1) / (hits + 1)) / count)


def precision_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """Share of relevant items among the first k (TREC `P_k`).

    Args:
        relevant: Relevance in rank order, shape (n,).
        k: Depth; ranks beyond n count as irrelevant.

    Returns:
        The precision.
    """
    return float(relevant[:k].sum() / k)


def ndcg_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """Compute nDCG of the first k items with gains 0 and 1 and discount log2(rank + 1).

    Jarvelin & Kekalainen 2002. The ideal ranking has min(k, number relevant) relevant items first.

    Args:
        relevant: Relevance in rank order, shape (n,).
        k: Depth.

    Returns:
        nDCG; 0 without relevant items.
    """
    ideal = min(k, int(relevant.sum()))
    if not ideal:
        return 0.0
    discounts = 1 / np.log2(np.arange(2, k + 2))
    head = relevant[:k]
    return float(discounts[: len(head)][head].sum() / discounts[:ideal].sum())


def hit_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """Whether a relevant item is among the first k.

    Args:
        relevant: Relevance in rank order, shape (n,).
        k: Depth.

    Returns:
        1.0 or 0.0.
    """
    return float(relevant[:k].any())


def r_precision(relevant: npt.NDArray[np.bool_]) -> float:
    """Precision of the first R items, with R the number of relevant items (TREC `Rprec`).

    Args:
        relevant: Relevance in rank order, shape (n,).

    Returns:
        R-precision; 0 without relevant items.
    """
    count = int(relevant.sum())
    return float(relevant[:count].mean()) if count else 0.0
