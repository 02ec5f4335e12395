"""Task 1, paired image-text retrieval: image to caption and caption to image."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from marsretrieval.datasets.base import Skipped, annotated_hash, set_hash
from marsretrieval.datasets.open import open_images
from marsretrieval.embeddings.builder import build_text_store
from marsretrieval.embeddings.store import EmbeddingStore, open_store
from marsretrieval.errors import DataError, UsageError
from marsretrieval.metrics import paired
from marsretrieval.progress import NO_PROGRESS, Progress
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
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Modality

Caption = Literal["refined", "original"]

_HITS_PER_QUERY = 10


class PairedImageText:
    """Paired image-text retrieval among all pairs of a dataset.

    If a dataset has two captions per image, the refined one is used by default, as in the published
    evaluation.

    Attributes:
        caption: Which caption is used.
    """

    name = "paired-image-text"
    aliases: tuple[str, ...] = ("paired_image_text_retrieval", "paired")
    title = "Paired image-text retrieval"
    folder_name = "Mars-VL-Pairs"
    vector_dtype = "float32"
    main_metric = "t2i_mrr"

    def __init__(self, *, caption: Caption = "refined") -> None:
        """Set which caption is used.

        Args:
            caption: "refined", or "original" for the caption before refinement.

        Raises:
            UsageError: If there is no such caption.
        """
        if caption not in get_args(Caption):
            raise UsageError(f"caption '{caption}' is unknown", remedy="Use refined or original.")
        self.caption = caption

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from the published protocol."""
        return {} if self.caption == "refined" else {"caption": self.caption}

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        """Return "text" if the model has no text encoder.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            "text" or None.
        """
        return None if "text" in modalities else "text"

    def open(self, data: str | Path, *, with_images: bool = True) -> TaskData:
        """Find the images and their captions.

        Args:
            data: Folder of datasets, or one dataset.
            with_images: Open the images; False if the caller supplies a store of their embeddings.

        Returns:
            The data.

        Raises:
            DatasetNotFoundError: If the dataset is missing.
            DataError: If no image has a caption.
        """
        data = Path(data)
        folder = dataset_folder(data, self.folder_name, task=self.name, file_allowed=True)
        source = open_images(folder)
        if self.caption == "original":
            captions, skipped = collect(
                source, lambda record: record.original_caption, missing="no original caption"
            )
        else:
            captions, skipped = collect(source, lambda record: record.caption, missing="no caption")
        if not captions and self.caption == "original":
            raise DataError(
                f"{folder}: {pluralize(len(skipped), 'image')}, none with an original caption"
                f"{first_reason(skipped)}",
                remedy="The original caption is the field ori_caption beside refined_caption; "
                "without it, leave out --caption original.",
            )
        if not captions:
            raise DataError(
                f"{folder}: {pluralize(len(skipped), 'image')}, none with a caption"
                f"{first_reason(skipped)}",
                remedy="Pairs need a caption beside each image (key.json with refined_caption, or "
                "key.txt) or in a column (caption, text, or title beside filepath).",
            )
        return TaskData(
            folder=folder,
            source=source if with_images else None,
            counts={"pairs": len(captions)},
            fingerprint=fingerprint(source, captions),
            annotations=captions,
            skipped=skipped,
        )

    def limit(self, data: TaskData, count: int) -> TaskData:
        """Limit the data to the first pairs in the order of the dataset.

        Args:
            data: Data of the task.
            count: Number of pairs to keep.

        Returns:
            The limited data.
        """
        from marsretrieval.tasks.limit import limited_data, select  # for --limit only

        captions = dict(islice(data.annotations.items(), count))
        return limited_data(
            data,
            None if data.source is None else select(data.source, list(captions)),
            count,
            kept=len(captions),
            of=len(data.annotations),
            items="pairs",
            counts={"pairs": len(captions)},
            annotations=captions,
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
        """Embed the captions, rank in both directions, and score the rankings.

        Args:
            data: Data of the task.
            encoder: The model, which embeds the captions.
            images: Store of the image embeddings.
            scratch: Folder for the store of the caption embeddings.
            settings: Settings of the evaluation.
            progress: Receives the progress.

        Returns:
            One evaluation, "all".

        Raises:
            DataError: If fewer than two pairs have a readable image.
        """
        captions: dict[str, str] = data.annotations
        start = time.perf_counter()
        name = "captions" if self.caption == "refined" else f"captions-{self.caption}"
        build_text_store(
            encoder, list(captions.items()), scratch / name, role="caption", progress=progress
        )
        text_ids, text_vectors = open_store(scratch / name).load()
        embedded = time.perf_counter()

        image_ids, image_vectors = images.load()
        rows = first_rows(image_ids)
        pairs = [(rows[key], row) for row, key in enumerate(text_ids) if key in rows]
        without_image = [Skipped(key, str(data.folder), "caption without a readable image")
                for key in text_ids if key not in rows]  # fmt: skip
        if len(pairs) < 2:
            raise DataError(
                f"{data.folder}: {pluralize(len(pairs), 'pair')} with a readable image, at least "
                "2 are needed",
                remedy=f"marsretrieval data verify {data.folder} lists the problems of the others.",
            )
        image_rows, text_rows = (np.array(column) for column in zip(*pairs, strict=True))
        ids = [text_ids[row] for row in text_rows]
        pair_images, pair_texts = image_vectors[image_rows], text_vectors[text_rows]
        evaluation = paired.evaluate(
            pair_images, pair_texts, ids=ids, seed=settings.seed, resamples=settings.resamples
        )
        content = images.content_hashes()
        return Outcome(
            groups={"all": evaluation},
            n={"pairs": len(ids)},
            set_hash=set_hash(
                (key, annotated_hash(content[row], captions[key]))
                for key, row in zip(ids, image_rows, strict=True)
            ),
            hits=top_hits(pair_images, pair_texts, ids),
            skipped=without_image,
            truncated=count_cut(encoder, list(captions.values()), role="caption"),
            timings={
                "embed_texts": embedded - start,
                "score": time.perf_counter() - embedded,
            },
        )


def top_hits(images: np.ndarray, texts: np.ndarray, ids: list[str]) -> Hits:
    """Collect the top hits in both directions.

    Args:
        images: Unit vectors of shape (n, dim).
        texts: Unit vectors of shape (n, dim), paired with `images` row by row.
        ids: Ids of the pairs.

    Returns:
        Hits of the groups "i2t" and "t2i".
    """
    hits = Hits()
    top = min(_HITS_PER_QUERY, len(ids))
    for group, queries, corpus in (("i2t", images, texts), ("t2i", texts, images)):
        for start in range(0, len(ids), 1024):
            scores = queries[start : start + 1024] @ corpus.T
            order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
            for offset, best in enumerate(order):
                for rank, row in enumerate(best, 1):
                    hits.append(
                        group, ids[start + offset], rank, ids[row], float(scores[offset, row]),
                        relevant=bool(row == start + offset),
                    )  # fmt: skip
    return hits
