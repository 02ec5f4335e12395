"""Search views: a store once more, sorted by place and rounded to bytes, for fast exact search.

A view is derived and disposable: what it lacks or has wrong costs time, never the answer.
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
    worth_a_view,
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
    "worth_a_view",
]
