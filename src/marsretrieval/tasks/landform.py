"""Task 2, landform retrieval: rank all images by a class name."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from marsretrieval.datasets.base import ImageSource, annotated_hash, set_hash
from marsretrieval.datasets.open import open_images
from marsretrieval.embeddings.batches import embed_texts
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.errors import DataError, MarsRetrievalWarning, UsageError
from marsretrieval.io import sha256_json
from marsretrieval.metrics import landform
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.query import (
    TEMPLATES,
    landform_prompts,
    name_templates,
    text_query,
)
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
from marsretrieval.text import list_some, pluralize, verb

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Modality

Queries = Literal["text", "images"]

_HITS_PER_CLASS = 20
_DISTRACTOR = "(distractor)"  # in the labels of images that are no query
_NUMBER = re.compile(r"[+-]?\d+")
_MAX_NAMES = 5  # labels listed in a message

_LABEL_REMEDY = (
    "Labels come from one folder of images per class (crater/0.png, or train/crater/0.png), "
    "from a column 'label' of a Parquet file, from 'label' in the JSON beside an image, or from "
    "a table labels*.txt of lines FILE LABEL; with a metadata file or a table of pairs, from its "
    "column 'label' instead of folders. File names and folders of a split (train, test, val) are "
    "not labels."
)


class LandformRetrieval:
    """Landform retrieval with the class names, or every image, as queries.

    Each class name is embedded with prompts whose vectors are averaged.

    Attributes:
        class_names: Label in the data to the name of its class in the prompts; None for labels.
        templates: Prompt templates.
        queries: Kind of the queries.
    """

    name = "landform"
    aliases: tuple[str, ...] = ("landform_retrieval",)
    title = "Landform retrieval"
    folder_name = "Mars-Landforms"
    vector_dtype = "float32"
    main_metric = "mAP"

    def __init__(
        self,
        class_names: Mapping[str, str | None] | None = None,
        *,
        templates: Sequence[str] = TEMPLATES,
        queries: Queries = "text",
    ) -> None:
        """Set how classes are queried.

        Args:
            class_names: Label in the data to the name of its class in the prompts, for all labels;
                None as a name makes the images of a label distractors. None: labels are the names.
            templates: Prompt templates with {} for the name.
            queries: "text", or "images" to rank the others of its class for every image
                (leave-one-out), which needs no text encoder and is not of the paper.

        Raises:
            UsageError: If there is no such kind of query, or it uses no templates.
        """
        if queries not in get_args(Queries):
            raise UsageError(f"queries '{queries}' are unknown", remedy="Use text or images.")
        if queries == "images" and tuple(templates) != TEMPLATES:
            raise UsageError(
                "templates do not apply to image queries", remedy="Leave out one of the two."
            )
        self.class_names = class_names
        self.templates = tuple(templates)
        self.queries = queries

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from the published protocol."""
        options: dict[str, Any] = {}
        if self.class_names is not None:
            options["class_names"] = dict(self.class_names)
        if self.templates != TEMPLATES:
            options["templates"] = name_templates(self.templates)
        if self.queries != "text":
            options["queries"] = self.queries
        return options

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
        folder = dataset_folder(data, self.folder_name, task=self.name, file_allowed=True)
        source = open_images(folder)
        labels, skipped = collect(source, lambda record: record.label, missing="no label")
        notes = self._unused_names(folder, labels.values())
        labels = self._name_classes(folder, labels)
        classes = self._queried(labels.values())
        if not labels:
            raise DataError(
                f"{folder}: no image has a label{first_reason(skipped)}", remedy=_LABEL_REMEDY
            )
        if len(classes) < 2 <= len(set(labels.values())) and self._distractors:
            raise DataError(
                f"{folder}: the class names mark {pluralize(len(self._distractors), 'label')} as "
                f"distractors and leave {len(classes)} as queries",
                remedy="Name at least two classes; - and null mark distractors.",
            )
        _require_two_classes(folder, classes)
        return TaskData(
            folder=folder,
            source=source if with_images else None,
            counts={"images": len(labels), "classes": len(classes)},
            fingerprint=self._fingerprint(source, labels),
            annotations=labels,
            skipped=skipped,
            notes=notes,
        )

    def _unused_names(self, folder: Path, labels: Iterable[str]) -> list[str]:
        """Note about class names of labels that no image has."""
        unused = sorted((self.class_names or {}).keys() - set(labels))
        if not unused:
            return []
        return [
            f"{folder}: no image of {pluralize(len(unused), 'label')} in the class names: "
            f"{list_some(unused, _MAX_NAMES)}"
        ]

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
                        f"{folder}: its {pluralize(len(label_set), 'label')} "
                        f"{verb(len(label_set), 'is a number', 'are numbers')} without names, so "
                        f"the query text would be '{sorted(label_set)[0]}'. Name the classes: "
                        "--class-names FILE"
                    ),
                    stacklevel=2,
                )
            return labels
        missing = sorted(label_set - self.class_names.keys())
        if missing:
            names = ", ".join(missing[:_MAX_NAMES]) + (", ..." if len(missing) > _MAX_NAMES else "")
            raise UsageError(
                f"the class names lack {len(missing)} of {pluralize(len(label_set), 'label')} of "
                f"{folder}: {names}",
                remedy="Name every label: a line per class in the order of their numbers from 0, "
                "or lines LABEL,NAME in a .csv, or an object in a .json.",
            )
        class_names = {
            label: f"{label} {_DISTRACTOR}" if name is None else name
            for label, name in self.class_names.items()
        }
        return {key: class_names[label] for key, label in labels.items()}

    def query_names(self, data: TaskData) -> list[str]:
        """Return the classes that are queries.

        Args:
            data: Data of the task.

        Returns:
            Sorted names of the classes, without distractors.
        """
        return self._queried(data.annotations.values())

    def _queried(self, names: Iterable[str]) -> list[str]:
        """Sorted names of the classes that are queries: all but the distractors."""
        return sorted(set(names) - self._distractors)

    @property
    def _distractors(self) -> set[str]:
        return {
            f"{label} {_DISTRACTOR}"
            for label, name in (self.class_names or {}).items()
            if name is None
        }

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        """Return "text" if the model has no text encoder and the queries are texts.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            "text" or None.
        """
        return None if "text" in modalities or self.queries == "images" else "text"

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
        from marsretrieval.tasks.limit import balanced, limited_data, select  # for --limit only

        labels = balanced(data.annotations, count)
        classes = self._queried(labels.values())
        _require_two_classes(data.folder, classes)
        return limited_data(
            data,
            None if data.source is None else select(data.source, list(labels)),
            count,
            kept=len(labels),
            of=len(data.annotations),
            items="images",
            dropped_queries=len(self._queried(data.annotations.values())) - len(classes),
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
        classes = self._queried(labels.values())
        start = time.perf_counter()
        prompts: list[str] = []
        if self.queries == "text":
            prompts = [
                prompt for name in classes for prompt in landform_prompts(name, self.templates)
            ]
            vectors = embed_texts(encoder, prompts).reshape(len(classes), -1, encoder.dimension)
            queries = np.stack([text_query(prompt_vectors) for prompt_vectors in vectors])
        embedded = time.perf_counter()

        ids, matrix = images.load()
        labelled_rows = [row for key, row in first_rows(ids).items() if key in labels]
        image_ids = [ids[row] for row in labelled_rows]
        _require_two_classes(data.folder, {labels[key] for key in image_ids})
        items: dict[str, Any] = {
            "labels": [labels[key] for key in image_ids],
            "image_ids": image_ids,
            "query_names": classes,
        }
        bootstrap: dict[str, Any] = {"seed": settings.seed, "resamples": settings.resamples}
        notes: list[str] = []
        query_rows: list[int | None] = [None] * len(classes)
        query_ids = list(classes)
        if self.queries == "images":
            evaluation = landform.evaluate_examples(matrix[labelled_rows], **items, **bootstrap)
            single = len(classes) - evaluation.n["classes"]
            if single:
                notes.append(
                    f"image queries: classes with one image have no value: {single:,} of "
                    f"{len(classes):,}"
                )
            # Hits show the first image of each class.
            first = {labels[ids[row]]: row for row in reversed(labelled_rows)}
            shown_rows = [first[name] for name in evaluation.per_query["class"]]
            query_ids = [f"{labels[ids[row]]}: {ids[row]}" for row in shown_rows]
            queries = matrix[shown_rows]
            query_rows = [*shown_rows]
        else:
            evaluation = landform.evaluate(matrix[labelled_rows], queries, **items, **bootstrap)
        content = images.content_hashes()
        # Request enough hits to drop unscored rows: unlabelled items and duplicates.
        ranking = exact_topk(
            images, queries, _HITS_PER_CLASS + 1 + len(ids) - len(labelled_rows), index="use"
        )
        hits = Hits()
        for query, (name, own_row) in enumerate(zip(query_ids, query_rows, strict=True)):
            label = name if own_row is None else labels[ids[own_row]]
            scores, rows = ranking.hits(query)
            is_labelled = np.isin(rows, labelled_rows) & (
                rows != (-1 if own_row is None else own_row)
            )
            hit_rows = np.flatnonzero(is_labelled)[:_HITS_PER_CLASS]
            for rank, (score, row) in enumerate(
                zip(scores[hit_rows], rows[hit_rows], strict=True), 1
            ):
                key = ids[row]
                hits.append("all", name, rank, key, float(score), relevant=labels[key] == label)
        return Outcome(
            groups={"all": evaluation},
            n={"images": len(image_ids), "classes": evaluation.n["classes"]},
            set_hash=set_hash(
                (ids[row], annotated_hash(content[row], labels[ids[row]])) for row in labelled_rows
            ),
            hits=hits,
            truncated=count_cut(encoder, prompts, role="query") if prompts else {},
            notes=notes,
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
