"""Seconds to learn from marks and to score all tiles again.

    python -m benchmarks.inventory.speed --rows 1400000 --dimension 1024

The vectors are random; times do not depend on their values. They are held as float16 in memory.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt

from marsretrieval.search.learned import Whitening, learn_query
from marsretrieval.search.scores import score_all
from marsretrieval.search.topk import exact_topk


class Vectors:
    """Random unit vectors that can be searched like a store."""

    def __init__(self, rows: int, dimension: int) -> None:
        generator = np.random.default_rng(0)
        self.rows, self.dimension, self.start = rows, dimension, 0
        self._vectors = np.empty((rows, dimension), dtype=np.float16)
        for start in range(0, rows, 8192):
            part = generator.standard_normal((min(8192, rows - start), dimension), np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            self._vectors[start : start + len(part)] = part

    def __len__(self) -> int:
        return self.rows

    @property
    def lon(self) -> npt.NDArray[np.float64]:
        """Longitudes, all unknown."""
        return np.full(self.rows, np.nan)

    lat = lon

    def ids(self, rows: npt.ArrayLike) -> list[str]:
        """Return names of rows."""
        return [str(row) for row in np.atleast_1d(np.asarray(rows))]

    @property
    def source_vectors(self) -> npt.NDArray[np.float16]:
        """All vectors."""
        return self._vectors

    def blocks(self) -> list[Block]:
        """Return all rows as one block."""
        return [Block(self)]

    def vectors(self, rows: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """Return the vectors of rows."""
        chosen: npt.NDArray[np.float16] = self._vectors[np.asarray(rows)]
        return chosen


class Block:
    """All rows of `Vectors`."""

    def __init__(self, source: Vectors) -> None:
        self.start, self.vectors = 0, source.source_vectors
        self.lon, self.lat = source.lon, source.lat

    def __len__(self) -> int:
        return len(self.vectors)


def main() -> None:
    """Print the seconds of each step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", type=int, default=1_400_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--marks", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    source = Vectors(options.rows, options.dimension)
    started = time.perf_counter()
    whitening = Whitening.from_store(source)
    print(f"whitening, once  {time.perf_counter() - started:7.3f} s")
    yes = source.vectors(np.arange(options.marks // 3)).astype(np.float32)
    no = source.vectors(np.arange(options.marks // 3, options.marks)).astype(np.float32)
    learned, scored, ranked = [], [], []
    for _ in range(options.repeats):
        started = time.perf_counter()
        vector = learn_query(yes, no, whitening, text=yes[0])
        learned.append(time.perf_counter() - started)
        started = time.perf_counter()
        score_all(source, vector)
        scored.append(time.perf_counter() - started)
        started = time.perf_counter()
        exact_topk(source, vector, 100)
        ranked.append(time.perf_counter() - started)
    print(f"learn            {np.median(learned):7.3f} s, {options.marks} marks")
    print(f"score all        {np.median(scored):7.3f} s, {options.rows:,} x {options.dimension}")
    print(f"best 100         {np.median(ranked):7.3f} s, without an index")


if __name__ == "__main__":
    main()
