"""Compare prompt templates of a landform on landform retrieval.

    python examples/compare_prompts.py --model mars-nano --data planet \
        "a photo of {}, a type of martian terrain" "CTX or HiRISE image showing {} terrain on Mars."

Ranks the images of the landform task with each template, and with the mean of all of them. Images
are embedded once, into --store; per template, only texts are embedded. The difference from the
first template has a 95 % paired bootstrap interval over classes.
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
    parser.add_argument("templates", nargs="+", help="prompt template, {} stands for the landform")
    parser.add_argument("--model", default="mars-nano")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--store", type=Path, default=Path("compare_prompts.store"))
    options = parser.parse_args()
    for template in options.templates:
        if "{}" not in template:
            parser.error(f"'{template}' has no {{}} for the landform")

    data = find_task("landform").open(options.data)
    labels: dict[str, str] = data.annotations
    encoder = load(find(options.model), LoadOptions())
    build_store(encoder, data.source, options.store, dtype="float32")
    ids, images = open_store(options.store).load()
    labelled = [row for row, key in enumerate(ids) if key in labels]
    names = sorted(set(labels.values()))

    def score(templates: list[str]) -> np.ndarray:
        """Compute the average precision of each class."""
        queries = []
        for name in names:
            spoken = name.replace("_", " ").replace("-", " ")
            prompts = [template.format(spoken) for template in templates]
            queries.append(text_query(encoder.encode_texts(prompts, role="query")))
        evaluation = landform.evaluate(
            images[labelled],
            np.stack(queries),
            labels=[labels[ids[row]] for row in labelled],
            image_ids=[ids[row] for row in labelled],
            query_names=names,
            resamples=0,
        )
        return np.asarray(evaluation.per_query["mAP"])

    print(f"{options.model}: {len(labelled)} images, {len(names)} classes of {data.folder}")
    alone = {template: score([template]) for template in options.templates}
    first = alone[options.templates[0]]
    if len(alone) > 1:
        alone["(mean of all)"] = score(options.templates)
    for template, precisions in alone.items():
        low, high = over_queries({"": precisions - first}, seed=0, resamples=1000).get("", (0, 0))
        change = f"  {precisions.mean() - first.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        print(
            f"mAP {precisions.mean():.3f}{change if precisions is not first else '':27}  {template}"
        )


if __name__ == "__main__":
    main()
