"""Encoders: a common interface and a registry of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.encoders.base import (
        Encoder,
        Features,
        LoadOptions,
        Modality,
        ModelSpec,
        PromptPreset,
        QueryEncoder,
        TextRole,
        Vectors,
    )
    from marsretrieval.encoders.doctor import (
        check_batches,
        check_encoder,
        examine_machine,
        find_load_error,
    )
    from marsretrieval.encoders.identity import file_stats, model_identity, source_sha256
    from marsretrieval.encoders.registry import all_specs, find, load

__all__ = [
    "Encoder",
    "Features",
    "LoadOptions",
    "Modality",
    "ModelSpec",
    "PromptPreset",
    "QueryEncoder",
    "TextRole",
    "Vectors",
    "all_specs",
    "check_batches",
    "check_encoder",
    "examine_machine",
    "file_stats",
    "find",
    "find_load_error",
    "load",
    "model_identity",
    "source_sha256",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.encoders.base": (
            "Encoder",
            "Features",
            "LoadOptions",
            "Modality",
            "ModelSpec",
            "PromptPreset",
            "QueryEncoder",
            "TextRole",
            "Vectors",
        ),
        "marsretrieval.encoders.doctor": (
            "check_batches",
            "check_encoder",
            "examine_machine",
            "find_load_error",
        ),
        "marsretrieval.encoders.identity": (
            "file_stats",
            "model_identity",
            "source_sha256",
        ),
        "marsretrieval.encoders.registry": (
            "all_specs",
            "find",
            "load",
        ),
    },
)
