"""A search query as a value, to be used again and in several stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.api.query import make_question
from marsretrieval.errors import UsageError
from marsretrieval.geo import Box
from marsretrieval.search.query import MIX, NOT_WEIGHT

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from marsretrieval.api.query import Bounds, LonLat, RegionLike

    ImageLike = str | Path | Image | npt.NDArray[Any]

_DEFAULTS = {
    name: parameter.default
    for name, parameter in signature(make_question).parameters.items()
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
            default, value = _DEFAULTS[name], options[name]
            is_plain = isinstance(value, (str, int, float, bool))
            if value is not default and not (is_plain and value == default):
                raise UsageError(
                    f"{name} cannot be combined with a SearchQuery", remedy="Put it into the query."
                )
        return {**options, **own}
