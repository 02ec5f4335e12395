"""HTML page of search hits: map, gallery, marks and the command that reproduces it."""

from __future__ import annotations

from marsretrieval.search.page.page import (
    MAX_HITS,
    PageSummary,
    QueryImage,
    write_page,
)

__all__ = ["MAX_HITS", "PageSummary", "QueryImage", "write_page"]
