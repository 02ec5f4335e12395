"""Task 2: a landform's name finds its images."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from marsretrieval.datasets import annotated_hash, open_images, set_hash
from marsretrieval.embeddings import EmbeddingStore, embed_texts
from marsretrieval.encoders import Encoder, Modality
from marsretrieval.errors import DataError
from marsretrieval.metrics import landform
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import exact_topk, landform_prompts, text_query
from marsretrieval.tasks._annotations import collect, fingerprint, first_rows
from marsretrieval.tasks._cut_texts import count_cut
from marsretrieval.tasks._locate import dataset_folder
from marsretrieval.tasks._protocol import Hits, Outcome, Settings, TaskData

__all__ = ["LandformRetrieval"]

_SHOWN = 20  # hits kept for each class


class LandformRetrieval:
    """Every class name, put into three prompts whose vectors are averaged, ranks all images."""

    name = "landform"
    aliases: tuple[str, ...] = ("landform_retrieval",)
    title = "Landform retrieval"
    folder_name = "Mars-Landforms"
    vector_dtype = "float32"
    main_metric = "mAP"

    def open(self, data: Path, *, with_images: bool = True) -> TaskData:
        folder = dataset_folder(data, self.folder_name, task=self.name)
        source = open_images(folder)
        labels, skipped = collect(source, lambda record: record.label, missing="no label")
        classes = sorted(set(labels.values()))
        if not classes:
            raise DataError(
                f"{folder}: no image has a label",
                remedy="Landforms come as Parquet with columns image and label, or as one folder "
                "of images per class.",
            )
        return TaskData(
            folder=folder,
            source=source if with_images else None,
            counts={"images": len(labels), "classes": len(classes)},
            fingerprint=fingerprint(source),
            annotations=labels,
            skipped=skipped,
        )

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        return None if "text" in modalities else "text"

    def evaluate(
        self,
        data: TaskData,
        encoder: Encoder,
        images: EmbeddingStore,
        scratch: Path,
        settings: Settings,
        progress: Progress = NO_PROGRESS,
    ) -> Outcome:
        labels: dict[str, str] = data.annotations
        classes = sorted(set(labels.values()))
        start = time.perf_counter()
        prompts = [prompt for name in classes for prompt in landform_prompts(name)]
        vectors = embed_texts(encoder, prompts).reshape(len(classes), -1, encoder.dimension)
        queries = np.stack([text_query(each) for each in vectors])
        embedded = time.perf_counter()

        ids, matrix = images.load()
        kept = [row for key, row in first_rows(ids).items() if key in labels]
        image_ids = [ids[row] for row in kept]
        evaluation = landform.evaluate(
            matrix[kept],
            queries,
            labels=[labels[key] for key in image_ids],
            image_ids=image_ids,
            query_names=classes,
            seed=settings.seed,
            resamples=settings.resamples,
        )
        content = images.content_hashes()
        # As many more as are not scored: unlabelled, or there before.
        ranking = exact_topk(images, queries, _SHOWN + len(ids) - len(kept), view="use")
        hits = Hits()
        for query, name in enumerate(classes):
            scores, rows = ranking.hits(query)
            shown = np.flatnonzero(np.isin(rows, kept))[:_SHOWN]
            for rank, (score, row) in enumerate(zip(scores[shown], rows[shown], strict=True), 1):
                key = ids[row]
                hits.append("all", name, rank, key, float(score), relevant=labels[key] == name)
        return Outcome(
            groups={"all": evaluation},
            n={"images": len(image_ids), "classes": len(classes)},
            set_hash=set_hash(
                (ids[row], annotated_hash(content[row], labels[ids[row]])) for row in kept
            ),
            hits=hits,
            truncated=count_cut(encoder, prompts, role="query"),
            timings={
                "embed_texts": embedded - start,
                "score": time.perf_counter() - embedded,
            },
        )
