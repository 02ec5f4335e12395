"""HTML page of search hits: map, gallery, marks and the command that reproduces it."""

from __future__ import annotations

from marsretrieval.search.page.page import (
    DEFAULT_IMAGES,
    MAX_HITS,
    PageSummary,
    QueryImage,
    write_page,
)

__all__ = ["DEFAULT_IMAGES", "MAX_HITS", "PageSummary", "QueryImage", "write_page"]
