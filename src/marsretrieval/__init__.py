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

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "api": ("SearchQuery", "SearchResult", "Store", "build_store", "open_store"),
    "api.inventory": ("open_inventory",),
    "encoders": ("Encoder",),
    "encoders.loading": ("list_models", "load_model"),
    "evaluation.evaluate": ("Results", "evaluate", "load_results"),
    "inventory": ("Inventory",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "api"])
