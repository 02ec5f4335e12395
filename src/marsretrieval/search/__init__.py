"""Find in a store: exact top-k, queries as the paper makes them, hits as files for GIS."""

from __future__ import annotations

from marsretrieval.search.ask import QueryEncoder, make_query, read_images
from marsretrieval.search.hits import Hits, check_hits_path, write_hits
from marsretrieval.search.prompts import TEMPLATES, geolocalization_prompts, landform_prompts
from marsretrieval.search.queries import hybrid_query, image_query, text_query
from marsretrieval.search.scores import score_all
from marsretrieval.search.topk import Ranking, VectorBlock, VectorSource, exact_topk
from marsretrieval.search.view import (
    SearchView,
    SearchViewWarning,
    drop_view,
    make_view,
    open_view,
    verify_view,
)

__all__ = [
    "TEMPLATES",
    "Hits",
    "QueryEncoder",
    "Ranking",
    "SearchView",
    "SearchViewWarning",
    "VectorBlock",
    "VectorSource",
    "check_hits_path",
    "drop_view",
    "exact_topk",
    "geolocalization_prompts",
    "hybrid_query",
    "image_query",
    "landform_prompts",
    "make_query",
    "make_view",
    "open_view",
    "read_images",
    "score_all",
    "text_query",
    "verify_view",
    "write_hits",
]
