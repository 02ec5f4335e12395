"""Search views: a store once more, sorted by place and rounded to bytes, for fast exact search.

A view is derived and disposable. One of other contents, or with a file missing or cut short, is not
used, which costs time and never the answer. Bytes that changed within a file are found where scores
leave their bounds or numbers lead nowhere, and all of them by `store verify`.
"""

from __future__ import annotations

from marsretrieval.search.view._find import (
    SearchViewWarning,
    discard_view,
    drop_view,
    existing_view,
    known_of,
    make_view,
    open_view,
    verify_view,
    view_of,
)
from marsretrieval.search.view._layout import SearchView

__all__ = [
    "SearchView",
    "SearchViewWarning",
    "discard_view",
    "drop_view",
    "existing_view",
    "known_of",
    "make_view",
    "open_view",
    "verify_view",
    "view_of",
]
