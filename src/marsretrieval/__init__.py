"""Retrieval benchmark and planet-wide image search for Mars orbital imagery.

    import marsretrieval

    store = marsretrieval.open_store("mars.store")
    for hit in store.search("pitted cones", k=20):
        print(hit.rank, hit.score, hit.id, hit.lon, hit.lat)

The names are imported on first use, so that importing the package is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsretrieval.api import SearchResult, Store, open_store

__all__ = ["SearchResult", "Store", "__version__", "open_store"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("SearchResult", "Store", "open_store"):
        from marsretrieval import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "api"])
