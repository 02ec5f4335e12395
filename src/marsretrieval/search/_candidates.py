"""Which rows may still belong to the best: a pool of bounds that forgets what is surely out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from marsretrieval.search._exact import WrongBoundsError

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float32]

_SLACK = 2**12  # candidates beyond 2 k before the worst are dropped
_MANY = 2**16  # and beyond 4 k before they are scored exactly


class Candidates:
    """The rows of one query whose rounded score could be among the best k, or (k None) reach
    `floor`.

    `low` and `high` of a row enclose its exact score after rounding to float32. A row is out for
    good when its `high` lies below `floor`: the least of the best k `low` so far, or what was
    asked for.
    """

    def __init__(
        self,
        k: int | None,
        floor: float,
        exact: Callable[[Rows], Scores],
        ids: Callable[[Rows], Sequence[str]],
    ) -> None:
        self.floor = floor
        self._least = floor
        self._k = k
        self._exact = exact
        self._ids = ids
        self._parts: list[tuple[Rows, Floats, Floats]] = []
        self._count = 0
        self._limit = np.inf if k is None else 2 * k + _SLACK

    def offer(self, rows: Rows, low: Floats, high: Floats) -> None:
        """Consider n rows, each (n,)."""
        kept = high >= self.floor
        if not kept.all():
            rows, low, high = rows[kept], low[kept], high[kept]
        if not len(rows):
            return
        self._parts.append((rows, low, high))
        self._count += len(rows)
        # A first floor as soon as there can be one: most of what follows lies below it.
        first = self._k is not None and self.floor == -np.inf and self._count >= self._k
        if first or self._count > self._limit:
            self._prune()

    def finish(self) -> tuple[Scores, Rows]:
        """Exact scores and rows: score descending, then id ascending."""
        if not self._count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        self._prune()
        ((rows, low, high),) = self._parts
        scores = self._enclosed(rows, low, high)
        reached = scores >= self._least
        return self._ordered(scores[reached], rows[reached])

    def _prune(self) -> None:
        rows, low, high = (np.concatenate(each) for each in zip(*self._parts, strict=True))
        k = self._k
        if k is not None and len(rows) > k:
            self.floor = max(self.floor, float(np.partition(low, len(low) - k)[len(low) - k]))
            kept = high >= self.floor
            rows, low, high = rows[kept], low[kept], high[kept]
            if len(rows) > 4 * k + _MANY:
                # So many near-ties (blank tiles, a constant model) that only exact scores and
                # ids can tell them apart.
                scores, rows = self._ordered(self._enclosed(rows, low, high), rows)
                low = high = scores.astype(np.float64)
                self.floor = max(self.floor, float(low.min()))
            self._limit = max(2 * k + _SLACK, 2 * len(rows))
        self._parts, self._count = [(rows, low, high)], len(rows)

    def _enclosed(self, rows: Rows, low: Floats, high: Floats) -> Scores:
        scores = self._exact(rows)
        if not ((low <= scores) & (scores <= high)).all():
            raise WrongBoundsError
        return scores

    def _ordered(self, scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
        """The best k by score descending, then id ascending."""
        k = len(scores) if self._k is None else self._k
        if len(scores) > k:
            cut = np.partition(scores, len(scores) - k)[len(scores) - k]
            kept = scores >= cut
            scores, rows = scores[kept], rows[kept]
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        same = ranked[1:] == ranked[:-1]
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        if len(tied):
            members = order[tied]
            ids = self._ids(rows[members])
            keys = sorted(
                range(len(tied)), key=lambda i: (-ranked[tied[i]], ids[i], rows[members[i]])
            )
            order[tied] = members[keys]
        order = order[:k]
        return scores[order], rows[order]
