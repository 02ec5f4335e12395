"""Search from Python: stores of embeddings and the models that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marsretrieval.api.query import Question
from marsretrieval.api.result import SearchResult
from marsretrieval.api.search_query import SearchQuery
from marsretrieval.api.store import Store, open_store

if TYPE_CHECKING:
    from marsretrieval.api.build import build_store

__all__ = ["Question", "SearchQuery", "SearchResult", "Store", "build_store", "open_store"]


def __getattr__(name: str) -> Any:
    if name == "build_store":  # searches need neither the readers of images nor the builder
        from marsretrieval.api.build import build_store

        return build_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
