"""Search requests: queries as values, and their validation before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, UsageError, as_float, as_int
from marsretrieval.geo import Box
from marsretrieval.search import check_text, prompts_of, read_images, row_at, rows_of
from marsretrieval.search.hits import Domain, lon_domain
from marsretrieval.search.index.find import known_of
from marsretrieval.search.provenance import FileReference, SearchRequest
from marsretrieval.search.query import MIX, NOT_WEIGHT, is_learnable, query_parts, read_vector
from marsretrieval.search.tiles import rows_below, tile_names

if TYPE_CHECKING:
    from PIL.Image import Image

    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.encoders.base import QueryEncoder
    from marsretrieval.geo import Region
    from marsretrieval.search.learned import Whitening

    LonLat = tuple[float, float]
    Bounds = Box | str | tuple[float, float, float, float]
    RegionLike = Region | str | Path | Mapping[str, Any] | Any
    ImageLike = str | Path | Image | npt.NDArray[Any]

DEFAULT_K = 500  # if neither k nor min_score is given


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """A validated search request; example tiles are rows of the store.

    Attributes:
        texts: Texts to search for; their vectors are averaged.
        images: Example images.
        tiles: Rows of the example tiles.
        not_text: Texts to search away from.
        not_images: Images to search away from.
        not_tiles: Rows of the tiles to search away from.
        raw: Encode texts without the prompt templates.
        mix: Weight of images and tiles in a query that also has a text, 0 to 1.
        not_weight: Weight of the negative examples, 0 to 1.
        region: Area that contains the centres of the hits; None: the planet.
        k: Number of hits; None: all that reach `min_score`.
        min_score: Least cosine of a hit.
        min_valid: Least share of a tile with data, 0 to 1.
        exclude: Boolean mask of shape (rows,) of tiles with too little data; None: no mask.
        lon: Longitude range of the output.
        keep_examples: Allow the example tiles as hits.
        about: Description of the request for files and JSON.
        given: Query vector of unit length, shape (dimension,), instead of all parts; or None.
    """

    texts: Sequence[str]
    images: Sequence[Image]
    tiles: Sequence[int]
    not_text: Sequence[str]
    not_images: Sequence[Image]
    not_tiles: Sequence[int]
    raw: bool
    mix: float
    not_weight: float
    region: Region | None
    k: int | None
    min_score: float | None
    min_valid: float | None
    exclude: npt.NDArray[np.bool_] | None
    lon: Domain
    keep_examples: bool
    about: Mapping[str, Any]
    given: npt.NDArray[np.float32] | None = None

    @property
    def needs_text(self) -> bool:
        """Whether the request needs a text encoder."""
        return bool(self.texts) or bool(self.not_text)

    @property
    def needs_encoder(self) -> bool:
        """Whether the request needs a model; False if all examples are tiles of the store."""
        return self.needs_text or bool(self.images) or bool(self.not_images)

    def describe(self) -> list[tuple[str, str]]:
        """Describe the request as (name, value) pairs, without the parts that are not set."""
        request = self.about
        parts = [
            ("text", request["text"] and request["text"] + (" (as it is)" if self.raw else "")),
            ("images", ", ".join(request["images"])),
            ("like", ", ".join(request["like"])),
            ("mix", request["mix"]),
            (
                "not",
                ", ".join([*request["not_text"], *request["not_images"], *request["not_like"]]),
            ),
            ("weight", request["not_weight"]),
            ("vector", request["vector"]),
            ("learned", "from the examples" if request["learned"] else None),
            ("in", request["bbox"] or request["region"]),
            ("hits", "all" if self.k is None else f"the best {self.k:,}"),
            ("least", self.min_score),
            ("data", self.min_valid),
        ]
        return [(name, str(value)) for name, value in parts if value not in (None, "")]

    def prompts(self) -> list[tuple[str, list[str]]]:
        """Pair each text, positive or negative, with the prompts sent to the model."""
        return [(text, prompts_of(text, raw=self.raw)) for text in (*self.texts, *self.not_text)]

    @property
    def is_text_alone(self) -> bool:
        """Whether the request consists of positive texts only."""
        parts = (self.images, self.tiles, self.not_text, self.not_images, self.not_tiles)
        return bool(self.texts) and not any(map(len, parts))

    @property
    def left_out(self) -> Sequence[int]:
        """Rows that cannot be hits: the example tiles, unless they are kept."""
        return () if self.keep_examples else self.tiles

    @property
    def is_learned(self) -> bool:
        """Whether the vector is learned from examples, see `search.learned`."""
        positives, negatives = len(self.images) + len(self.tiles), len(self.not_images)
        return is_learnable(positives, negatives + len(self.not_tiles))

    def vector(
        self,
        store: EmbeddingStore,
        encoder: QueryEncoder | None,
        whitening: Callable[[], Whitening] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Compute the query vector, see `search.make_query` and `search.learned`.

        Args:
            store: Store that holds the example tiles.
            encoder: The model of the store; None if `needs_encoder` is False.
            whitening: Function that returns the whitening of the store; None: computed if needed.

        Returns:
            float32 unit vector of shape (dimension,).
        """
        if self.given is not None:
            return self.given
        parts = query_parts(
            encoder,
            text=self.texts,
            images=self.images,
            tiles=store.vectors(self.tiles) if self.tiles else None,
            not_text=self.not_text,
            not_images=self.not_images,
            not_tiles=store.vectors(self.not_tiles) if self.not_tiles else None,
            raw=self.raw,
        )
        query = parts.compose(mix=self.mix, not_weight=self.not_weight)
        if parts.examples is None or parts.negative_examples is None or not self.is_learned:
            return query
        from marsretrieval.search.learned import Whitening, learn_query

        learned_from = Whitening.from_store(known_of(store)) if whitening is None else whitening()
        return learn_query(
            parts.examples, parts.negative_examples, learned_from, text=parts.text, query=query
        )


def prepare_search(
    store: EmbeddingStore,
    text: str | Sequence[str] | None = None,
    *,
    images: Any = (),
    like: str | Sequence[str] = (),
    like_at: LonLat | Sequence[LonLat] = (),
    not_text: str | Sequence[str] = (),
    not_images: Any = (),
    not_like: str | Sequence[str] = (),
    raw: bool = False,
    mix: float = MIX,
    not_weight: float = NOT_WEIGHT,
    bbox: Bounds | None = None,
    region: RegionLike | None = None,
    region_layer: str | None = None,
    k: int | None = None,
    min_score: float | None = None,
    min_valid: float | None = None,
    lon: int = 180,
    keep_examples: bool = False,
    vector: npt.ArrayLike | str | Path | None = None,
) -> PreparedSearch:
    """Validate a search request: read images and regions, find the example tiles.

    Args:
        store: Store to search.
        text: As in `Store.search`, and so are the other arguments.
        images: Example images.
        like: Ids of example tiles.
        like_at: Positions (lon, lat) in degrees within example tiles.
        not_text: Texts to search away from.
        not_images: Images to search away from.
        not_like: Ids of tiles to search away from.
        raw: Encode texts without the prompt templates.
        mix: Weight of images and tiles in a query that also has a text, 0 to 1.
        not_weight: Weight of the negative examples, 0 to 1.
        bbox: Box that contains the centres of the hits.
        region: Area that contains the centres of the hits.
        region_layer: Layer of the file of the region.
        k: Number of hits.
        min_score: Least cosine of a hit.
        min_valid: Least share of a tile with data, 0 to 1.
        lon: 180 for longitudes -180..180, 360 for 0..360.
        keep_examples: Allow the example tiles as hits.
        vector: Query vector or its NumPy file, instead of all other parts.

    Returns:
        The validated request.

    Raises:
        UsageError: If the request is empty, or an argument is invalid.
        DataError: If a region cannot be read.
        ImageError: If an image cannot be read.
    """
    texts, negative_texts = _as_list(text, "text"), _as_list(not_text, "negative_text")
    positive_images = _as_list(images, "images")
    negative_images = _as_list(not_images, "negative_images")
    tile_ids, negative_ids = _as_list(like, "similar_to"), _as_list(not_like, "negative_tiles")
    positions = _parse_positions(like_at)
    own_vector = None if vector is None else _given_vector(store, vector)
    if own_vector is not None and any(
        map(len, (texts, positive_images, tile_ids, positions, negative_texts, negative_images,
                  negative_ids))
    ):  # fmt: skip
        raise UsageError(
            "a vector and a text, image or tile",
            remedy="A vector is the whole query: give it alone.",
        )
    if own_vector is None and not texts and not positive_images and not tile_ids and not positions:
        raise UsageError(
            "nothing to search for",
            remedy="Give a text (--text), an image (--image), a tile (--similar-to, "
            "--similar-to-location) or a vector (--vector).",
        )
    # Checked before a model is loaded.
    for sentence in [*texts, *negative_texts]:
        check_text(sentence)
    k = None if k is None else as_int(k, "k")
    min_score = None if min_score is None else as_float(min_score, "min_score")
    min_valid = None if min_valid is None else as_float(min_valid, "min_valid")
    mix = as_float(mix, "image_weight")
    not_weight = as_float(not_weight, "negative_weight")
    raw, keep_examples = bool(raw), bool(keep_examples)
    if k is not None and k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if min_score is not None and not np.isfinite(min_score):
        raise UsageError(f"min_score is {min_score}, not a number")
    if k is None and min_score is None:
        k = DEFAULT_K
    for name, value in (("image_weight", mix), ("negative_weight", not_weight)):
        if not 0 <= value <= 1:
            raise UsageError(f"{name} {value:g} is not within 0..1")
    domain = lon_domain(as_int(lon, "lon"))
    area = _parse_region(bbox, region, region_layer)
    tiles = [
        *rows_of(store, tile_ids).tolist(),
        *(row_at(store, *position) for position in positions),
    ]
    not_tiles = rows_of(store, negative_ids).tolist()
    # Tiles without data resemble each other and would outrank useful matches of an example tile.
    exclude = rows_below(store, min_valid) if tiles or min_valid is not None else None
    tile_ids, negative_ids = tile_names(store, tiles), tile_names(store, not_tiles)
    # Read first: the hashes of the request are of valid images only.
    pixels, negative_pixels = read_images(positive_images), read_images(negative_images)
    request = SearchRequest(
        stores=_store_paths(store),
        text=tuple(texts),
        images=tuple(FileReference.from_value(image, "image") for image in positive_images),
        similar_to=tuple(tile_ids),
        negative_text=tuple(negative_texts),
        negative_images=tuple(
            FileReference.from_value(image, "image") for image in negative_images
        ),
        negative_tiles=tuple(negative_ids),
        use_templates=not raw,
        image_weight=mix,
        negative_weight=not_weight,
        bbox=_format_bbox(region if isinstance(region, Box) else bbox),
        region=None
        if region is None or isinstance(region, Box)
        else FileReference.from_value(region, "polygons"),
        region_layer=region_layer,
        k=k,
        min_score=min_score,
        min_valid=min_valid,
        lon=domain,
        keep_examples=keep_examples,
        vector=None if vector is None else FileReference.from_value(vector, "array"),
    )
    about: dict[str, Any] = {
        "store": str(store.path),
        **_describe_stores(store),
        "model": str(store.encoder.get("id")),
        "text": "; ".join(texts) or None,
        "texts": texts,
        "raw": raw,
        "images": [_image_name(image) for image in positive_images],
        "like": tile_ids,
        "mix": mix if texts and (positive_images or tiles) else None,
        "not_text": list(negative_texts),
        "not_images": [_image_name(image) for image in negative_images],
        "not_like": negative_ids,
        "not_weight": not_weight if negative_texts or negative_images or negative_ids else None,
        "learned": is_learnable(
            len(positive_images) + len(tiles), len(negative_images) + len(not_tiles)
        ),
        "vector": _vector_name(vector),
        "bbox": _format_bbox(bbox),
        "region": _region_name(region),
        "region_layer": region_layer,
        "count": k,
        "keep_examples": keep_examples,
        "min_score": min_score,
        "min_valid": min_valid,
        "without_data": 0 if exclude is None else int(exclude.sum()),
        "dataset": dict(store.dataset),
        "request": request.to_dict(),
    }
    return PreparedSearch(
        texts=texts,
        images=pixels,
        tiles=tiles,
        not_text=negative_texts,
        not_images=negative_pixels,
        not_tiles=not_tiles,
        raw=raw,
        mix=mix,
        not_weight=not_weight,
        region=area,
        k=k,
        min_score=min_score,
        min_valid=min_valid,
        exclude=exclude,
        lon=domain,
        keep_examples=keep_examples,
        about=about,
        given=own_vector,
    )


def _vector_name(vector: Any) -> str | None:
    if vector is None:
        return None
    return str(vector) if isinstance(vector, str | Path) else "array"


def _given_vector(store: EmbeddingStore, vector: Any) -> npt.NDArray[np.float32]:
    """Check a query vector given by the user, and scale it to unit length."""
    source = str(vector) if isinstance(vector, str | Path) else "vector"
    try:
        values = read_vector(Path(vector)) if isinstance(vector, str | Path) else np.asarray(vector)
    except ValueError as error:  # lists of several lengths
        raise UsageError(f"{source}: not an array of numbers ({error})") from error
    if values.dtype.kind not in "buifO":
        raise UsageError(f"{source}: an array of {values.dtype}, not of numbers")
    if values.shape != (store.dimension,):
        raise UsageError(
            f"{source}: shape {values.shape}; {store.path} holds vectors of {store.dimension} "
            "numbers",
            remedy="Use a vector of the same model.",
        )
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not np.isfinite(length) or length < 1e-12:
        raise UsageError(f"{source}: zero, NaN or infinite")
    return np.asarray(values / length, dtype=np.float32)


def _describe_stores(store: EmbeddingStore) -> dict[str, Any]:
    """Names, paths and rows of combined stores."""
    if len(store.parts) == 1:
        return {}
    rows = [
        {"name": name, "path": str(part.path), "rows": part.rows}
        for name, part in store.parts.items()
    ]
    return {"stores": rows}


def _store_paths(store: EmbeddingStore) -> tuple[str, ...]:
    return tuple(str(part.path.absolute()) for part in store.parts.values())


def _as_list(values: Any, name: str) -> list[Any]:
    """Return one value or several as a list."""
    from PIL.Image import Image as Picture

    if values is None:
        return []
    if isinstance(values, np.ndarray) and values.dtype.kind in "buif":
        return [values] if values.ndim < 4 else list(values)  # one image, or a batch
    if isinstance(values, str | Path | Picture):
        return [values]
    if isinstance(values, Mapping | bytes) or not hasattr(values, "__iter__"):
        raise UsageError(
            f"{name} is of type {type(values).__name__}", remedy="Give one value, or a list."
        )
    return list(values)


def _parse_positions(values: LonLat | Sequence[LonLat]) -> list[LonLat]:
    try:
        pairs = np.asarray(values, dtype=np.float64).reshape(-1, 2) if len(values) else ()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"like_at={values!r} is not a position",
            remedy="Give (lon, lat) in degrees, such as (137.4, -4.6), or several of them.",
        ) from error
    return [(float(lon), float(lat)) for lon, lat in pairs]


def _image_name(image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else "image"


def _parse_region(
    bbox: Bounds | None, region: RegionLike | None, layer: str | None
) -> Region | None:
    if layer is not None and not isinstance(region, str | Path):
        raise UsageError(
            f"region_layer '{layer}' without the file of a region",
            remedy="Name the file (--region FILE), or leave the layer out.",
        )
    if bbox is not None and region is not None:
        raise UsageError("bbox and region cannot be combined", remedy="Give one of them.")
    if bbox is not None:
        if isinstance(bbox, Box):
            return bbox
        if isinstance(bbox, str):
            return Box.parse(bbox)
        if np.shape(bbox) != (4,):
            raise UsageError(
                f"bbox={bbox!r} is not a box",
                remedy="Give (west, south, east, north) in degrees, such as (130, -10, 140, 0).",
            )
        return Box(*bbox)
    if isinstance(region, str | Path):
        if not Path(region).exists():
            raise DataError(
                f"{region}: no such file", remedy="A region is a vector file of polygons."
            )
        from marsretrieval.geo import Area

        return Area.read(Path(region), layer=layer)
    if isinstance(region, Mapping) or hasattr(region, "__geo_interface__"):
        from marsretrieval.geo import Area

        return Area.from_geojson(region)
    if region is not None and not (hasattr(region, "boxes") and hasattr(region, "contains")):
        raise UsageError(
            f"region is of type {type(region).__name__}, which has no area",
            remedy="Give a vector file, a GeoJSON mapping, a geo.Area, a shapely geometry, a "
            "GeoSeries or a GeoDataFrame.",
        )
    return region


def _format_bbox(bbox: Bounds | None) -> str | None:
    if bbox is None or isinstance(bbox, str):
        return bbox
    edges = (bbox.west, bbox.south, bbox.east, bbox.north) if isinstance(bbox, Box) else bbox
    return ",".join(f"{edge:.9g}" for edge in edges)


def _region_name(region: RegionLike | None) -> str | None:
    if region is None:
        return None
    return str(region) if isinstance(region, str | Path) else "polygons"


_SEARCH_DEFAULTS = {
    name: parameter.default
    for name, parameter in signature(prepare_search).parameters.items()
    if parameter.default is not parameter.empty
}


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to search for. `store.search(query, k=20)` takes it in place of a text.

    Attributes:
        text: One or several texts, sent through the published prompt templates.
        images: Example images: paths, Pillow images or arrays.
        similar_to: Ids of example tiles of the store.
        similar_to_location: Positions (lon, lat) in example tiles of the store.
        negative_text: Texts to move away from.
        negative_images: Images to move away from.
        negative_tiles: Ids of tiles to move away from.
        use_templates: Whether texts go through the prompt templates.
        image_weight: Weight of images and tiles in a query that also has a text, 0 to 1.
        negative_weight: Weight of the negative examples, 0 to 1.
        region: Box, (west, south, east, north), vector file, shapely geometry or GeoDataFrame:
            only tiles centred in it.
    """

    text: str | Sequence[str] | None = None
    images: ImageLike | Sequence[ImageLike] = ()
    similar_to: str | Sequence[str] = ()
    similar_to_location: LonLat | Sequence[LonLat] = ()
    negative_text: str | Sequence[str] = ()
    negative_images: ImageLike | Sequence[ImageLike] = ()
    negative_tiles: str | Sequence[str] = ()
    use_templates: bool = True
    image_weight: float = MIX
    negative_weight: float = NOT_WEIGHT
    region: RegionLike | Bounds | None = None

    def to_options(self) -> dict[str, Any]:
        """Return the query as arguments of `Store.search`."""
        is_box = isinstance(self.region, Box) or (
            isinstance(self.region, (tuple, list)) and len(self.region) == 4
        )
        return {
            "text": self.text,
            "images": self.images,
            "like": self.similar_to,
            "like_at": self.similar_to_location,
            "not_text": self.negative_text,
            "not_images": self.negative_images,
            "not_like": self.negative_tiles,
            "raw": not self.use_templates,
            "mix": self.image_weight,
            "not_weight": self.negative_weight,
            "bbox": self.region if is_box else None,
            "region": None if is_box else self.region,
        }

    def combine(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Add the options of a search that are not part of a query, such as `k`.

        Args:
            options: Arguments of `Store.search`.

        Returns:
            All arguments.

        Raises:
            UsageError: If a part of the query is given twice.
        """
        own = self.to_options()
        for name in own.keys() & options.keys():
            if not _is_default(name, options[name]):
                raise UsageError(
                    f"{_QUERY_NAMES.get(name, name)} cannot be combined with a SearchQuery",
                    remedy="Put it into the query.",
                )
        return {**options, **own}


# Arguments of `prepare_search`, which are earlier names of arguments of `Store.search`.
_QUERY_NAMES = {
    "like": "similar_to", "like_at": "similar_to_location", "not_text": "negative_text",
    "not_images": "negative_images", "not_like": "negative_tiles", "raw": "use_templates",
    "mix": "image_weight", "not_weight": "negative_weight",
}  # fmt: skip


def _is_default(name: str, value: Any) -> bool:
    default = _SEARCH_DEFAULTS[name]
    return value is default or (isinstance(value, (str, int, float, bool)) and value == default)


def search_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert arguments of `Store.search`, under present or earlier names, for `prepare_search`."""
    converted = dict(options)
    for name, query_name in _QUERY_NAMES.items():
        if query_name in converted:
            value = converted.pop(query_name)
            value = not value if query_name == "use_templates" else value
            if name not in converted or _is_default(name, converted[name]):
                converted[name] = value
            elif not _is_default(name, value):
                raise UsageError(f"{query_name} and {name} are the same option", remedy="Use one.")
    unknown = [name for name in converted if name not in {"text", *_SEARCH_DEFAULTS}]
    if unknown:
        raise TypeError(f"search() got an unexpected keyword argument {unknown[0]!r}")
    return converted
