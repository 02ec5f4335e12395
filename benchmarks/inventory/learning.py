"""Average precision after marks: Rocchio, the text alone and the learned query.

    python -m benchmarks.inventory.learning STORE PLANET

STORE is a store of the synthetic planet's tiles, PLANET its folder (`planet.json` holds the planted
features). A tile is positive if a feature lies within 0.15 degrees of its centre. Landforms with
fewer than 8 positive tiles are left out. Marks come in batches of 10 from the top of the ranking.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.api import open_store
from marsretrieval.errors import UsageError
from marsretrieval.search.learned import Whitening, learn_query
from marsretrieval.search.query import compose

MARKS = (10, 30, 60, 100, 150)
BATCH = 10
RADIUS_DEG = 0.15
MIN_POSITIVES = 8

Array = npt.NDArray[Any]
Learner = Callable[[Array, Array, Array], Array]


def average_precision(scores: Array, truth: Array) -> float:
    """Return the average precision of a ranking."""
    hits = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)).mean())


def mark_and_learn(vectors: Array, truth: Array, text: Array, learn: Learner) -> list[float]:
    """Mark the best unmarked tiles in batches; return the average precision after each `MARKS`."""
    scores, marked = vectors @ text, np.zeros(len(vectors), dtype=bool)
    curve = []
    while marked.sum() < MARKS[-1]:
        marked[np.argsort(np.where(marked, np.inf, -scores), kind="stable")[:BATCH]] = True
        try:
            query = learn(vectors[marked & truth], vectors[marked & ~truth], text)
        except UsageError:  # the parts cancel each other out
            query = text
        scores = vectors @ query.astype(np.float32)
        if marked.sum() in MARKS:
            curve.append(average_precision(scores, truth))
    return curve


def main() -> None:
    """Print a table of mean average precision."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("store", type=Path)
    parser.add_argument("planet", type=Path)
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    options = parser.parse_args()
    store = open_store(options.store)
    _, vectors = store.embeddings.load()
    lon, lat = store.embeddings.positions().T
    features = json.loads((options.planet / "planet.json").read_text())["features"]
    truths, texts = {}, {}
    for name in sorted({feature["class"] for feature in features}):
        points = [(f["lon"], f["lat"]) for f in features if f["class"] == name]
        x, y = np.array(points).T
        truth = geo.near_any(lon, lat, x, y, RADIUS_DEG)
        if truth.sum() >= MIN_POSITIVES:
            truths[name] = truth
            texts[name] = store.vector(store.prepare_search(name.replace("_", " ")))
    whitening = Whitening.from_vectors(vectors)

    def rocchio(yes: Array, no: Array, text: Array) -> Array:
        return compose(
            text=text, examples=yes if len(yes) else None, against=no if len(no) else None
        )

    learners: dict[str, Learner] = {
        "text": lambda yes, no, text: text,
        "rocchio": rocchio,
        "learned": lambda yes, no, text: learn_query(yes, no, whitening, text=text),
    }
    means = {
        title: np.mean(
            [mark_and_learn(vectors, truths[name], texts[name], learn) for name in truths], axis=0
        )
        for title, learn in learners.items()
    }
    if options.json:
        print(json.dumps({"landforms": len(truths), "marks": MARKS}
                         | {title: mean.tolist() for title, mean in means.items()}))  # fmt: skip
        return
    print(f"{len(truths)} landforms, {len(vectors):,} tiles")
    print(f"{'marks':10}" + "".join(f"{count:>8}" for count in MARKS))
    for title, mean in means.items():
        print(f"{title:10}" + "".join(f"{value:8.3f}" for value in mean))


if __name__ == "__main__":
    main()
