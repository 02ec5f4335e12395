"""A user's object behind the Encoder protocol."""

from __future__ import annotations

import contextlib
import inspect
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from marsretrieval.encoders._protocol import Features, Modality, TextRole, Vectors
from marsretrieval.encoders._record import ModelRecord
from marsretrieval.encoders._torchvision import guard_torchvision
from marsretrieval.errors import (
    MarsRetrievalError,
    ModalityError,
    ModelLoadError,
    describe_exception,
    is_out_of_memory,
)
from marsretrieval.files import sha256_file

_BOTH: frozenset[Modality] = frozenset({"image", "text"})
_IMAGE: frozenset[Modality] = frozenset({"image"})


class PluginEncoder:
    """A user's object behind the Encoder protocol: unit float32 rows, checked."""

    def __init__(self, record: ModelRecord, inner: Any, given: dict[str, Any]) -> None:
        self._inner = inner
        self._record = record
        self._given = given
        self._dimension: int | None = None
        self._dimension = self._try_image()
        declared = getattr(inner, "dimension", self._dimension)
        if declared != self._dimension:
            raise ModelLoadError(
                f"{self.id} says dimension {declared}, and gives {self._dimension}"
            )
        if "text" in self.modalities:
            self._try_text()
        try:
            json.dumps(self.fingerprint)
        except (TypeError, ValueError) as error:
            raise ModelLoadError(
                f"{self.id}: its fingerprint cannot be written as JSON ({error})",
                remedy="Use strings, numbers, lists and dictionaries.",
            ) from error

    @property
    def id(self) -> str:
        return self._record.id

    @property
    def dimension(self) -> int:
        assert self._dimension is not None
        return self._dimension

    @property
    def modalities(self) -> frozenset[Modality]:
        return modalities_of(self._inner)

    @property
    def device(self) -> str:
        """Where the object says that it computes, else where it was asked to."""
        return str(getattr(self._inner, "device", self._given.get("device", "cpu")))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the object itself tells; else the hash of its source file and what it was given."""
        with self._telling("fingerprint"):
            told = getattr(self._inner, "fingerprint", None)
            told = told() if callable(told) else told
        return {
            "loader": self._record.loader,
            "revision": None,
            "weights_sha256": None,
            **(_identity(self._inner, self._given) if told is None else told),
            "id": self.id,
            "target": self._record.settings["target"],
            "dimension": self._dimension,
        }

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        if hasattr(self._inner, "encode_preprocessed") and hasattr(self._inner, "preprocess"):
            return _Preprocess(self._inner.preprocess)
        return _as_it_is  # encode_images takes images and prepares them itself

    def encode_preprocessed(self, features: Sequence[Features]) -> Vectors:
        apart = isinstance(self.preprocess, _Preprocess)
        return self._rows("encode_preprocessed" if apart else "encode_images", features)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self._rows("encode_images", images)

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        if "text" not in self.modalities:
            raise ModalityError(f"{self.id} has no encode_texts and cannot embed text")
        return self._rows("encode_texts", texts, role=role)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        count = getattr(self._inner, "count_truncated", None)
        if count is None:
            return None
        with self._telling("count_truncated"):
            number = count(list(texts), **_asked_for(count, role=role))
            return None if number is None else int(number)

    def _try_image(self) -> int:
        """The dimension of what it gives for one image."""
        with self._telling("encode_images"):
            return int(self.encode_images([Image.new("RGB", (64, 64), (90, 80, 70))]).shape[1])

    def _try_text(self) -> None:
        """Find a text of another width than the images before all of them are embedded."""
        # A class may know the texts of its task only, and refuse others: that is no fault.
        with self._telling("encode_texts"):
            try:
                self.encode_texts(["dunes on Mars"])
            except _MethodError as error:
                if not isinstance(error.__cause__, (LookupError, ValueError)):
                    raise

    @contextlib.contextmanager
    def _telling(self, method: str) -> Iterator[None]:
        try:
            yield
        except ModelLoadError:
            raise
        except (Exception, SystemExit) as error:  # a user's method may raise anything
            raise ModelLoadError(
                f"{self.id}: its {method} failed ({describe_exception(error)})"
            ) from error

    def _rows(self, method: str, items: Sequence[Any], **optional: Any) -> Vectors:
        if not items:
            return np.empty((0, self.dimension), np.float32)
        encode = getattr(self._inner, method)
        try:
            vectors = encode(list(items), **_asked_for(encode, **optional))
        except (Exception, SystemExit) as error:  # a user's method may raise anything
            if isinstance(error, MarsRetrievalError) or is_out_of_memory(error):
                raise
            raise _MethodError(
                f"{self.id}: its {method} failed ({describe_exception(error)})"
            ) from error
        rows = self._array(method, vectors)
        width = self._dimension or (rows.shape[-1] if rows.ndim else 0)
        if rows.shape != (len(items), width):
            wanted = self._dimension or "dimension"
            raise ModelLoadError(
                f"{self.id}: {method} gave an array of shape {rows.shape} for {len(items)} items",
                remedy=f"It takes a list of n items and returns (n, {wanted}).",
            )
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise ModelLoadError(f"{self.id}: {method} gave vectors that are not finite, or zero")
        unit: Vectors = (rows / norms).astype(np.float32, copy=False)
        return unit

    def _array(self, method: str, vectors: Any) -> Vectors:
        if hasattr(vectors, "detach"):  # a tensor: perhaps on a device, perhaps bfloat16
            vectors = vectors.detach().float().cpu()
        try:
            return np.asarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelLoadError(
                f"{self.id}: {method} gave a {type(vectors).__name__} that is no array ({error})",
                remedy="It returns (n, dimension) numbers.",
            ) from error


class _MethodError(ModelLoadError):
    """A method of the user's object raised."""


class _Preprocess:
    """A user's preprocessing, importable in a fresh process that has not loaded the model."""

    def __init__(self, preprocess: Callable[[Image.Image], Features]) -> None:
        self._preprocess = preprocess

    def __call__(self, image: Image.Image) -> Features:
        return self._preprocess(image)

    def __reduce__(self) -> tuple[Callable[[bytes], _Preprocess], tuple[bytes]]:
        return _unpickle_preprocess, (pickle.dumps(self._preprocess),)


def _unpickle_preprocess(state: bytes) -> _Preprocess:
    guard_torchvision()
    return _Preprocess(pickle.loads(state))


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def modalities_of(found: Any) -> frozenset[Modality]:
    """What a class or an object says in `modalities`, else what it can do; both for None."""
    declared = getattr(found, "modalities", None)
    if isinstance(declared, (set, frozenset)):
        return _BOTH if "text" in declared else _IMAGE
    return _BOTH if found is None or hasattr(found, "encode_texts") else _IMAGE


def static_fingerprint(target: Any) -> Mapping[str, Any] | None:
    """The `fingerprint` of a class, a function or an object, where it needs no instance.

    Args:
        target: What ``module:Class`` names.

    Returns:
        The mapping; None where there is none, or where only a loaded encoder has it.
    """
    fingerprint = getattr(target, "fingerprint", None)
    if callable(fingerprint) and not inspect.isclass(target):
        fingerprint = fingerprint()
    return fingerprint if isinstance(fingerprint, Mapping) else None


def parameters_of(found: Any) -> frozenset[str]:
    """Names of the arguments that a class or function takes."""
    try:
        return frozenset(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # an object, or made in C
        return frozenset()


def _asked_for(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    names = parameters_of(function)
    return {name: value for name, value in arguments.items() if name in names}


def _identity(inner: Any, given: dict[str, Any]) -> dict[str, Any]:
    """For an object that tells nothing of itself: its source, and the options it was made with."""
    from marsretrieval.encoders._identity import source_sha256

    identity: dict[str, Any] = {"source_sha256": source_sha256(type(inner))}
    checkpoint = given.get("checkpoint")
    if checkpoint is not None and checkpoint.is_file():
        identity["checkpoint_sha256"] = sha256_file(checkpoint)
    elif checkpoint is not None:
        identity["checkpoint"] = str(checkpoint)
    return {**identity, **{name: given[name] for name in ("dtype", "prompts") if name in given}}
