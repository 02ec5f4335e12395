"""Which way of naming a landform does a model understand best?

    python examples/compare_prompts.py --model mars-nano --data planet \
        "a photo of {}, a type of martian terrain" "CTX or HiRISE image showing {} terrain on Mars."

Ranks the images of the landform task for each template by itself, and for the mean of all of them.
Images are embedded once, into --store; templates cost nothing but their texts. The difference to
the first template comes with a 95 % bootstrap interval over classes, drawn in pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from marsretrieval.embeddings import build_store, open_store
from marsretrieval.encoders import LoadOptions, find, load
from marsretrieval.metrics import landform
from marsretrieval.metrics.bootstrap import over_queries
from marsretrieval.search import text_query
from marsretrieval.tasks import find_task


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare prompt templates on landform retrieval.")
    parser.add_argument("templates", nargs="+", help="with {} in the place of the landform")
    parser.add_argument("--model", default="mars-nano")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--store", type=Path, default=Path("compare_prompts.store"))
    given = parser.parse_args()
    for template in given.templates:
        if "{}" not in template:
            parser.error(f"'{template}' has no {{}} for the landform")

    data = find_task("landform").open(given.data)
    labels: dict[str, str] = data.annotations
    encoder = load(find(given.model), LoadOptions())
    build_store(encoder, data.source, given.store, dtype="float32")
    ids, images = open_store(given.store).load()
    kept = [row for row, key in enumerate(ids) if key in labels]
    names = sorted(set(labels.values()))

    def score(templates: list[str]) -> np.ndarray:
        """Average precision of each class."""
        queries = []
        for name in names:
            prompts = [each.format(name.replace("_", " ").replace("-", " ")) for each in templates]
            queries.append(text_query(encoder.encode_texts(prompts, role="query")))
        evaluation = landform.evaluate(
            images[kept],
            np.stack(queries),
            labels=[labels[ids[row]] for row in kept],
            image_ids=[ids[row] for row in kept],
            query_names=names,
            resamples=0,
        )
        return np.asarray(evaluation.per_query["mAP"])

    print(f"{given.model}: {len(kept)} images, {len(names)} classes of {data.folder}")
    alone = {template: score([template]) for template in given.templates}
    first = alone[given.templates[0]]
    if len(alone) > 1:
        alone["(mean of all)"] = score(given.templates)
    for template, figures in alone.items():
        low, high = over_queries({"": figures - first}, seed=0, resamples=1000).get("", (0, 0))
        change = f"  {figures.mean() - first.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"mAP {figures.mean():.3f}{change if figures is not first else '':27}  {template}")


if __name__ == "__main__":
    main()
