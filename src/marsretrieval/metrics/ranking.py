"""Ranks and rank metrics on arrays. The order is always: score descending, then `id_order`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_AT_ONCE = 2**22  # scores held at a time, whatever the number of queries and items
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Ranks:
    """(n,) each, from 1: the rank in the stated order, with ties by row, and at the best and the
    worst luck in ties."""

    stated: npt.NDArray[np.int64]
    by_row: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    worst: npt.NDArray[np.int64]


def id_order(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,): the place of each id when all are sorted by their SHA-256.

    Fixed, and the same for every model and machine; but unlike the ids themselves, which often
    sort by class or by longitude, it favours nothing. Equal ids keep the order of their rows.
    """
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in ids]
    places = np.empty(len(ids), np.int64)
    places[sorted(range(len(ids)), key=digests.__getitem__)] = np.arange(len(ids))
    return places


def cosines(
    queries: npt.NDArray[np.floating], corpus: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """(q, n) scores of unit rows, in float64 and rounded to 9 decimals.

    A matrix product adds up in an order that depends on the place of a row and on the library, so
    equal rows may score unequal in the last bits. Rounded, they tie on any machine, but for about
    one score in a million that lies on the edge between two roundings.
    """
    product = queries.astype(np.float64, copy=False) @ corpus.astype(np.float64, copy=False).T
    scores: npt.NDArray[np.float64] = np.round(product, _DECIMALS, out=product)
    return scores


def own_ranks(
    left: npt.NDArray[np.floating],
    right: npt.NDArray[np.floating],
    places: npt.NDArray[np.int64],
) -> tuple[Ranks, Ranks]:
    """Rank of right row i among all right rows for left row i, and the other way round.

    By counting the greater scores: equal to sorting every row and every column of the score
    matrix, but in one pass over it, without a sort, and in bounded memory. `places` breaks ties
    (see `id_order`).
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    own = np.round(np.einsum("ij,ij->i", left, right), _DECIMALS)
    forth, back = _Tally(len(left)), _Tally(len(left))
    step = max(1, _AT_ONCE // len(right))
    for start in range(0, len(left), step):
        scores = cosines(left[start : start + step], right)
        rows = np.arange(start, start + len(scores))
        scores[np.arange(len(scores)), rows] = own[rows]
        forth.better[rows] = (scores > own[rows, None]).sum(axis=1)
        query, item = np.nonzero(scores == own[rows, None])
        forth.add_ties(query + start, item, places)
        back.better += (scores > own).sum(axis=0)
        item, query = np.nonzero(scores == own)
        back.add_ties(query, item + start, places)
    return forth.ranks(), back.ranks()


class _Tally:
    """For each query, how many items score more than its own, and as much: itself, and others
    before it by `places` and by row."""

    def __init__(self, count: int) -> None:
        self.better = np.zeros(count, np.int64)
        self._tied = np.zeros(count, np.int64)
        self._before = np.zeros(count, np.int64)
        self._above = np.zeros(count, np.int64)

    def add_ties(
        self,
        query: npt.NDArray[np.int64],
        item: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
    ) -> None:
        count = len(self.better)
        self._tied += np.bincount(query, minlength=count)
        self._before += np.bincount(query[places[item] < places[query]], minlength=count)
        self._above += np.bincount(query[item < query], minlength=count)

    def ranks(self) -> Ranks:
        first = 1 + self.better
        return Ranks(first + self._before, first + self._above, first, first + self._tied - 1)


def ranked(
    scores: npt.NDArray[np.floating], places: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Rows in the stated order: score descending, then `places` ascending."""
    return np.lexsort((places, -scores))


def average_precision(relevant: npt.NDArray[np.bool_]) -> float:
    """Mean of precision at each relevant item of a full ranking (TREC `map`). 0 without any."""
    hits = np.flatnonzero(relevant)
    if not hits.size:
        return 0.0
    return float(np.mean(np.arange(1, hits.size + 1) / (hits + 1)))


def ndcg_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """nDCG of the first k with gains 0 and 1 and discount log2(rank + 1) (Jarvelin & Kekalainen
    2002); the ideal ranking has min(k, number relevant) relevant items first."""
    ideal = min(k, int(relevant.sum()))
    if not ideal:
        return 0.0
    discounts = 1 / np.log2(np.arange(2, k + 2))
    head = relevant[:k]
    return float(discounts[: len(head)][head].sum() / discounts[:ideal].sum())


def hit_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """1 when a relevant item is among the first k, else 0."""
    return float(relevant[:k].any())


def r_precision(relevant: npt.NDArray[np.bool_]) -> float:
    """Precision of the first R, R being the number of relevant items (TREC `Rprec`)."""
    count = int(relevant.sum())
    return float(relevant[:count].mean()) if count else 0.0
