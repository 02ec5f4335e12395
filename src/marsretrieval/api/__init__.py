"""Search from Python: stores of embeddings and the models that made them."""

from __future__ import annotations

from marsretrieval.api.build import build_store
from marsretrieval.api.query import Question
from marsretrieval.api.result import SearchResult
from marsretrieval.api.search_query import SearchQuery
from marsretrieval.api.store import Store, open_store

__all__ = ["Question", "SearchQuery", "SearchResult", "Store", "build_store", "open_store"]
