"""Run one query as in the published code: a process that loads and indexes all vectors.

python -m benchmarks.search.published FOLDER QUERY K OUT.npy
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import faiss
import numpy as np

from benchmarks.search._memory import memory_kb


def main() -> None:
    folder, number, k, out = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    features = np.load(folder / "published" / "features.npy")
    with (folder / "published" / "ids.pkl").open("rb") as file:
        ids = pickle.load(file)
    with (folder / "published" / "places.pkl").open("rb") as file:
        positions = pickle.load(file)
    query = np.load(folder / "queries.npy")[number : number + 1]
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    scores, rows = index.search(query, k)
    answers = [
        (ids[row], positions[row], float(score))
        for row, score in zip(rows[0], scores[0], strict=True)
    ]
    assert len(answers) == k
    np.save(out, rows[0])
    print(*memory_kb())


if __name__ == "__main__":
    main()
