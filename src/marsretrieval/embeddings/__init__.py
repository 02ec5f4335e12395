"""Embedding stores: build, read, verify and export the vectors of a data set.

docs/STORE.md specifies the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.embeddings.batches import (
        embed_images,
        embed_texts,
    )
    from marsretrieval.embeddings.builder import (
        BuildReport,
        Target,
        build_store,
        build_stores,
        build_text_store,
        plan_targets,
    )
    from marsretrieval.embeddings.combine import (
        CombinedStore,
        DerivedStore,
        merge_stores,
        subset_store,
    )
    from marsretrieval.embeddings.export import export_parquet
    from marsretrieval.embeddings.manifest import ModelRequest
    from marsretrieval.embeddings.pipeline import DECODE_IN, DecodeIn
    from marsretrieval.embeddings.plan import (
        BuildPlan,
        drop_stores,
        invalidate_cache,
        plan_build,
        prepare_cache,
    )
    from marsretrieval.embeddings.ray import RayOptions, build_stores_with_ray
    from marsretrieval.embeddings.shards import Block
    from marsretrieval.embeddings.store import Columns, EmbeddingStore, open_store
    from marsretrieval.embeddings.verify import Problem, Verification, verify_store

__all__ = [
    "DECODE_IN",
    "Block",
    "BuildPlan",
    "BuildReport",
    "Columns",
    "CombinedStore",
    "DecodeIn",
    "DerivedStore",
    "EmbeddingStore",
    "ModelRequest",
    "Problem",
    "RayOptions",
    "Target",
    "Verification",
    "build_store",
    "build_stores",
    "build_stores_with_ray",
    "build_text_store",
    "drop_stores",
    "embed_images",
    "embed_texts",
    "export_parquet",
    "invalidate_cache",
    "merge_stores",
    "open_store",
    "plan_build",
    "plan_targets",
    "prepare_cache",
    "subset_store",
    "verify_store",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.embeddings.builder": (
            "BuildReport",
            "Target",
            "build_store",
            "build_stores",
            "build_text_store",
            "plan_targets",
        ),
        "marsretrieval.embeddings.combine": (
            "CombinedStore",
            "DerivedStore",
            "merge_stores",
            "subset_store",
        ),
        "marsretrieval.embeddings.batches": (
            "embed_images",
            "embed_texts",
        ),
        "marsretrieval.embeddings.export": ("export_parquet",),
        "marsretrieval.embeddings.manifest": ("ModelRequest",),
        "marsretrieval.embeddings.pipeline": (
            "DECODE_IN",
            "DecodeIn",
        ),
        "marsretrieval.embeddings.plan": (
            "BuildPlan",
            "drop_stores",
            "invalidate_cache",
            "plan_build",
            "prepare_cache",
        ),
        "marsretrieval.embeddings.ray": (
            "RayOptions",
            "build_stores_with_ray",
        ),
        "marsretrieval.embeddings.shards": ("Block",),
        "marsretrieval.embeddings.store": (
            "Columns",
            "EmbeddingStore",
            "open_store",
        ),
        "marsretrieval.embeddings.verify": (
            "Problem",
            "Verification",
            "verify_store",
        ),
    },
)
