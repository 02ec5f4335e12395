"""Who answers: models behind one protocol, found by name."""

from marsretrieval.encoders._check import check_batches, check_encoder
from marsretrieval.encoders._fitness import examine_machine
from marsretrieval.encoders._identity import file_stats, model_identity, source_sha256
from marsretrieval.encoders._preflight import find_refusal
from marsretrieval.encoders._protocol import Encoder, Features, Modality, TextRole, Vectors
from marsretrieval.encoders._record import LoadOptions, ModelRecord, PromptPreset
from marsretrieval.encoders._registry import all_records, find, load

__all__ = [
    "Encoder",
    "Features",
    "LoadOptions",
    "Modality",
    "ModelRecord",
    "PromptPreset",
    "TextRole",
    "Vectors",
    "all_records",
    "check_batches",
    "check_encoder",
    "examine_machine",
    "file_stats",
    "find",
    "find_refusal",
    "load",
    "model_identity",
    "source_sha256",
]
