"""The stores that a map server shows: scoring, searches and hits, without HTTP."""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.api import SearchQuery, SearchResult, Store
from marsretrieval.datasets import decode_rgb
from marsretrieval.errors import MarsRetrievalError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import (
    Hits,
    SearchIndex,
    approximate_scores,
    exact_from_approximate,
    exact_topk,
    score_all,
)
from marsretrieval.search.index.find import index_of, known_of
from marsretrieval.search.query import MIX, NOT_WEIGHT
from marsretrieval.search.tiles import rows_below
from marsretrieval.web.raster import ScoreCodes, TileRaster, encode_scores

if TYPE_CHECKING:
    from PIL.Image import Image

    from marsretrieval.api.query import PreparedSearch
    from marsretrieval.web.schemas import SearchBody

Vector = npt.NDArray[np.float32]

FIRST_HITS = 200
MAX_HITS = 10_000
_KEPT_SEARCHES = 8
KEPT_BYTES = 96 * 2**20  # of all kept searches of a store, unless the newest alone has more
_NEIGHBOURS = 5  # tiles per side of the block around a tile
_HIT_BYTES = 1000  # about, of a hit as Python objects
_MAX_PICTURES = 40
MAX_PICTURE_BYTES = 64 * 2**20  # encoded, without the newest request


@dataclass(slots=True)
class ModelStatus:
    """Whether the model of a store can embed queries; changed by the thread that loads it."""

    state: Literal["loading", "ready", "none"] = "loading"
    reason: str = ""


@dataclass(slots=True)
class Search:
    """A finished search of one store.

    Attributes:
        key: Name of the search.
        prepared: The validated request.
        result: The exact hits that have been computed.
        codes: Scores of all tiles as bytes, by index row.
        raster: The score raster, uint8 of shape (rows, columns); None without positions.
        bound: Largest error of the scores in the raster.
        candidates: Index rows of all tiles that may be among the best MAX_HITS, and their
            approximate scores; None without an index.
        ms: Milliseconds per step.
    """

    key: str
    prepared: PreparedSearch
    result: SearchResult
    codes: ScoreCodes
    raster: npt.NDArray[np.uint8] | None
    bound: float
    candidates: tuple[npt.NDArray[np.int32], Vector] | None = None
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Memory of the arrays and the hits."""
        arrays = [self.codes.codes, *(self.candidates or ())]
        if self.raster is not None:
            arrays.append(self.raster)
        return sum(int(array.nbytes) for array in arrays) + _HIT_BYTES * len(self.result)


class SupersededError(MarsRetrievalError):
    """A newer search of the same page has been requested."""


class MapStore:
    """A store with what the map needs: its raster, the state of its model, and recent searches.

    Args:
        store: The opened store.
        name: Name in requests.
        progress: Progress of building the search index.
    """

    def __init__(self, store: Store, name: str, progress: Progress = NO_PROGRESS) -> None:
        self.store = store
        self.name = name
        embeddings = store.embeddings
        self.index: SearchIndex | None = index_of(embeddings, build=True, progress=progress)
        self.tiles = known_of(embeddings)
        self.model = ModelStatus()
        self.changed = threading.Condition()
        self._searches: OrderedDict[str, Search] = OrderedDict()
        self._lock = threading.Lock()
        if self.index is None:
            (lon, lat), (width, height) = self.tiles.positions().T, self.tiles.extents().T
        else:
            lon, lat = self.index.lon, self.index.lat
            width, height = self.index.width_deg, self.index.height_deg
        self.positioned = int(np.isfinite(np.asarray(lon)).sum())
        self.raster = TileRaster.from_tiles(
            *(np.asarray(values, dtype=np.float64) for values in (lon, lat, width, height))
        )

    def load_model(self) -> None:
        """Load the model of the store; a failure is recorded in `model`."""
        try:
            self.store.encoder  # noqa: B018
        except MarsRetrievalError as error:
            self._set_model("none", str(error))
        except Exception as error:
            self._set_model("none", f"{type(error).__name__}: {error}")
        else:
            self._set_model("ready", "")

    def _set_model(self, state: Literal["ready", "none"], reason: str) -> None:
        with self.changed:
            self.model.state, self.model.reason = state, reason
            self.changed.notify_all()

    @property
    def has_text(self) -> bool:
        """Whether the model has a text encoder; true for a model outside the registry until loaded.

        Looking up such a model may import its library, which takes seconds.
        """
        if self.model.state == "ready":
            return "text" in self.store.encoder.modalities
        from marsretrieval.encoders import all_specs

        specs = (spec for spec in all_specs() if spec.id == self.store.embeddings.model.model)
        return all("text" in spec.modalities for spec in specs)

    @cached_property
    def without_data(self) -> npt.NDArray[np.bool_] | None:
        """Tiles that are known to have no data, by index row; None if there are none."""
        below = rows_below(self.store.embeddings, None)
        if below is None or self.index is None:
            return below
        return below[self.index.row_of]

    def prepare_search(
        self, request: SearchBody, pictures: Pictures, learned: Path | None = None
    ) -> PreparedSearch:
        """Validate a request.

        Args:
            request: The request.
            pictures: Uploaded images.
            learned: File of the vector learned from the marks of this store's inventory; None if
                there is none.

        Returns:
            The validated request.

        Raises:
            UsageError: If the request is empty or invalid.
            DataError: If the region is invalid.
        """
        if request.bbox is not None and request.region is not None:
            raise UsageError("a box and a region", remedy="Give one of them.")
        query = SearchQuery(
            text=request.text,
            images=pictures.load(request.pictures),
            similar_to=request.like,
            similar_to_location=request.like_at,
            negative_text=request.not_text,
            negative_images=pictures.load(request.not_pictures),
            negative_tiles=request.not_like,
            use_templates=not request.raw,
            image_weight=MIX if request.mix is None else request.mix,
            negative_weight=NOT_WEIGHT if request.not_weight is None else request.not_weight,
            region=request.region if request.bbox is None else geo.Box(*request.bbox),
        )
        if request.learned and learned is None:
            raise UsageError(
                "nothing has been learned from marks of this store",
                remedy="Mark tiles yes and no in its inventory, then learn.",
            )
        vector = learned if request.learned else None
        prepared = self.store.prepare_search(query, k=FIRST_HITS, vector=vector)
        if prepared.needs_encoder and self.model.state != "ready":
            reason = self.model.reason or "the model is still loading"
            raise UsageError(
                f"texts and images cannot be searched for: {reason}",
                remedy="Search with a tile, or wait for the model.",
            )
        return prepared

    def search(self, prepared: PreparedSearch, is_current: Callable[[], bool]) -> Search:
        """Run a search and keep it for its raster and further hits.

        Args:
            prepared: The validated request.
            is_current: Asked between the steps; False if the result is no longer needed.

        Returns:
            The search.

        Raises:
            SupersededError: If the result is no longer needed.
        """
        ms: dict[str, float] = {}
        started = time.perf_counter()
        vector = self.store.vector(prepared)
        prepared = _without_pixels(prepared)
        started = _lap(ms, "query", started)
        scores, bound = self.scores(vector)
        started = _lap(ms, "scores", started)
        _require(is_current)
        candidates = None
        if self.index is not None:
            # One pass over the codes serves the raster, the hits, and further hits.
            rows = candidate_rows(
                scores, bound, MAX_HITS + len(set(prepared.left_out)), self._excluded(prepared)
            )
            candidates = rows.astype(np.int32), scores[rows]
        result = self._rank(prepared, vector, candidates, bound)
        started = _lap(ms, "hits", started)
        codes = encode_scores(scores, self._excluded(prepared, self.without_data))
        raster = None if self.raster is None else self.raster.paint(codes.codes)
        _lap(ms, "raster", started)
        key = secrets.token_hex(8)
        search = Search(key, prepared, result, codes, raster, bound, candidates, ms)
        with self._lock:
            self._searches[key] = search
            while len(self._searches) > _KEPT_SEARCHES or (
                len(self._searches) > 1
                and sum(cached.bytes for cached in self._searches.values()) > KEPT_BYTES
            ):
                self._searches.popitem(last=False)
        return search

    def _rank(
        self,
        prepared: PreparedSearch,
        vector: Vector,
        candidates: tuple[npt.NDArray[np.int32], Vector] | None,
        bound: float,
    ) -> SearchResult:
        """Rank the tiles exactly; with an index, only the candidates."""
        count = (prepared.k or FIRST_HITS) + len(set(prepared.left_out))
        if self.index is None or candidates is None:
            ranking = exact_topk(
                self.store.embeddings,
                vector,
                count,
                region=prepared.region,
                exclude=prepared.exclude,
            )
        else:
            rows, values = candidates
            scores = np.zeros(self.index.rows, dtype=np.float32)
            scores[rows] = values
            others = np.ones(self.index.rows, dtype=np.bool_)
            others[rows] = False
            ranking = exact_from_approximate(
                self.index, vector, scores, bound, count, exclude=others
            )
        return self.store.result_of(prepared, vector, ranking)

    def scores(self, vector: Vector) -> tuple[Vector, float]:
        """Score every tile.

        Args:
            vector: Query vector of shape (dim,).

        Returns:
            Scores by index row (by row without an index), and the largest error of a score.
        """
        if self.index is None:
            return score_all(self.store.embeddings, vector), 0.0
        approximate = approximate_scores(self.index, vector)
        return approximate.scores, approximate.bound

    def find(self, key: str) -> Search | None:
        """Return a recent search.

        Args:
            key: Name of the search.

        Returns:
            The search; None if it was forgotten.
        """
        with self._lock:
            search = self._searches.get(key)
            if search is not None:
                self._searches.move_to_end(key)
            return search

    def hits(self, search: Search, count: int) -> Hits:
        """Return exact hits of a search, ranking more tiles if necessary.

        Args:
            search: The search.
            count: Number of hits, at most MAX_HITS are returned.

        Returns:
            At least `count` hits, if there are as many.
        """
        limit = min(count, MAX_HITS)
        available = len(search.result)
        requested = search.prepared.k or FIRST_HITS
        if limit > available and available >= requested:
            k = min(MAX_HITS, max(limit, 4 * requested))
            prepared = replace(search.prepared, k=k)
            vector = search.result.query
            search.result = self._rank(prepared, vector, search.candidates, search.bound)
            search.prepared = prepared
        return search.result.hits

    def _excluded(
        self, prepared: PreparedSearch, without_data: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.bool_] | None:
        """Return the tiles that the request excludes, else `without_data`, by index row."""
        excluded = prepared.exclude
        if excluded is None:
            excluded = without_data
        elif self.index is not None:
            excluded = excluded[self.index.row_of]
        if prepared.region is None:
            return excluded
        outside = ~prepared.region.contains(*self._positions)
        return outside if excluded is None else excluded | outside

    def tiles_in(self, box: geo.Box, most: int) -> Iterator[tuple[str, float, float, float, float]]:
        """Find tiles with a footprint by their centres.

        Args:
            box: Where the centres lie, with a margin of one tile.
            most: Number of tiles; of more, those nearest to the centre of the box are returned.

        Yields:
            Id, longitude, latitude, width and height in degrees.
        """
        if self.raster is None:
            return
        lon, lat = self._positions
        wide, high = self.raster.cell_lon, self.raster.cell_lat
        middle_lon, middle_lat = box.west + box.width / 2, (box.south + box.north) / 2
        east = np.asarray(geo.wrap_lon(lon - middle_lon))
        north = lat - middle_lat
        inside = np.abs(east) <= box.width / 2 + wide
        inside &= np.abs(north) <= (box.north - box.south) / 2 + high
        rows = np.flatnonzero(inside)
        if len(rows) > most:
            distance = np.maximum(np.abs(east[rows]) / wide, np.abs(north[rows]) / high)
            rows = rows[np.argsort(distance, kind="stable")[:most]]
        columns = self.tiles.take(self._store_rows(rows))
        for number, name in enumerate(columns.ids):
            values = [
                float(column[number])
                for column in (columns.lon, columns.lat, columns.width_deg, columns.height_deg)
            ]
            if np.isfinite(values).all():
                yield name, values[0], values[1], values[2], values[3]

    def neighbours(self, row: int) -> list[list[str | None]]:
        """Return the ids of the tiles around a tile.

        Args:
            row: Row of the tile.

        Returns:
            Five rows of five ids from the north west, the tile in the centre; None for gaps.
        """
        columns = self.tiles.take([row])
        lon, lat = float(columns.lon[0]), float(columns.lat[0])
        width, height = float(columns.width_deg[0]), float(columns.height_deg[0])
        if not np.isfinite([lon, lat, width, height]).all():
            return []
        all_lon, all_lat = self._positions
        half = _NEIGHBOURS // 2
        east = np.asarray(geo.wrap_lon(all_lon - lon)) / width
        south = (lat - all_lat) / height
        near = np.flatnonzero((np.abs(east) < half + 0.5) & (np.abs(south) < half + 0.5))
        grid: list[list[str | None]] = [[None] * _NEIGHBOURS for _ in range(_NEIGHBOURS)]
        # The tile nearest to each place of the block.
        order = np.argsort(-np.hypot(east[near] - np.round(east[near]),
                                     south[near] - np.round(south[near])))  # fmt: skip
        names = self.tiles.ids(self._store_rows(near[order]))
        for index, name in zip(near[order], names, strict=True):
            grid[int(np.round(south[index])) + half][int(np.round(east[index])) + half] = name
        grid[half][half] = columns.ids[0]
        return grid

    @cached_property
    def _positions(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Longitudes and latitudes by index row: memory-mapped; by row without an index."""
        if self.index is not None:
            return np.asarray(self.index.lon), np.asarray(self.index.lat)
        positions = self.tiles.positions()
        return np.ascontiguousarray(positions[:, 0]), np.ascontiguousarray(positions[:, 1])

    def _store_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of the store of index rows."""
        return rows if self.index is None else np.asarray(self.index.row_of[rows])


def candidate_rows(
    scores: Vector, bound: float, count: int, exclude: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Find the rows that may be among the best, from approximate scores.

    With s the count-th best approximate score, `count` rows score at least s - bound, so that a row
    below s - 2 bound is not among the best `count`.

    Args:
        scores: Approximate scores, shape (n,).
        bound: No exact score differs from its approximate one by more than this.
        count: Number of best rows.
        exclude: Rows that are skipped, shape (n,).

    Returns:
        Ascending row numbers; all rows that are not excluded if there are at most `count`.
    """
    rows = np.arange(len(scores)) if exclude is None else np.flatnonzero(~exclude)
    if len(rows) <= count:
        return rows
    considered = scores if exclude is None else scores[rows]
    cut = len(considered) - count
    least = np.float32(float(np.partition(considered, cut)[cut]) - 2 * bound)
    # Rounded down: no row is lost to the comparison in float32.
    reaching: npt.NDArray[np.int64] = rows[considered >= np.nextafter(least, np.float32(-np.inf))]
    return reaching


class Pictures:
    """Uploaded query images, the most recent ones, in memory and encoded."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, images: Sequence[tuple[bytes, str]]) -> list[str]:
        """Keep the images of one request; the oldest ones of earlier requests are dropped.

        Args:
            images: Encoded image and name of each.

        Returns:
            Their ids.

        Raises:
            DataError: If an image cannot be read; none is kept then.
        """
        for data, name in images:
            decode_rgb(data, name)
        keys = [secrets.token_hex(8) for _ in images]
        with self._lock:
            self._images.update(zip(keys, images, strict=True))
            while len(self._images) > len(keys) and (
                len(self._images) > _MAX_PICTURES or self._bytes() > MAX_PICTURE_BYTES
            ):
                self._images.popitem(last=False)
        return keys

    def load(self, keys: Sequence[str]) -> list[Image]:
        """Decode images.

        Args:
            keys: Their ids.

        Returns:
            The images.

        Raises:
            UsageError: If one is no longer kept.
        """
        with self._lock:
            images = [self._images[key] for key in keys if key in self._images]
        if len(images) < len(keys):
            raise UsageError(
                f"{len(keys) - len(images)} uploaded images are no longer kept",
                remedy="Upload them again.",
            )
        return [decode_rgb(data, name) for data, name in images]

    def _bytes(self) -> int:
        return sum(len(data) for data, _ in self._images.values())


def command_line(store: Store, about: Mapping[str, Any]) -> str:
    """Return the command that runs a search again.

    Args:
        store: The store.
        about: Description of the request, as in `SearchResult.about`.

    Returns:
        A line for a POSIX shell. Uploaded images are named IMAGE, polygons REGION.geojson.
    """
    parts = ["marsretrieval", "search", "--store", str(store.path)]

    def add(option: str, *values: Any) -> None:
        for value in values:
            # A value that begins with a minus would be read as an option.
            parts.extend([f"{option}={value}"] if str(value).startswith("-") else [option, value])

    add("--text", *about["texts"])
    add("--image", *("IMAGE" for _ in about["images"]))
    add("--like", *about["like"])
    if about["vector"] not in (None, "array"):
        add("--vector", about["vector"])
    add("--not-text", *about["not_text"])
    add("--not-image", *("IMAGE" for _ in about["not_images"]))
    add("--not-like", *about["not_like"])
    if about["raw"]:
        parts.append("--raw")
    if about["mix"] not in (None, MIX):
        add("--mix", about["mix"])
    if about["not_weight"] not in (None, NOT_WEIGHT):
        add("--not-weight", about["not_weight"])
    if about["bbox"]:
        add("--bbox", about["bbox"])
    if about["region"]:
        add("--region", "REGION.geojson")
    return shlex.join(map(str, parts))


def _without_pixels(prepared: PreparedSearch) -> PreparedSearch:
    """Drop the example images, of which only the number is used once the vector is computed."""
    from PIL import Image

    empty = Image.new("RGB", (1, 1))
    return replace(
        prepared,
        images=[empty] * len(prepared.images),
        not_images=[empty] * len(prepared.not_images),
    )


def _require(is_current: Callable[[], bool]) -> None:
    if not is_current():
        raise SupersededError("a newer search was requested")


def _lap(ms: dict[str, float], name: str, started: float) -> float:
    now = time.perf_counter()
    ms[name] = round(1000 * (now - started), 1)
    return now
