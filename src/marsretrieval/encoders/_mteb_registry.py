"""MTEB's registry of models, as records: nothing is loaded, and torch need not be there."""

from __future__ import annotations

import math
from typing import Any

from marsretrieval.encoders._protocol import Modality
from marsretrieval.encoders._record import ModelRecord
from marsretrieval.errors import MissingDependencyError, ModelLoadError, UnknownNameError

_LOADER = "marsretrieval.encoders.mteb:load"
_BOTH: frozenset[Modality] = frozenset({"image", "text"})
_IMAGE: frozenset[Modality] = frozenset({"image"})


def record(name: str) -> ModelRecord:
    """What MTEB knows of a model, by its name there ("openai/clip-vit-base-patch32").

    Raises MissingDependencyError without mteb, UnknownNameError with the nearest names, and
    ModelLoadError for a model that has no image side or more than one vector an item.
    """
    meta = meta_of(name)
    if "image" not in meta.modalities:
        raise ModelLoadError(
            f"mteb:{name}: a model of {', '.join(meta.modalities)} only",
            remedy="Choose one that takes images.",
        )
    if "dense" not in meta.model_type:
        raise ModelLoadError(
            f"mteb:{name}: a {' and '.join(meta.model_type)} model; here an image or a text is one "
            "vector",
            remedy="Choose a dense model.",
        )
    dimensions = [meta.embed_dim] if isinstance(meta.embed_dim, int) else meta.embed_dim or [0]
    return ModelRecord(
        id=f"mteb:{meta.name}",
        name=str(meta.name),
        family="mteb",
        loader=_LOADER,
        repository=str(meta.name),
        revision=meta.revision,
        image_size=None,
        dimension=max(dimensions),
        parameters=meta.n_parameters,
        licence=meta.license or "its author's",
        paper="",
        code=meta.reference or "",
        tried="",
        modalities=_BOTH if "text" in meta.modalities else _IMAGE,
        context_length=_finite(meta.max_tokens),
    )


def meta_of(name: str) -> Any:
    """MTEB's own `ModelMeta`. Raises MissingDependencyError and UnknownNameError."""
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise MissingDependencyError("mteb", "mteb", needed_for=f"model mteb:{name}") from error
    try:
        return mteb.get_model_meta(name)
    except KeyError:
        known = {str(each.name): each for each in mteb.get_model_metas()}
    for each, meta in known.items():
        if each.lower() == name.lower():
            return meta
    images = [each for each, meta in known.items() if "image" in meta.modalities]
    raise UnknownNameError(
        "model of MTEB", name, _nearest_first(name, images),
        remedy="A model of the hub that MTEB does not know may load as st:<repository>.",
    )  # fmt: skip


def _nearest_first(name: str, known: list[str]) -> list[str]:
    """Names to suggest from: those of the same maker or ending, if any; a list of hundreds helps
    nobody."""
    maker, _, model = name.lower().rpartition("/")
    near = [each for each in known if model in each.lower()]
    return near or [each for each in known if maker and each.lower().startswith(maker)] or known


def _finite(tokens: float | None) -> int | None:
    return int(tokens) if tokens and math.isfinite(tokens) else None
