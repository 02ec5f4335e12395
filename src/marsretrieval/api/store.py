"""Search interface of a store: open it, load its model, run searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval import embeddings
from marsretrieval.api.query import PreparedSearch, SearchQuery, prepare_search, search_options
from marsretrieval.api.result import SearchResult, summarize_scores, warn_truncated
from marsretrieval.api.store_model import StoreModel
from marsretrieval.encoders.torch_imports import check_device
from marsretrieval.errors import (
    MarsRetrievalError,
    UsageError,
    as_optional,
    as_path,
    as_paths,
)
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import Hits, exact_topk, existing_index, score_all
from marsretrieval.search.index.find import known_of
from marsretrieval.search.query import MIX, NOT_WEIGHT, text_vector
from marsretrieval.search.scores import MEANINGLESS, Background, ScoreSample
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from PIL.Image import Image

    from marsretrieval.api.query import Bounds, LonLat, RegionLike
    from marsretrieval.embeddings import Columns, EmbeddingStore
    from marsretrieval.encoders import Encoder
    from marsretrieval.search import Ranking
    from marsretrieval.search.learned import Whitening

    ImageLike = str | Path | Image | npt.NDArray[Any]

Vector = npt.NDArray[np.float32]


def open_store(
    path: str | Path | Sequence[str | Path],
    *,
    encoder: Encoder | Any | None = None,
    model: str | None = None,
    checkpoint: str | Path | None = None,
    trust: bool = False,
    device: str = "auto",
    offline: bool = False,
    trust_remote_code: bool = False,
    report: Callable[[str], None] | None = None,
) -> Store:
    """Open a store of images, or several stores of one model as one.

    The model that made the store is loaded when a query first needs it, and kept. A model of the
    registry loads by itself. A class, an `st:` or `mteb:` model has to be named with `model`, and
    local weights with `checkpoint`: a store never chooses code or files, unless `trust` is set.

    Args:
        path: Folder of the store, or a list of folders. Several stores are searched together, in
            one ranking; ids may then be given as ``NAME:ID``.
        encoder: A loaded model, or any object with `encode_images`.
        model: Name of the model that made the store.
        checkpoint: Local weights of that model.
        trust: Load whatever class and checkpoint the store names.
        device: As of `load_model`.
        offline: As of `load_model`.
        trust_remote_code: As of `load_model`.
        report: Called with a line when loading begins.

    Returns:
        The store.

    Raises:
        StoreError: If there is no store at `path`.
        StoreMismatchError: If `encoder` is not the model that made the store, or the stores are of
            several models.
        UsageError: If it holds texts, or a store is given twice.
    """
    paths = as_paths(path, "path")
    check_device(device)
    stores = [embeddings.open_store(folder) for folder in paths]
    if not stores:
        raise UsageError("no store to open", remedy="Give at least one folder.")
    store = stores[0] if len(stores) == 1 else embeddings.CombinedStore(stores)
    if encoder is not None:
        from marsretrieval.encoders.loading import resolve_model

        encoder = resolve_model(encoder).load()
    return Store(
        store,
        encoder=encoder,
        model=StoreModel(
            store,
            model=model,
            checkpoint=as_optional(as_path, checkpoint, "checkpoint"),
            trust=trust,
            device=device,
            offline=offline,
            trust_remote_code=trust_remote_code,
        ),
        report=report or (lambda line: None),
    )


def store_info(store: EmbeddingStore) -> dict[str, Any]:
    """Describe a store of images or texts.

    Args:
        store: The store.

    Returns:
        A JSON object, as `Store.info`.

    Raises:
        StoreError: If a shard is damaged.
    """
    search_index = existing_index(store)
    elapsed = store.seconds("elapsed")
    return {
        "store": str(store.path),
        "kind": store.kind,
        "complete": store.complete,
        "rows": store.rows,
        "shards": len(store.manifest.shards),
        "shards_missing": len(store.missing),
        "dimension": store.dimension,
        "dtype": store.dtype,
        "bytes": sum(entry.bytes for entry in store.entries),
        "set_hash": store.set_hash,
        "dataset": dict(store.dataset),
        "encoder": dict(store.encoder),
        "created": store.manifest.created,
        "search_view": None if search_index is None else str(search_index.path),
        "search_view_bytes": None if search_index is None else search_index.bytes,
        "images_per_s": store.rows / elapsed if elapsed else None,
        "device_idle": min(1.0, store.seconds("wait") / elapsed) if elapsed else None,
        "skipped": [asdict(item) for item in store.skipped],
    }


class Store:
    """Store of image embeddings with its model: vectors, metadata and searches.

    Returned by `open_store` and `build_store`. Rows are numbered from 0 in a fixed order; a row is
    a tile with its id, position and unit vector.

    Attributes:
        embeddings: The files of the store, for the functions of `search` and `embeddings`.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        *,
        encoder: Encoder | None,
        model: StoreModel,
        report: Callable[[str], None],
    ) -> None:
        if store.kind != "image":
            raise UsageError(f"{store.path} holds texts, not images")
        if encoder is not None:
            store.require_encoder(encoder.fingerprint)
        self.embeddings = store
        self._encoder = encoder
        self._model = model
        self._report = report
        self._sample: ScoreSample | None = None
        self._whitening: Whitening | None = None
        self._meaningless: dict[bool, list[Background]] = {}

    def __len__(self) -> int:
        return self.embeddings.rows

    def __repr__(self) -> str:
        return f"<Store {self.path}: {pluralize(len(self), 'image')} by {self.model}>"

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self.embeddings.path

    @property
    def model(self) -> str:
        """Id of the model that made the store."""
        return str(self.embeddings.encoder.get("id"))

    @property
    def dimension(self) -> int:
        """Number of components of a vector."""
        return self.embeddings.dimension

    @property
    def complete(self) -> bool:
        """Whether all planned shards are finished."""
        return self.embeddings.complete

    @property
    def set_hash(self) -> str:
        """Hash of the ids and contents of all rows, independent of their order."""
        return self.embeddings.set_hash

    @property
    def ids(self) -> list[str]:
        """Ids of all rows."""
        return [name for block in self.embeddings.blocks() for name in block.ids]

    def vectors(self, rows: npt.ArrayLike | None = None) -> Vector:
        """Copy vectors into memory.

        Args:
            rows: n row numbers; None: all rows.

        Returns:
            float32 array of shape (n, dimension), unit rows, in the order of `rows`.

        Raises:
            IndexError: If a row number is out of range.
            StoreError: If a shard is damaged.
        """
        if rows is None:
            return self.embeddings.load()[1]
        return self.embeddings.vectors(rows).astype(np.float32)

    def metadata(self, rows: npt.ArrayLike | None = None) -> Columns:
        """Return ids, positions, extents and source files.

        Args:
            rows: n row numbers; None: all rows.

        Returns:
            Columns of n rows, in the order of `rows`.

        Raises:
            IndexError: If a row number is out of range.
            StoreError: If a shard is damaged.
        """
        return self.embeddings.take(np.arange(len(self)) if rows is None else rows)

    def info(self) -> dict[str, Any]:
        """Describe the store, as ``marsretrieval store info --json`` does.

        Returns:
            A JSON object: rows, shards, dimension, dtype, set hash, dataset, encoder, skipped
            images and search index.

        Raises:
            StoreError: If a shard is damaged.
        """
        return store_info(self.embeddings)

    def verify(self, *, progress: Progress = NO_PROGRESS) -> list[str]:
        """Read the whole store and compare it with its checksums.

        Args:
            progress: Progress display.

        Returns:
            One line per problem.
        """
        return self.embeddings.verify(progress=progress)

    def export(self, path: str | Path, *, progress: Progress = NO_PROGRESS) -> None:
        """Write ids, positions, footprints and vectors to one GeoParquet file.

        Args:
            path: File to write, ending in .parquet or .geoparquet.
            progress: Progress display.

        Raises:
            UsageError: If the name has another suffix.
            StoreError: If the store is incomplete.
            OutputError: If the file cannot be written.
        """
        embeddings.export_parquet(self.embeddings, path, progress=progress)

    @property
    def missing(self) -> list[str]:
        """Shards that are planned but missing; empty for a complete store."""
        return self.embeddings.missing

    @property
    def encoder(self) -> Encoder:
        """The model that made the store, loaded and verified on first use.

        Raises:
            UnknownNameError: If the registry has no such model.
            ModelLoadError: If the model cannot be loaded.
            StoreMismatchError: If it is not the model that made the store.
        """
        return self._load(needs_text=False)

    def search(
        self,
        text: str | Sequence[str] | SearchQuery | None = None,
        *,
        images: ImageLike | Sequence[ImageLike] = (),
        similar_to: str | Sequence[str] = (),
        similar_to_location: LonLat | Sequence[LonLat] = (),
        negative_text: str | Sequence[str] = (),
        negative_images: ImageLike | Sequence[ImageLike] = (),
        negative_tiles: str | Sequence[str] = (),
        use_templates: bool = True,
        image_weight: float = MIX,
        negative_weight: float = NOT_WEIGHT,
        bbox: Bounds | None = None,
        region: RegionLike | None = None,
        region_layer: str | None = None,
        k: int | None = None,
        min_score: float | None = None,
        min_valid: float | None = None,
        lon: int = 180,
        keep_examples: bool = False,
        vector: npt.ArrayLike | str | Path | None = None,
        progress: Progress = NO_PROGRESS,
        **earlier_names: Any,
    ) -> SearchResult:
        """Rank the tiles by cosine similarity to a query, exactly.

        Args:
            text: What to look for, through the three published templates unless `use_templates` is
                False; of several texts the vectors are averaged. Or a SearchQuery, which holds all
                parts of a query.
            images: Example images: paths, Pillow images or arrays (`datasets.rgb_of`).
            similar_to: Ids of example tiles of the store. They need no model, and are no hits
                themselves unless `keep_examples`.
            similar_to_location: Positions (lon, lat) in degrees within example tiles of the store.
            negative_text: Texts to search away from, subtracted with `negative_weight`
                (`search.query.away_query`).
            negative_images: Images to search away from.
            negative_tiles: Ids of tiles to search away from.
            use_templates: Insert texts into the prompt templates.
            image_weight: Weight of images and tiles in a query that also has a text, 0 to 1.
            negative_weight: Weight of the negative examples, 0 to 1.
            bbox: A geo.Box, (west, south, east, north) in degrees or "W,S,E,N": only tiles centred
                in it.
            region: A geo.Area, GeoJSON, the path of a vector file of polygons (GeoJSON, GeoPackage,
                Shapefile, FlatGeobuf, KML, GeoParquet), a shapely geometry, a GeoSeries or a
                GeoDataFrame: only tiles centred in it.
            region_layer: Layer of the file of the region; needed only if it has several.
            k: Number of hits; default 500, or all that reach `min_score` if that is given.
            min_score: Least cosine of a hit.
            min_valid: Least share of a tile with data, 0 to 1. With example tiles, tiles
                without any data are excluded unless it is 0.
            lon: 180 for longitudes -180..180, 360 for 0..360.
            keep_examples: Allow the example tiles as hits.
            vector: Query vector of shape (dimension,) or its NumPy file, instead of all other
                parts, such as the one that an inventory has learned.
            progress: Progress display.
            **earlier_names: `like`, `like_at`, `not_text`, `not_images`, `not_like`, `mix`,
                `not_weight` and `raw` of earlier versions.

        Returns:
            Hits in descending score order.

        Raises:
            UsageError: If the query is incomplete or an option is invalid.
            DataError: If a file cannot be read.
            ModalityError: If it has a text and the model of the store is vision-only.
            ModelLoadError: If the model of the store cannot be loaded.
        """
        prepared = self.prepare_search(
            text, images=images, similar_to=similar_to, similar_to_location=similar_to_location,
            negative_text=negative_text, negative_images=negative_images,
            negative_tiles=negative_tiles, use_templates=use_templates, image_weight=image_weight,
            negative_weight=negative_weight, bbox=bbox, region=region, region_layer=region_layer,
            k=k, min_score=min_score, min_valid=min_valid, lon=lon, keep_examples=keep_examples,
            vector=vector, **earlier_names,
        )  # fmt: skip
        return self.run_search(prepared, progress=progress)

    def search_many(
        self, texts: Sequence[str], *, progress: Progress = NO_PROGRESS, **options: Any
    ) -> list[SearchResult]:
        """Search for several texts with the same options, in one pass over the store.

        Args:
            texts: One query per text.
            progress: Progress display.
            **options: Options of `search`.

        Returns:
            One result per text.

        Raises:
            UsageError: If an option is invalid.
        """
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise UsageError("texts is not a list", remedy="Give a list, or call search().")
        searches = [self.prepare_search(text, **options) for text in texts]
        return self.run_searches(searches, progress=progress)

    def prepare_search(
        self, text: str | Sequence[str] | SearchQuery | None = None, **options: Any
    ) -> PreparedSearch:
        """Validate a search request; load no model and run no search.

        Args:
            text: As in `search`.
            **options: Options of `search`, without `progress`.

        Returns:
            The validated request, for `run_search` and `run_searches`.

        Raises:
            UsageError: If the query is incomplete or an option is invalid.
            DataError: If a file cannot be read.
        """
        parts = search_options(options)
        if isinstance(text, SearchQuery):
            return prepare_search(self.embeddings, **text.combine(parts))
        return prepare_search(self.embeddings, text, **parts)

    def run_search(
        self, prepared: PreparedSearch, *, progress: Progress = NO_PROGRESS
    ) -> SearchResult:
        """Run one search.

        Args:
            prepared: Request made by `prepare_search`.
            progress: Progress display.

        Returns:
            Hits in descending score order.
        """
        (result,) = self.run_searches([prepared], progress=progress)
        return result

    def run_searches(
        self, searches: Sequence[PreparedSearch], *, progress: Progress = NO_PROGRESS
    ) -> list[SearchResult]:
        """Run several searches in one pass over the store.

        Args:
            searches: Requests with the same k, min_score, min_valid and region.
            progress: Progress display.

        Returns:
            One result per request.

        Raises:
            UsageError: If these settings differ.
        """
        if not searches:
            return []
        first = searches[0]
        if any(
            (prepared.k, prepared.min_score, prepared.region, prepared.min_valid)
            != (first.k, first.min_score, first.region, first.min_valid)
            for prepared in searches
        ):
            raise UsageError(
                "all queries must share k, min_score, min_valid and region",
                remedy="Call search() once per setting.",
            )
        if any((prepared.exclude is None) != (first.exclude is None) for prepared in searches):
            # Requests with example tiles exclude tiles without data, others do not.
            return [self.run_search(prepared, progress=progress) for prepared in searches]
        vectors = np.stack([self.vector(prepared) for prepared in searches])
        extra = max(len(set(prepared.left_out)) for prepared in searches)
        ranking = exact_topk(
            self.embeddings,
            vectors,
            None if first.k is None else first.k + extra,
            min_score=first.min_score,
            region=first.region,
            exclude=first.exclude,
            progress=progress,
        )
        return [
            self.result_of(prepared, vectors[number], ranking, number)
            for number, prepared in enumerate(searches)
        ]

    def result_of(
        self, prepared: PreparedSearch, vector: Vector, ranking: Ranking, number: int = 0
    ) -> SearchResult:
        """Describe a ranking that has been computed otherwise, as `run_search` does.

        Args:
            prepared: Request made by `prepare_search`.
            vector: Its query vector, see `vector`.
            ranking: The best rows, at least `k` and the example tiles.
            number: Number of the query in the ranking.

        Returns:
            Hits in descending score order.
        """
        background = self.background(vector)
        hits = Hits.from_ranking(
            self.embeddings,
            ranking,
            query=number,
            domain=prepared.lon,
            without=prepared.left_out,
            most=prepared.k,
            background=background,
        )
        best = float(hits.scores[0]) if len(hits) else None
        meaningless = self._meaningless_scores(prepared.raw) if prepared.is_text_alone else None
        about = {
            **prepared.about,
            "truncated": [],
            "context_length": None,
            "scores": summarize_scores(background, best, meaningless),
        }
        if prepared.needs_text:
            length = self._context_length()
            truncated = warn_truncated(prepared, self._load(needs_text=True), length)
            about |= {"truncated": truncated, "context_length": length}
        return SearchResult(replace(hits, about=about), vector, self, prepared.region, prepared)

    def _meaningless_scores(self, raw: bool) -> list[Background]:
        if raw not in self._meaningless:
            encoder = self._load(needs_text=True)
            self._meaningless[raw] = [
                self.background(text_vector(encoder, text, raw=raw)) for text in MEANINGLESS
            ]
        return self._meaningless[raw]

    def _context_length(self) -> int | None:
        """Return the context length of the model in tokens; None if unknown."""
        context = getattr(self._encoder, "context_length", None)
        if context is None:
            # A model passed as `encoder` may have no spec, or one that needs the user's permission.
            with suppress(MarsRetrievalError):
                context = self._model.find_spec().context_length
        return None if context is None else int(context)

    def background(self, query: npt.ArrayLike) -> Background:
        """Distribution of a query's scores over the store.

        Args:
            query: Vector of shape (dimension,).

        Returns:
            Scores of all tiles of a store of up to 4,096, and of a sample of a larger one.
        """
        if self._sample is None:
            self._sample = ScoreSample(self.embeddings)
        return self._sample.background(query)

    def vector(self, prepared: PreparedSearch) -> Vector:
        """Compute the query vector of a request.

        Args:
            prepared: Request made by `prepare_search`.

        Returns:
            float32 unit vector of shape (dimension,).
        """
        encoder = self._load(needs_text=prepared.needs_text) if prepared.needs_encoder else None
        return prepared.vector(self.embeddings, encoder, self._get_whitening)

    def _get_whitening(self) -> Whitening:
        if self._whitening is None:
            from marsretrieval.search.learned import Whitening

            self._whitening = Whitening.from_store(known_of(self.embeddings))
        return self._whitening

    def scores(self, query: npt.ArrayLike, *, progress: Progress = NO_PROGRESS) -> Vector:
        """Compute the cosine of every tile with a query vector.

        Args:
            query: Vector of shape (dimension,).
            progress: Progress display.

        Returns:
            float32 array of shape (rows,).
        """
        return score_all(self.embeddings, query, progress=progress)

    def require_model(self, *, needs_text: bool = False) -> None:
        """Check that the store's model may be loaded, without loading it.

        Args:
            needs_text: Whether it must have a text encoder.

        Raises:
            UsageError: If the manifest names a class, folder or checkpoint that the user has not.
            ModalityError: If a text encoder is needed and the model has none.
        """
        if self._encoder is None:
            self._model.find_spec(needs_text=needs_text)

    def _load(self, *, needs_text: bool) -> Encoder:
        if self._encoder is None:
            spec = self._model.find_spec(needs_text=needs_text)
            self._report(f"loading {spec.id}")
            self._encoder = self._model.load(spec)
        return self._encoder
