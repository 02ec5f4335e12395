"""Source of vectors in memory with blocks of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass
class Block:
    start: int
    vectors: Any
    lon: Any
    lat: Any

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass
class ArraySource:
    matrix: Any
    names: Sequence[str] | None = None
    cuts: Sequence[int] = ()
    lon: Any = None
    lat: Any = None
    lookups: list[int] = field(default_factory=list)  # rows looked up for exact scores, per call

    @property
    def rows(self) -> int:
        return len(self.matrix)

    @property
    def dimension(self) -> int:
        return int(self.matrix.shape[1])

    def blocks(self) -> Iterator[Block]:
        edges = [0, *sorted(self.cuts), self.rows]
        unknown = np.full(self.rows, np.nan)
        lon = unknown if self.lon is None else self.lon
        lat = unknown if self.lat is None else self.lat
        for start, end in pairwise(edges):
            yield Block(start, self.matrix[start:end], lon[start:end], lat[start:end])

    def vectors(self, rows: Any) -> Any:
        self.lookups.append(len(rows))
        return self.matrix[rows]

    def ids(self, rows: Any) -> list[str]:
        return [str(self.names[row]) if self.names else f"{row:09d}" for row in rows]
