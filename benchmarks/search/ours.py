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
    view = open_index(folder / "store")
    assert view is not None
    ranking = exact_topk(view, np.load(folder / "queries.npy")[:count], k, kernel=kernel)
    places = view.positions()
    for scores, rows in (ranking.hits(query) for query in range(count)):
        ids, here = view.ids(rows), places[rows]
        assert len(ids) == len(here) == len(scores) == k
    np.save(sys.argv[5], ranking.rows)
    print(*memory_kb())


if __name__ == "__main__":
    main()
