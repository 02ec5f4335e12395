"""The plugin door: any class with `encode_images` becomes an Encoder."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from marsretrieval.encoders._protocol import Encoder, Features, Modality, TextRole, Vectors
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.errors import ModalityError, ModelLoadError, UsageError

__all__ = ["PluginEncoder", "load", "record_of_class", "record_of_target"]


def record_of_target(target: str) -> ModelRecord:
    """A record for ``package.module:Class``, importable from here or from the current folder.

    Raises UsageError when it cannot be imported or has no `encode_images`.
    """
    return record_of_class(_import(target), target, target)


def record_of_class(found: type, name: str, target: str) -> ModelRecord:
    modalities: frozenset[Modality] = frozenset({"image"})
    declared = getattr(found, "modalities", None)
    if hasattr(found, "encode_texts") and (
        not isinstance(declared, (set, frozenset)) or "text" in declared
    ):
        modalities |= {"text"}
    return ModelRecord(
        id=name,
        name=name,
        family="plugin",
        loader=f"{__name__}:load",
        repository=target,
        revision=None,
        image_size=None,
        dimension=0,
        parameters=None,
        licence="its author's",
        paper="",
        code="",
        tried="",
        modalities=modalities,
        settings={"target": target},
    )


def load(record: ModelRecord, options: LoadOptions) -> Encoder:
    """Make the user's object and wrap it. Its class is called with the arguments among `device`,
    `dtype` and `checkpoint` that it names."""
    found = _import(record.settings["target"])
    offered = {"device": options.device, "dtype": options.dtype, "checkpoint": options.checkpoint}
    try:
        names = inspect.signature(found).parameters
        encoder = found(**{name: value for name, value in offered.items() if name in names})
    except Exception as error:  # a user's constructor may raise anything
        raise ModelLoadError(f"{record.id}: its constructor failed ({error!r})") from error
    return PluginEncoder(record, encoder)


class PluginEncoder:
    """A user's object behind the Encoder protocol: unit float32 rows, checked."""

    def __init__(self, record: ModelRecord, inner: Any) -> None:
        self._inner = inner
        self._record = record
        self._roles = _takes_role(inner)
        probe = self.encode_images([Image.new("RGB", (64, 64), (90, 80, 70))])
        self._dimension = probe.shape[1]

    @property
    def id(self) -> str:
        return self._record.id

    @property
    def dimension(self) -> int:
        return int(self._dimension)

    @property
    def modalities(self) -> frozenset[Modality]:
        return self._record.modalities

    @property
    def fingerprint(self) -> dict[str, Any]:
        told = getattr(self._inner, "fingerprint", {})
        return {
            "id": self.id,
            "loader": self._record.loader,
            "target": self._record.settings["target"],
            "dimension": self._dimension,
            **(told() if callable(told) else told),
        }

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        return getattr(self._inner, "preprocess", _as_it_is)

    def encode_preprocessed(self, features: Sequence[Features]) -> Vectors:
        encode = getattr(self._inner, "encode_preprocessed", None)
        if encode is None:
            if hasattr(self._inner, "preprocess"):
                raise ModelLoadError(
                    f"{self.id} has preprocess but no encode_preprocessed",
                    remedy="Add it, or leave both out and take images in encode_images.",
                )
            encode = self._inner.encode_images
        return self._checked(encode(features), len(features), "image")

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self._checked(self._inner.encode_images(images), len(images), "image")

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        if "text" not in self.modalities:
            raise ModalityError(f"{self.id} has no encode_texts and cannot embed text")
        extra = {"role": role} if self._roles else {}
        return self._checked(self._inner.encode_texts(texts, **extra), len(texts), "text")

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        count = getattr(self._inner, "count_truncated", None)
        return int(count(texts)) if count is not None else None

    def _checked(self, vectors: Any, count: int, what: str) -> Vectors:
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or len(rows) != count:
            raise ModelLoadError(
                f"{self.id}: {count} {what}s gave an array of shape {rows.shape}",
                remedy=f"encode_{what}s takes n {what}s and returns (n, dimension).",
            )
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise ModelLoadError(f"{self.id}: {what} vectors that are not finite, or zero")
        unit: Vectors = rows / norms
        return unit


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _takes_role(inner: Any) -> bool:
    encode = getattr(inner, "encode_texts", None)
    return encode is not None and "role" in inspect.signature(encode).parameters


def _import(target: str) -> type:
    module, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"model '{target}' cannot be imported ({error})",
            remedy="Give it as package.module:Class, importable from the current folder.",
        ) from error
    if not hasattr(found, "encode_images"):
        raise UsageError(
            f"model '{target}' has no encode_images",
            remedy="An encoder has encode_images(images) -> (n, d), and encode_texts if it reads.",
        )
    return found  # type: ignore[no-any-return]
