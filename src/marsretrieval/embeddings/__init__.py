"""Embedding stores: vectors written once, shard by shard, and read by everything.

The format is specified in docs/STORE.md.
"""

from __future__ import annotations

from marsretrieval.embeddings._build import Target, build_store, build_stores, plan_targets
from marsretrieval.embeddings._cache import drop_stores, invalidate_cache, prepare_cache
from marsretrieval.embeddings._export import export_parquet
from marsretrieval.embeddings._manifest import ModelRequest
from marsretrieval.embeddings._plan import BuildPlan, plan_build
from marsretrieval.embeddings._queries import QueryEncoder, embed_images, embed_texts
from marsretrieval.embeddings._ray import RayOptions, build_stores_with_ray
from marsretrieval.embeddings._report import BuildReport
from marsretrieval.embeddings._shards import Block
from marsretrieval.embeddings._store import Columns, EmbeddingStore, open_store
from marsretrieval.embeddings._texts import build_text_store
from marsretrieval.embeddings._verify import Problem, Verification, verify_store
from marsretrieval.embeddings._workers import DECODE_IN, DecodeIn

__all__ = [
    "DECODE_IN",
    "Block",
    "BuildPlan",
    "BuildReport",
    "Columns",
    "DecodeIn",
    "EmbeddingStore",
    "ModelRequest",
    "Problem",
    "QueryEncoder",
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
    "open_store",
    "plan_build",
    "plan_targets",
    "prepare_cache",
    "verify_store",
]
