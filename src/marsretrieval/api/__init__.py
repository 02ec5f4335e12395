"""Search from Python: `marsretrieval.open_store(path).search(...)`."""

from __future__ import annotations

from marsretrieval.api.query import Question
from marsretrieval.api.result import SearchResult
from marsretrieval.api.store import Store, open_store

__all__ = ["Question", "SearchResult", "Store", "open_store"]
