"""Search embedding stores: exact top-k, query composition and export of hits to GIS formats.

Submodules load on first use of one of their names, so that searching existing vectors does not
import the image and shard readers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsretrieval.search.export import FORMATS, check_hits_path, write_hits
    from marsretrieval.search.hits import Hit, Hits, check_distance
    from marsretrieval.search.index.find import (
        SearchIndexWarning,
        drop_index,
        existing_index,
        make_index,
        open_index,
        verify_index,
    )
    from marsretrieval.search.index.index import SearchIndex
    from marsretrieval.search.kernels import KERNELS
    from marsretrieval.search.maps import Heatmap, check_heatmap, check_heatmap_path, heatmap_of
    from marsretrieval.search.page import QueryImage, write_page
    from marsretrieval.search.query import (
        TEMPLATES,
        away_query,
        compose,
        geolocalization_prompts,
        hybrid_query,
        image_query,
        landform_prompts,
        make_query,
        prompts_of,
        read_images,
        text_query,
    )
    from marsretrieval.search.scan import VectorBlock
    from marsretrieval.search.scores import (
        ApproximateScores,
        Background,
        ScoreSample,
        approximate_scores,
        score_all,
    )
    from marsretrieval.search.sheet import check_sheet_path, write_sheet
    from marsretrieval.search.thumbnails import Thumbnail, TileImages
    from marsretrieval.search.tiles import parse_lonlat, row_at, rows_of
    from marsretrieval.search.topk import Ranking, VectorSource, exact_topk

__all__ = [
    "FORMATS",
    "KERNELS",
    "TEMPLATES",
    "ApproximateScores",
    "Background",
    "Heatmap",
    "Hit",
    "Hits",
    "QueryImage",
    "Ranking",
    "ScoreSample",
    "SearchIndex",
    "SearchIndexWarning",
    "Thumbnail",
    "TileImages",
    "VectorBlock",
    "VectorSource",
    "approximate_scores",
    "away_query",
    "check_distance",
    "check_heatmap",
    "check_heatmap_path",
    "check_hits_path",
    "check_sheet_path",
    "compose",
    "drop_index",
    "exact_topk",
    "existing_index",
    "geolocalization_prompts",
    "heatmap_of",
    "hybrid_query",
    "image_query",
    "landform_prompts",
    "make_index",
    "make_query",
    "open_index",
    "parse_lonlat",
    "prompts_of",
    "read_images",
    "row_at",
    "rows_of",
    "score_all",
    "text_query",
    "verify_index",
    "write_hits",
    "write_page",
    "write_sheet",
]

_HOMES = {
    "export": (
        "FORMATS",
        "check_hits_path",
        "write_hits",
    ),
    "hits": (
        "Hit",
        "Hits",
        "check_distance",
    ),
    "index.find": (
        "SearchIndexWarning",
        "drop_index",
        "existing_index",
        "make_index",
        "open_index",
        "verify_index",
    ),
    "index.index": ("SearchIndex",),
    "kernels": ("KERNELS",),
    "maps": (
        "Heatmap",
        "check_heatmap",
        "check_heatmap_path",
        "heatmap_of",
    ),
    "page": (
        "QueryImage",
        "write_page",
    ),
    "query": (
        "TEMPLATES",
        "away_query",
        "compose",
        "geolocalization_prompts",
        "hybrid_query",
        "image_query",
        "landform_prompts",
        "make_query",
        "prompts_of",
        "read_images",
        "text_query",
    ),
    "scan": ("VectorBlock",),
    "scores": (
        "ApproximateScores",
        "Background",
        "ScoreSample",
        "approximate_scores",
        "score_all",
    ),
    "sheet": (
        "check_sheet_path",
        "write_sheet",
    ),
    "thumbnails": (
        "Thumbnail",
        "TileImages",
    ),
    "tiles": (
        "parse_lonlat",
        "row_at",
        "rows_of",
    ),
    "topk": (
        "Ranking",
        "VectorSource",
        "exact_topk",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
