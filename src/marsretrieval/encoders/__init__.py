"""Encoders: a common interface and a registry of models."""

from marsretrieval.encoders.base import (
    Encoder,
    Features,
    LoadOptions,
    Modality,
    ModelSpec,
    PromptPreset,
    TextRole,
    Vectors,
)
from marsretrieval.encoders.doctor import examine_machine
from marsretrieval.encoders.identity import file_stats, model_identity, source_sha256
from marsretrieval.encoders.preflight import find_load_error
from marsretrieval.encoders.registry import all_specs, find, load
from marsretrieval.encoders.sanity_check import check_batches, check_encoder

__all__ = [
    "Encoder",
    "Features",
    "LoadOptions",
    "Modality",
    "ModelSpec",
    "PromptPreset",
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
