"""Search from Python: stores of embeddings and the models that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.api.build import build_store
    from marsretrieval.api.query import PreparedSearch, SearchQuery
    from marsretrieval.api.result import SearchResult
    from marsretrieval.api.store import Store, open_store

__all__ = ["PreparedSearch", "SearchQuery", "SearchResult", "Store", "build_store", "open_store"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.api.build": ("build_store",),
        "marsretrieval.api.query": ("PreparedSearch", "SearchQuery"),
        "marsretrieval.api.result": ("SearchResult",),
        "marsretrieval.api.store": ("Store", "open_store"),
    },
)
