"""Run all queries in one process and write ids, positions and scores.

python -m benchmarks.search.ours FOLDER QUERIES K KERNEL OUT.npy
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.search._memory import memory_kb
from marsretrieval.search import exact_topk, open_index


def main() -> None:
    folder, count, k, kernel = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    index = open_index(folder / "store")
    assert index is not None
    ranking = exact_topk(index, np.load(folder / "queries.npy")[:count], k, kernel=kernel)
    positions = index.positions()
    for scores, rows in (ranking.hits(query) for query in range(count)):
        ids, located = index.ids(rows), positions[rows]
        assert len(ids) == len(located) == len(scores) == k
    np.save(sys.argv[5], ranking.rows)
    print(*memory_kb())


if __name__ == "__main__":
    main()
