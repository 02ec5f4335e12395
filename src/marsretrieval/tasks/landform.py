"""Task 2, landform retrieval: rank all images by a class name."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marsretrieval.datasets.base import ImageSource, annotated_hash, set_hash
from marsretrieval.datasets.open import open_images
from marsretrieval.embeddings.encode import embed_texts
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.errors import DataError, MarsRetrievalWarning, UsageError
from marsretrieval.io import sha256_json
from marsretrieval.metrics import landform
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.query import landform_prompts, text_query
from marsretrieval.search.topk import exact_topk
from marsretrieval.tasks.base import (
    Hits,
    Outcome,
    Settings,
    TaskData,
    collect,
    count_cut,
    dataset_folder,
    fingerprint,
    first_reason,
    first_rows,
)
from marsretrieval.tasks.limit import balanced, limited_data, select

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Modality

_HITS_PER_CLASS = 20
_NUMBER = re.compile(r"[+-]?\d+")
_MAX_NAMES = 5  # labels listed in a message

_LABEL_REMEDY = (
    "Labels come from one folder of images per class (crater/0.png, or train/crater/0.png), "
    "from a column 'label' of a Parquet file, from 'label' in the JSON beside an image, or from "
    "a table labels*.txt of lines FILE LABEL. File names and folders of a split (train, test, "
    "val) are not labels."
)


class LandformRetrieval:
    """Landform retrieval with the class names as queries.

    Each class name is embedded with three prompts whose vectors are averaged.

    Args:
        class_names: Label in the data to the name of its class in the prompts, for all labels.
            None: labels are the names.
    """

    name = "landform"
    aliases: tuple[str, ...] = ("landform_retrieval",)
    title = "Landform retrieval"
    folder_name = "Mars-Landforms"
    vector_dtype = "float32"
    main_metric = "mAP"

    def __init__(self, class_names: Mapping[str, str] | None = None) -> None:
        self.class_names = class_names

    def open(self, data: str | Path, *, with_images: bool = True) -> TaskData:
        """Find the images and their labels.

        Args:
            data: Folder of datasets, or one dataset.
            with_images: Open the images; False if the caller supplies a store of their embeddings.

        Returns:
            The data.

        Raises:
            DatasetNotFoundError: If the dataset is missing.
            DataError: If fewer than two classes have images.
            UsageError: If `class_names` lacks a label.
        """
        data = Path(data)
        folder = dataset_folder(data, self.folder_name, task=self.name)
        source = open_images(folder)
        labels, skipped = collect(source, lambda record: record.label, missing="no label")
        labels = self._name_classes(folder, labels)
        classes = sorted(set(labels.values()))
        if not classes:
            raise DataError(
                f"{folder}: no image has a label{first_reason(skipped)}", remedy=_LABEL_REMEDY
            )
        _require_two_classes(folder, classes)
        return TaskData(
            folder=folder,
            source=source if with_images else None,
            counts={"images": len(labels), "classes": len(classes)},
            fingerprint=self._fingerprint(source, labels),
            annotations=labels,
            skipped=skipped,
        )

    def _fingerprint(self, source: ImageSource, labels: Mapping[str, str]) -> str:
        data_fingerprint = fingerprint(source, labels)
        if self.class_names is None:
            return data_fingerprint
        return sha256_json([data_fingerprint, sorted(self.class_names.items())])

    def _name_classes(self, folder: Path, labels: dict[str, str]) -> dict[str, str]:
        """Replace labels by class names; raise UsageError if a label has no name."""
        label_set = set(labels.values())
        if self.class_names is None:
            if label_set and all(map(_NUMBER.fullmatch, label_set)):
                warnings.warn(
                    MarsRetrievalWarning(
                        f"{folder}: its {len(label_set)} labels are numbers without names, so "
                        "the query "
                        f"text would be '{sorted(label_set)[0]}'. Name the classes: "
                        "--class-names FILE"
                    ),
                    stacklevel=2,
                )
            return labels
        missing = sorted(label_set - self.class_names.keys())
        if missing:
            names = ", ".join(missing[:_MAX_NAMES]) + (", ..." if len(missing) > _MAX_NAMES else "")
            raise UsageError(
                f"the class names lack {len(missing)} of {len(label_set)} labels of {folder}: "
                f"{names}",
                remedy="Name every label: a line per class in the order of their numbers from 0, "
                "or lines LABEL,NAME in a .csv, or an object in a .json.",
            )
        return {key: self.class_names[label] for key, label in labels.items()}

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        """Return "text" if the model has no text encoder.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            "text" or None.
        """
        return None if "text" in modalities else "text"

    def limit(self, data: TaskData, count: int) -> TaskData:
        """Limit the data to the first images of each class, taken in turn from the classes.

        Args:
            data: Data of the task.
            count: Number of images to keep.

        Returns:
            The limited data; classes without an image left are no queries.

        Raises:
            DataError: If fewer than two classes are left.
        """
        labels = balanced(data.annotations, count)
        classes = sorted(set(labels.values()))
        _require_two_classes(data.folder, classes)
        return limited_data(
            data,
            None if data.source is None else select(data.source, list(labels)),
            count,
            kept=len(labels),
            of=len(data.annotations),
            items="images",
            dropped_queries=len(set(data.annotations.values())) - len(classes),
            counts={"images": len(labels), "classes": len(classes)},
            annotations=labels,
        )

    def evaluate(
        self,
        data: TaskData,
        encoder: Encoder,
        images: EmbeddingStore,
        scratch: Path,
        settings: Settings,
        progress: Progress = NO_PROGRESS,
    ) -> Outcome:
        """Rank all labelled images for every class, and score the rankings.

        Args:
            data: Data of the task.
            encoder: The model, which embeds the prompts.
            images: Store of the image embeddings.
            scratch: Unused.
            settings: Settings of the evaluation.
            progress: Unused.

        Returns:
            One evaluation, "all".

        Raises:
            DataError: If fewer than two classes have images in the store.
        """
        labels: dict[str, str] = data.annotations
        classes = sorted(set(labels.values()))
        start = time.perf_counter()
        prompts = [prompt for name in classes for prompt in landform_prompts(name)]
        vectors = embed_texts(encoder, prompts).reshape(len(classes), -1, encoder.dimension)
        queries = np.stack([text_query(prompt_vectors) for prompt_vectors in vectors])
        embedded = time.perf_counter()

        ids, matrix = images.load()
        labelled_rows = [row for key, row in first_rows(ids).items() if key in labels]
        image_ids = [ids[row] for row in labelled_rows]
        _require_two_classes(data.folder, {labels[key] for key in image_ids})
        evaluation = landform.evaluate(
            matrix[labelled_rows],
            queries,
            labels=[labels[key] for key in image_ids],
            image_ids=image_ids,
            query_names=classes,
            seed=settings.seed,
            resamples=settings.resamples,
        )
        content = images.content_hashes()
        # Request enough hits to drop unscored rows: unlabelled items and duplicates.
        ranking = exact_topk(
            images, queries, _HITS_PER_CLASS + len(ids) - len(labelled_rows), index="use"
        )
        hits = Hits()
        for query, name in enumerate(classes):
            scores, rows = ranking.hits(query)
            hit_rows = np.flatnonzero(np.isin(rows, labelled_rows))[:_HITS_PER_CLASS]
            for rank, (score, row) in enumerate(
                zip(scores[hit_rows], rows[hit_rows], strict=True), 1
            ):
                key = ids[row]
                hits.append("all", name, rank, key, float(score), relevant=labels[key] == name)
        return Outcome(
            groups={"all": evaluation},
            n={"images": len(image_ids), "classes": len(classes)},
            set_hash=set_hash(
                (ids[row], annotated_hash(content[row], labels[ids[row]])) for row in labelled_rows
            ),
            hits=hits,
            truncated=count_cut(encoder, prompts, role="query"),
            timings={
                "embed_texts": embedded - start,
                "score": time.perf_counter() - embedded,
            },
        )


def _require_two_classes(folder: Path, classes: Collection[str]) -> None:
    """Raise DataError if there are fewer than two classes; every ranking would be perfect."""
    if len(classes) < 2:
        label = f"all images have the label '{next(iter(classes))}'" if classes else "no image left"
        raise DataError(
            f"{folder}: {label}, at least two classes with images are needed", remedy=_LABEL_REMEDY
        )
