"""Retrieval benchmark and planet-wide image search for Mars orbital imagery.

    import marsretrieval as mr

    results = mr.evaluate("mars-nano", tasks=["landform"], data="data", results="results")
    results.to_dataframe()

    store = mr.build_store("mars-nano", "tiles/", "mars.store")
    for hit in store.search("pitted cones", k=20):
        print(hit.rank, hit.score, hit.id, hit.lon, hit.lat)

Names are loaded at first use: importing the package loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.api import SearchQuery, SearchResult, Store, build_store, open_store
    from marsretrieval.api.inventory import open_inventory
    from marsretrieval.encoders import Encoder
    from marsretrieval.encoders.loading import list_models, load_model
    from marsretrieval.evaluation.evaluate import Results, evaluate, load_results
    from marsretrieval.inventory import Inventory

__all__ = [
    "Encoder",
    "Inventory",
    "Results",
    "SearchQuery",
    "SearchResult",
    "Store",
    "__version__",
    "build_store",
    "evaluate",
    "list_models",
    "load_model",
    "load_results",
    "open_inventory",
    "open_store",
]

__version__ = "0.1.0"

__getattr__, _ = lazy_exports(
    __name__,
    {
        "marsretrieval.api": (
            "SearchQuery",
            "SearchResult",
            "Store",
            "build_store",
            "open_store",
        ),
        "marsretrieval.api.inventory": ("open_inventory",),
        "marsretrieval.encoders": ("Encoder",),
        "marsretrieval.encoders.loading": (
            "list_models",
            "load_model",
        ),
        "marsretrieval.evaluation.evaluate": (
            "Results",
            "evaluate",
            "load_results",
        ),
        "marsretrieval.inventory": ("Inventory",),
    },
)


def __dir__() -> list[str]:
    return sorted([*__all__, "api"])
