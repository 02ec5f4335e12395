"""Tasks 2 and 3 as task objects of MTEB, for `mteb.evaluate`.

MTEB embeds, ranks and scores; the metrics of the strict protocol are added to its own, from
the same ranking. Landform retrieval accepts any MTEB encoder of images and texts, and its main
score is MTEB's average precision. Geo-localization ranks the tiles of an embedding store, because
MTEB would embed all tiles of the planet in each run, and its main score is that of the strict
protocol, which judges points and not tiles. MTEB's registry is closed, so `mteb run -t` and
`mteb.get_task` do not know these tasks. Task 1 is part of MTEB.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.base import ImageSource, Record
from marsretrieval.datasets.images import decode_rgb
from marsretrieval.embeddings.batches import embed_images, embed_texts
from marsretrieval.embeddings.store import EmbeddingStore, open_store
from marsretrieval.encoders.torch_imports import import_mteb
from marsretrieval.errors import (
    DataError,
    ImageError,
    MarsRetrievalWarning,
    UsageError,
)
from marsretrieval.geo import near_any
from marsretrieval.metrics import geolocalization, landform
from marsretrieval.metrics.ranking import cosines, id_order, ranked
from marsretrieval.search.query import geolocalization_prompts, landform_prompts, text_query
from marsretrieval.search.topk import exact_topk
from marsretrieval.tasks.geolocalization import RADIUS_DEG, Geolocalization
from marsretrieval.tasks.landform import LandformRetrieval
from marsretrieval.tasks.landform_means import mean_over_landforms
from marsretrieval.tasks.tile_rankings import MAX_K, best_tiles, published_positions
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Vectors

LANDFORM_NAME = "MarsLandformsT2IRetrieval"
GEOLOCALIZATION_NAME = "MarsGlobalGeolocalizationT2IRetrieval"
_REFERENCE = "https://arxiv.org/abs/2602.13961"
_SPLIT = "test"

Results = Mapping[str, Mapping[str, float]]


class EncoderAdapter:
    """An encoder of this package with MTEB's encoder interface.

    Args:
        encoder: Model with images and texts.
    """

    def __init__(self, encoder: Encoder) -> None:
        import_mteb("tasks of MTEB")
        self.encoder = encoder

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's description of the model."""
        return _describe_model(self.encoder)

    def encode(self, inputs: Any, **settings: Any) -> Vectors:
        """Embed the images or texts of a data loader.

        Args:
            inputs: MTEB's data loader; batches have a column "image" or "text".
            **settings: Unused settings of MTEB.

        Returns:
            float32 array of shape (n, dim), unit rows.
        """
        parts = []
        for batch in inputs:
            if "image" in batch:
                parts.append(embed_images(self.encoder, [i.convert("RGB") for i in batch["image"]]))
            else:
                parts.append(embed_texts(self.encoder, batch["text"]))
        return np.concatenate(parts)

    def similarity(self, first: npt.ArrayLike, second: npt.ArrayLike) -> Any:
        """Compute cosines.

        Args:
            first: Unit rows, shape (n, dim).
            second: Unit rows, shape (m, dim).

        Returns:
            Tensor of shape (n, m).
        """
        import torch

        return torch.from_numpy(cosines(np.asarray(first), np.asarray(second)))

    def similarity_pairwise(self, first: npt.ArrayLike, second: npt.ArrayLike) -> Any:
        """Compute the cosine of each pair of rows.

        Args:
            first: Unit rows, shape (n, dim).
            second: Unit rows, shape (n, dim).

        Returns:
            Tensor of shape (n,).
        """
        import torch

        return torch.from_numpy(np.einsum("ij,ij->i", np.asarray(first), np.asarray(second)))


class PromptMeanSearch:
    """MTEB's search interface over an MTEB encoder, with the mean of prompt vectors as query.

    Args:
        model: MTEB encoder.
        prompts: Function from a class name to its prompts.
    """

    def __init__(self, model: Any, prompts: Callable[[str], list[str]] = landform_prompts) -> None:
        self.model = model
        self.prompts = prompts
        self._ids: list[str] = []
        self._vectors: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's description of the model."""
        return self.model.mteb_model_meta

    def index(
        self, corpus: Any, *, encode_kwargs: Mapping[str, Any], num_proc: int | None, **task: Any
    ) -> None:
        """Embed the images.

        Args:
            corpus: Dataset with the columns "id" and "image".
            encode_kwargs: Settings of the encoder.
            num_proc: Number of processes of the data loader.
            **task: Task, split and subset.
        """
        self._ids = list(corpus["id"])
        self._vectors = self._encode(corpus, "document", encode_kwargs, num_proc, task)

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None,
        top_ranked: Any = None,
        **task: Any,
    ) -> dict[str, dict[str, float]]:
        """Rank the images for every class name.

        Args:
            queries: Dataset with the columns "id" and "text".
            top_k: Number of images per class.
            encode_kwargs: Settings of the encoder.
            num_proc: Number of processes of the data loader.
            top_ranked: Unused.
            **task: Task, split and subset.

        Returns:
            Query id to image id to score.
        """
        from datasets import Dataset

        prompts = [self.prompts(name) for name in queries["text"]]
        flat = [prompt for of_name in prompts for prompt in of_name]
        dataset = Dataset.from_dict({"id": [str(row) for row in range(len(flat))], "text": flat})
        vectors = self._encode(dataset, "query", encode_kwargs, num_proc, task)
        of_query = vectors.reshape(len(prompts), -1, vectors.shape[1])
        scores = cosines(np.stack([text_query(rows) for rows in of_query]), self._vectors)
        order = id_order(self._ids)
        results = {}
        for name, row in zip(queries["id"], scores, strict=True):
            best = ranked(row, order)[:top_k]
            results[name] = {self._ids[item]: float(row[item]) for item in best}
        return results

    def _encode(
        self,
        dataset: Any,
        kind: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None,
        task: Mapping[str, Any],
    ) -> npt.NDArray[np.float32]:
        """Embed a dataset as MTEB does, and scale the rows to unit length."""
        from mteb._create_dataloaders import create_dataloader
        from mteb.types import PromptType

        prompt_type = PromptType(kind)
        loader = create_dataloader(
            dataset,
            task_metadata=task["task_metadata"],
            prompt_type=prompt_type,
            batch_size=encode_kwargs.get("batch_size", 32),
            num_proc=num_proc,
        )
        settings = {key: task[key] for key in ("task_metadata", "hf_split", "hf_subset")}
        rows = self.model.encode(loader, prompt_type=prompt_type, **settings, **encode_kwargs)
        if hasattr(rows, "detach"):
            rows = rows.detach().float().cpu().numpy()
        vectors = np.asarray(rows, dtype=np.float32)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not np.all(np.isfinite(norms) & (norms > 0)):
            raise DataError(f"the model returned a {kind} vector that is zero or not finite")
        unit = np.abs(norms - 1) < 1e-6  # keep the bits of unit rows
        scaled: npt.NDArray[np.float32] = np.where(unit, vectors, vectors / norms).astype(
            np.float32
        )
        return scaled


class StoreSearch:
    """MTEB's search interface over the tiles of an embedding store.

    Args:
        encoder: The model that made the store; it embeds the queries.
        store: Store of the tile embeddings, or its folder.

    Raises:
        StoreMismatchError: If the store holds vectors of another encoder.
    """

    def __init__(self, encoder: Encoder, store: EmbeddingStore | str | Path) -> None:
        import_mteb("tasks of MTEB")
        self.encoder = encoder
        self.store = store if isinstance(store, EmbeddingStore) else open_store(store)
        self.store.require_encoder(encoder.fingerprint)

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's description of the model."""
        return _describe_model(self.encoder)

    def index(self, corpus: Any, **settings: Any) -> None:
        """Check that the corpus is that of the store, which is already embedded.

        Args:
            corpus: Dataset with the column "id".
            **settings: Unused settings of MTEB.

        Raises:
            DataError: If the corpus has other tiles.
        """
        if len(corpus) != self.store.rows:
            raise DataError(
                f"{self.store.path}: {pluralize(self.store.rows, 'tile')}, but the task has "
                f"{len(corpus):,}",
                remedy="Make the task with the same store.",
            )

    def search(self, queries: Any, *, top_k: int, **settings: Any) -> dict[str, dict[str, float]]:
        """Rank the tiles for every landform.

        Args:
            queries: Dataset with the columns "id" and "text" (the landform's name).
            top_k: Number of tiles per landform, besides ties with the last of them.
            **settings: Unused settings of MTEB.

        Returns:
            Query id to tile id to score.
        """
        vectors = np.stack(
            [
                text_query(embed_texts(self.encoder, geolocalization_prompts(name)))
                for name in queries["text"]
            ]
        )
        ranking = exact_topk(self.store, vectors, max(top_k, MAX_K) + 1, index="use")
        results = {}
        for number, name in enumerate(queries["id"]):
            scores, rows = best_tiles(self.store, vectors[number], *ranking.hits(number))
            results[name] = dict(zip(self.store.ids(rows), map(float, scores), strict=True))
        return results


def landform_task(data: str | Path) -> Any:
    """Make landform retrieval (task 2) a task of MTEB.

    Args:
        data: Folder of datasets, or the dataset, as for `LandformRetrieval.open`.

    Returns:
        Instance of MTEB's `AbsTaskRetrieval`. Its main score is `map_at_all`, the average precision
        of whole rankings by MTEB's evaluator, not rounded; that of this package is `mAP`.

    Raises:
        MissingDependencyError: If mteb is not installed.
        DataError: If the data are invalid.
    """
    return _task_classes()[0](Path(data))


def geolocalization_task(data: str | Path, store: EmbeddingStore | str | Path) -> Any:
    """Make geo-localization by text (task 3) a task of MTEB.

    Args:
        data: Folder of datasets, or the dataset, as for `Geolocalization.open`.
        store: Store of the tile embeddings, or its folder; evaluate a `StoreSearch` over it.

    Returns:
        Instance of MTEB's `AbsTaskRetrieval`; its main score is `average_precision`.

    Raises:
        MissingDependencyError: If mteb is not installed.
        DataError: If the data are invalid.
    """
    if not isinstance(store, EmbeddingStore):
        store = open_store(store)
    return _task_classes()[1](Path(data), store)


def _describe_model(encoder: Encoder) -> Any:
    from mteb.models.model_meta import ModelMeta

    name = encoder.id if "/" in encoder.id else f"marsretrieval/{encoder.id}"
    fingerprint = encoder.fingerprint
    revision = fingerprint.get("revision") or fingerprint.get("weights_sha256")
    changes: dict[str, Any] = {
        "name": name.replace(":", "-"),
        "embed_dim": encoder.dimension,
        "modalities": sorted(encoder.modalities),
    }
    if revision:
        changes["revision"] = str(revision)
    return ModelMeta.create_empty(changes)


def _encode_images(source: ImageSource, ids: Mapping[str, str]) -> dict[str, bytes]:
    """Decode the images of a source as `run` does; return their pixels as PNG by id."""
    images: dict[str, bytes] = {}
    unread: list[str] = []
    for shard in source.shards():
        for item in source.read(shard):
            if not isinstance(item, Record) or item.id not in ids or item.id in images:
                continue
            try:
                buffer = io.BytesIO()
                decode_rgb(item.data, item.source).save(buffer, "PNG", compress_level=1)
            except ImageError as error:
                unread.append(error.message)
            else:
                images[item.id] = buffer.getvalue()
    if unread:
        warnings.warn(
            MarsRetrievalWarning(
                f"{pluralize(len(unread), 'image')} left out (first: {unread[0]})"
            ),
            stacklevel=2,
        )
    return images


def _ranked_relevance(
    scores: Mapping[str, float], relevant: Mapping[str, int]
) -> npt.NDArray[np.bool_]:
    """Relevance in the order of the strict protocol."""
    ids = list(scores)
    order = ranked(np.array(list(scores.values())), id_order(ids))
    return np.array([ids[row] in relevant for row in order], np.bool_)


def _score_landforms(qrels: Mapping[str, Mapping[str, int]], results: Results) -> dict[str, float]:
    """Means over classes of the strict metrics."""
    metrics = [
        landform.class_metrics(_ranked_relevance(results[name], relevant))
        for name, relevant in qrels.items()
    ]
    return {key: float(np.mean([of_class[key] for of_class in metrics])) for key in metrics[0]}


def _score_points(
    points: Mapping[str, npt.NDArray[np.float64]], store: EmbeddingStore, results: Results
) -> dict[str, float]:
    """Means over landforms of the metrics of both protocols, and the main one per landform."""
    centres = store.positions()
    row_of = {name: row for row, name in enumerate(store.ids(np.arange(store.rows)))}
    groups = {}
    for name, scores in results.items():
        tiles = store.take(np.array([row_of[tile] for tile in scores]))
        groups[f"{name}/text"] = geolocalization.evaluate(
            np.array(list(scores.values())),
            ids=tiles.ids,
            published_lonlat=published_positions(tiles.ids, tiles.lon, tiles.lat),
            centre_lonlat=np.column_stack([tiles.lon, tiles.lat]),
            truth_lonlat=points[name],
            all_centre_lonlat=centres,
            radius_deg=RADIUS_DEG,
            max_k=MAX_K,
            resamples=0,
        )
    (mean,) = mean_over_landforms(groups).values()
    return {
        "average_precision": mean.strict["average_precision"],
        "normalised": mean.strict["normalised"],
        "best_f1": mean.strict["best"]["f1"],
        "published_auprc": mean.published["auprc"],
        "published_best_f1": mean.published["best"]["f1"],
        **{
            f"average_precision/{group.removesuffix('/text')}": evaluation.strict[
                "average_precision"
            ]
            for group, evaluation in groups.items()
        },
    }


@cache
def _task_classes() -> tuple[type[Any], type[Any]]:
    """Define the classes, which derive from a class of mteb, once it is imported."""
    import_mteb("tasks of MTEB")
    from datasets import Dataset, Image
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.models_protocols import SearchProtocol

    def describe(name: str, description: str, path: str, main_score: str) -> Any:
        return TaskMetadata(
            name=name,
            description=description,
            reference=_REFERENCE,
            dataset={"path": path, "revision": "local"},
            type="Any2AnyRetrieval",
            category="t2i",
            modalities=["text", "image"],
            eval_splits=[_SPLIT],
            eval_langs=["eng-Latn"],
            main_score=main_score,
            task_subtypes=["Image Text Retrieval"],
        )

    def split(queries: Sequence[str], corpus: Any, relevant: Any) -> dict[str, Any]:
        names = {"id": list(queries), "text": list(queries)}
        data = {
            "queries": Dataset.from_dict(names),
            "corpus": corpus,
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        return {"default": {_SPLIT: data}}

    class MarsLandforms(AbsTaskRetrieval):  # type: ignore[misc]
        """Landform retrieval: rank all images by the name of a class."""

        data_loaded: bool

        metadata = describe(
            LANDFORM_NAME,
            "Given the name of a landform, retrieve the orbital images of Mars that show it.",
            "SUSTech/Mars-Landforms",
            "map_at_all",
        )

        def __init__(self, folder: Path) -> None:
            super().__init__()
            self.data = LandformRetrieval().open(folder)

        def load_data(self, num_proc: int | None = None, **settings: Any) -> None:
            if self.data_loaded:
                return
            labels: dict[str, str] = self.data.annotations
            assert self.data.source is not None
            images = _encode_images(self.data.source, labels)
            rows = [{"bytes": png, "path": None} for png in images.values()]
            corpus = Dataset.from_dict({"id": list(images), "image": rows})
            relevant: dict[str, dict[str, int]] = {}
            for name in images:
                relevant.setdefault(labels[name], {})[name] = 1
            self.dataset = split(sorted(relevant), corpus.cast_column("image", Image()), relevant)
            self._top_k = len(images)  # the metrics need the whole ranking
            self.k_values = sorted({*AbsTaskRetrieval.k_values, len(images)})
            self.data_loaded = True

        def _evaluate_subset(self, model: Any, data_split: Any, **settings: Any) -> Any:
            if not isinstance(model, SearchProtocol):
                model = PromptMeanSearch(model)
            return super()._evaluate_subset(model, data_split, **settings)

        def task_specific_scores(
            self, scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str
        ) -> dict[str, float]:
            values = [of_query[f"map_cut_{self._top_k}"] for of_query in scores.values()]
            return {"map_at_all": float(np.mean(values)), **_score_landforms(qrels, results)}

    class MarsGeolocalization(AbsTaskRetrieval):  # type: ignore[misc]
        """Geo-localization: rank the tiles of a store by the name of a landform."""

        data_loaded: bool

        k_values = (1, 10, 100, 1000, MAX_K)
        metadata = describe(
            GEOLOCALIZATION_NAME,
            "Given the name of a landform, retrieve the tiles of Mars that are near its points.",
            "SUSTech/Mars-Global-Geolocalization",
            "average_precision",
        )

        def __init__(self, folder: Path, store: EmbeddingStore) -> None:
            super().__init__()
            self.store = store
            annotations = Geolocalization().open(folder, with_images=False).annotations
            self.points = {
                name: np.column_stack([catalogue.lon, catalogue.lat])
                for name, catalogue in annotations.points.items()
            }

        def load_data(self, num_proc: int | None = None, **settings: Any) -> None:
            if self.data_loaded:
                return
            ids = self.store.ids(np.arange(self.store.rows))
            centres = self.store.positions()
            relevant = {}
            for name, points in self.points.items():
                near = near_any(
                    centres[:, 0], centres[:, 1], points[:, 0], points[:, 1], RADIUS_DEG
                )
                relevant[name] = {ids[row]: 1 for row in np.flatnonzero(near)}
                if not near.any():
                    raise DataError(
                        f"{name}: no tile of {self.store.path} is within {RADIUS_DEG} degrees of "
                        "a point",
                        remedy="Use a store of tiles near the points, or remove the catalogue.",
                    )
            self.dataset = split(list(self.points), Dataset.from_dict({"id": ids}), relevant)
            self.data_loaded = True

        def _evaluate_subset(self, model: Any, data_split: Any, **settings: Any) -> Any:
            if not isinstance(model, SearchProtocol):
                raise UsageError(
                    f"{GEOLOCALIZATION_NAME}: MTEB would embed "
                    f"{pluralize(self.store.rows, 'tile')}",
                    remedy="Evaluate StoreSearch(encoder, store).",
                )
            return super()._evaluate_subset(model, data_split, **settings)

        def task_specific_scores(
            self, scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str
        ) -> dict[str, float]:
            return _score_points(self.points, self.store, results)

    return MarsLandforms, MarsGeolocalization
