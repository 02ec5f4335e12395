"""Search from Python: `marsretrieval.open_store(path).search(...)`."""

from __future__ import annotations

from marsretrieval.api._question import Question
from marsretrieval.api._result import SearchResult
from marsretrieval.api._store import Store, open_store

__all__ = ["Question", "SearchResult", "Store", "open_store"]
