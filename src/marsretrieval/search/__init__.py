"""Search embedding stores: exact top-k, query composition and export of hits to GIS formats.

Submodules load on first use of one of their names, so that searching existing vectors does not
import the image and shard readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.search.export import FORMATS, check_hits_path, write_hits
    from marsretrieval.search.heatmap import (
        Heatmap,
        check_heatmap,
        check_heatmap_path,
        heatmap_of,
    )
    from marsretrieval.search.hits import Hit, Hits, check_distance, compare_with_catalogue
    from marsretrieval.search.index import SearchIndex
    from marsretrieval.search.index.find import (
        SearchIndexWarning,
        drop_index,
        existing_index,
        make_index,
        open_index,
        verify_index,
    )
    from marsretrieval.search.kernels import KERNELS
    from marsretrieval.search.page import QueryImage, write_page
    from marsretrieval.search.provenance import SearchRequest, read_provenance
    from marsretrieval.search.query import (
        PUBLISHED_TEMPLATES,
        TEMPLATES,
        away_query,
        check_text,
        choose_templates,
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
    from marsretrieval.search.topk import (
        Ranking,
        VectorSource,
        exact_from_approximate,
        exact_topk,
    )

__all__ = [
    "FORMATS",
    "KERNELS",
    "PUBLISHED_TEMPLATES",
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
    "SearchRequest",
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
    "check_text",
    "choose_templates",
    "compare_with_catalogue",
    "compose",
    "drop_index",
    "exact_from_approximate",
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
    "read_provenance",
    "row_at",
    "rows_of",
    "score_all",
    "text_query",
    "verify_index",
    "write_hits",
    "write_page",
    "write_sheet",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.search.export": (
            "FORMATS",
            "check_hits_path",
            "write_hits",
        ),
        "marsretrieval.search.heatmap": (
            "Heatmap",
            "check_heatmap",
            "check_heatmap_path",
            "heatmap_of",
        ),
        "marsretrieval.search.hits": (
            "Hit",
            "Hits",
            "check_distance",
            "compare_with_catalogue",
        ),
        "marsretrieval.search.index.find": (
            "SearchIndexWarning",
            "drop_index",
            "existing_index",
            "make_index",
            "open_index",
            "verify_index",
        ),
        "marsretrieval.search.index": ("SearchIndex",),
        "marsretrieval.search.kernels": ("KERNELS",),
        "marsretrieval.search.provenance": (
            "SearchRequest",
            "read_provenance",
        ),
        "marsretrieval.search.page": (
            "QueryImage",
            "write_page",
        ),
        "marsretrieval.search.query": (
            "PUBLISHED_TEMPLATES",
            "TEMPLATES",
            "check_text",
            "choose_templates",
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
        "marsretrieval.search.scan": ("VectorBlock",),
        "marsretrieval.search.scores": (
            "ApproximateScores",
            "Background",
            "ScoreSample",
            "approximate_scores",
            "score_all",
        ),
        "marsretrieval.search.sheet": (
            "check_sheet_path",
            "write_sheet",
        ),
        "marsretrieval.search.thumbnails": (
            "Thumbnail",
            "TileImages",
        ),
        "marsretrieval.search.tiles": (
            "parse_lonlat",
            "row_at",
            "rows_of",
        ),
        "marsretrieval.search.topk": (
            "Ranking",
            "VectorSource",
            "exact_from_approximate",
            "exact_topk",
        ),
    },
)
