"""Encoders from user-defined classes: create, wrap and validate them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_type_hints

import numpy as np
from PIL import Image

from marsretrieval.encoders.base import (
    PLUGIN_FAMILY,
    Encoder,
    Features,
    LoadOptions,
    Modality,
    ModelSpec,
    TextRole,
    Vectors,
)
from marsretrieval.encoders.identity import import_target, source_sha256
from marsretrieval.encoders.torch_imports import guard_torchvision
from marsretrieval.errors import (
    MarsRetrievalError,
    ModalityError,
    ModelLoadError,
    UsageError,
    describe_exception,
    is_out_of_memory,
)
from marsretrieval.io import sha256_file

_BOTH: frozenset[Modality] = frozenset({"image", "text"})
_IMAGE: frozenset[Modality] = frozenset({"image"})
_OPTIONS = ("device", "dtype", "checkpoint", "prompts", "offline")
_VECTOR_OPTIONS = ("checkpoint", "dtype", "prompts")
_REMEDY = "An encoder has encode_images(images) -> (n, d), and optionally encode_texts(texts)."


def load(spec: ModelSpec, options: LoadOptions) -> Encoder:
    """Create a user's encoder and wrap it.

    The class is called with those of the arguments `device`, `dtype`, `checkpoint`, `prompts` and
    `offline` that its constructor accepts.

    Args:
        spec: Spec whose settings name the target.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        UsageError: If the class does not accept an option that would change the vectors.
        ModelLoadError: If the class fails or returns invalid vectors.
    """
    target = import_target(spec.settings["target"])
    names = parameters_of(target)
    _require_accepted(spec, options, names)
    offered: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS if name in names}
    if offered.get("device") == "auto":
        offered["device"] = _best_device()
    try:
        inner = target(**offered) if isinstance(target, type) or _is_function(target) else target
    except (Exception, SystemExit) as error:  # a user's constructor may raise anything
        raise ModelLoadError(
            f"{spec.id}: its constructor failed ({describe_exception(error)})",
            remedy="Correct the class, or the arguments in its name.",
        ) from error
    if not hasattr(inner, "encode_images"):
        raise ModelLoadError(
            f"{spec.id} made a {type(inner).__name__}, which has no encode_images",
            remedy=_REMEDY,
        )
    return PluginEncoder(spec, inner, offered)


def spec_from_target(target: str) -> ModelSpec:
    """Create the spec of ``package.module:Class``.

    Args:
        target: Class, function or object, importable also from the current folder.

    Returns:
        The spec.

    Raises:
        UsageError: If it cannot be imported or is not an encoder.
    """
    return spec_from_object(import_target(target), target, target)


def spec_from_object(encoder: Any, name: str, target: str) -> ModelSpec:
    """Create the spec of a class, of a function that returns an encoder, or of an encoder.

    Args:
        encoder: The class, function or encoder.
        name: Id of the model.
        target: ``package.module:Class``.

    Returns:
        The spec.

    Raises:
        UsageError: If `encoder` is none of these.
    """
    if not hasattr(encoder, "encode_images"):
        if not _is_function(encoder):
            raise UsageError(f"model '{target}' has no encode_images", remedy=_REMEDY)
        _require_factory(encoder, target)
    return ModelSpec.unregistered(
        name,
        name=name,
        family=PLUGIN_FAMILY,
        loader=f"{__name__}:load",
        repository=target,
        modalities=modalities_of(_returned_class(encoder)),
        settings={"target": target},
    )


def require_options(spec: ModelSpec, options: LoadOptions) -> None:
    """Check, without loading, that a class accepts the options that change vectors.

    Args:
        spec: Spec whose settings name a target.
        options: Load options.

    Raises:
        UsageError: If the class does not accept one of them, or cannot be imported.
    """
    _require_accepted(spec, options, parameters_of(import_target(spec.settings["target"])))


class PluginEncoder:
    """Wrap a user's object as an Encoder: validate and normalize its vectors."""

    def __init__(self, spec: ModelSpec, inner: Any, arguments: dict[str, Any]) -> None:
        """Wrap an object and embed one image and one text with it.

        Args:
            spec: Spec of the model.
            inner: The user's object.
            arguments: Arguments that the object was created with.

        Raises:
            ModelLoadError: If a method fails, or its dimension or fingerprint is invalid.
        """
        self._inner = inner
        self._spec = spec
        self._arguments = arguments
        self._dimension: int | None = None
        self._dimension = self._measure_dimension()
        declared = getattr(inner, "dimension", self._dimension)
        if declared != self._dimension:
            raise ModelLoadError(
                f"{self.id} declares dimension {declared} but returns {self._dimension}",
                remedy="Correct the dimension of the class.",
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
        """Id of the model."""
        return self._spec.id

    @property
    def dimension(self) -> int:
        """Dimension of the vectors that the object returns."""
        assert self._dimension is not None
        return self._dimension

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs that the object embeds."""
        return modalities_of(self._inner)

    @property
    def device(self) -> str:
        """Device that the object declares, else the one it was created with."""
        return str(getattr(self._inner, "device", self._arguments.get("device", "cpu")))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the object, else the hash of its source file and its arguments."""
        with self._method_errors("fingerprint"):
            declared = getattr(self._inner, "fingerprint", None)
            declared = declared() if callable(declared) else declared
        return {
            "loader": self._spec.loader,
            "revision": None,
            "weights_sha256": None,
            **(
                _default_fingerprint(self._inner, self._arguments) if declared is None else declared
            ),
            "id": self.id,
            "target": self._spec.settings["target"],
            "dimension": self._dimension,
        }

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        """Preprocessing of the object. If it has none, images are passed on unchanged."""
        if hasattr(self._inner, "encode_preprocessed") and hasattr(self._inner, "preprocess"):
            return _Preprocess(self._inner.preprocess)
        return _return_unchanged  # encode_images takes images and prepares them itself

    def encode_preprocessed(self, features: Sequence[Features]) -> Vectors:
        """Embed preprocessed images.

        Args:
            features: Return values of `preprocess` for n images.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModelLoadError: If the object fails or returns invalid vectors.
        """
        apart = isinstance(self.preprocess, _Preprocess)
        return self._encode("encode_preprocessed" if apart else "encode_images", features)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Embed images.

        Args:
            images: n RGB images.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModelLoadError: If the object fails or returns invalid vectors.
        """
        return self._encode("encode_images", images)

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Embed texts.

        Args:
            texts: n texts.
            role: Whether the texts are queries or captions, if the object accepts it.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModalityError: If the object has no `encode_texts`.
            ModelLoadError: If the object fails or returns invalid vectors.
        """
        if "text" not in self.modalities:
            raise ModalityError(f"{self.id} has no encode_texts and cannot embed text")
        return self._encode("encode_texts", texts, role=role)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the model's context length.

        Args:
            texts: The texts.
            role: Whether the texts are queries or captions, if the object accepts it.

        Returns:
            Number of truncated texts. None if the object does not count them.

        Raises:
            ModelLoadError: If the object fails.
        """
        count = getattr(self._inner, "count_truncated", None)
        if count is None:
            return None
        with self._method_errors("count_truncated"):
            number = count(list(texts), **_accepted_arguments(count, role=role))
            return None if number is None else int(number)

    def _measure_dimension(self) -> int:
        """Return the dimension of the vector of one image."""
        with self._method_errors("encode_images"):
            return int(self.encode_images([Image.new("RGB", (64, 64), (90, 80, 70))]).shape[1])

    def _try_text(self) -> None:
        """Check, before all images are embedded, that texts have the dimension of images."""
        # A class may support only the texts of its task and reject others.
        with self._method_errors("encode_texts"):
            try:
                self.encode_texts(["dunes on Mars"])
            except _MethodError as error:
                if not isinstance(error.__cause__, (LookupError, ValueError)):
                    raise

    @contextlib.contextmanager
    def _method_errors(self, method: str) -> Iterator[None]:
        try:
            yield
        except ModelLoadError:
            raise
        except (Exception, SystemExit) as error:  # a user's method may raise anything
            raise ModelLoadError(
                f"{self.id}: its {method} failed ({describe_exception(error)})"
            ) from error

    def _encode(self, method: str, items: Sequence[Any], **optional: Any) -> Vectors:
        if not items:
            return np.empty((0, self.dimension), np.float32)
        encode = getattr(self._inner, method)
        try:
            vectors = encode(list(items), **_accepted_arguments(encode, **optional))
        except (Exception, SystemExit) as error:  # a user's method may raise anything
            if isinstance(error, MarsRetrievalError) or is_out_of_memory(error):
                raise
            raise _MethodError(
                f"{self.id}: its {method} failed ({describe_exception(error)})"
            ) from error
        rows = self._to_array(method, vectors)
        width = self._dimension or (rows.shape[-1] if rows.ndim else 0)
        if rows.shape != (len(items), width):
            expected = self._dimension or "dimension"
            raise ModelLoadError(
                f"{self.id}: {method} returned an array of shape {rows.shape} for {len(items)} "
                "items",
                remedy=f"For a list of n items it must return (n, {expected}).",
            )
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise ModelLoadError(
                f"{self.id}: {method} returned vectors that are zero or not finite",
                remedy="Correct the class so that each vector is finite and not zero.",
            )
        unit: Vectors = (rows / norms).astype(np.float32, copy=False)
        return unit

    def _to_array(self, method: str, vectors: Any) -> Vectors:
        if hasattr(vectors, "detach"):  # a tensor, possibly on a device or in bfloat16
            vectors = vectors.detach().cpu()
            vectors = vectors if vectors.is_complex() else vectors.float()
        try:
            if np.iscomplexobj(vectors):
                raise TypeError("complex numbers")
            return np.asarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelLoadError(
                f"{self.id}: {method} returned a {type(vectors).__name__} that is not an array "
                f"({error})",
                remedy="It must return (n, dimension) numbers.",
            ) from error


class _MethodError(ModelLoadError):
    """Failure of a method of the user's object."""


class _Preprocess:
    """A user's preprocessing, importable in a new process that has not loaded the model."""

    def __init__(self, preprocess: Callable[[Image.Image], Features]) -> None:
        self._preprocess = preprocess

    def __call__(self, image: Image.Image) -> Features:
        return self._preprocess(image)

    def __reduce__(self) -> tuple[Callable[[bytes], _Preprocess], tuple[bytes]]:
        return _unpickle_preprocess, (pickle.dumps(self._preprocess),)


def _unpickle_preprocess(state: bytes) -> _Preprocess:
    guard_torchvision()
    return _Preprocess(pickle.loads(state))


def _return_unchanged(image: Image.Image) -> Image.Image:
    return image


def modalities_of(target: Any) -> frozenset[Modality]:
    """Determine which inputs a class or an object embeds.

    Args:
        target: Class or object. None if unknown.

    Returns:
        Its attribute `modalities`, else what its methods imply. Images and texts for None.
    """
    declared = getattr(target, "modalities", None)
    if isinstance(declared, (set, frozenset)):
        return _BOTH if "text" in declared else _IMAGE
    return _BOTH if target is None or hasattr(target, "encode_texts") else _IMAGE


def parameters_of(function: Any) -> frozenset[str]:
    """List the parameters of a class or function.

    Args:
        function: Class or function.

    Returns:
        Names of its parameters. Empty if the signature is unknown.
    """
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # an object, or implemented in C
        return frozenset()


def _accepted_arguments(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    names = parameters_of(function)
    return {name: value for name, value in arguments.items() if name in names}


def _default_fingerprint(inner: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fingerprint of an object without one: its source and the arguments it was created with."""
    identity: dict[str, Any] = {"source_sha256": source_sha256(type(inner))}
    checkpoint = arguments.get("checkpoint")
    if checkpoint is not None and checkpoint.is_file():
        identity["checkpoint_sha256"] = sha256_file(checkpoint)
    elif checkpoint is not None:
        identity["checkpoint"] = str(checkpoint)
    return {
        **identity,
        **{name: arguments[name] for name in ("dtype", "prompts") if name in arguments},
    }


def _best_device() -> str:
    """Resolve `auto`, a name that torch does not accept."""
    try:
        from marsretrieval.encoders.torch_encoder import choose_device
    except ImportError:
        return "cpu"
    return str(choose_device("auto"))


def _is_function(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.ismethod(value)


def _require_factory(function: Any, target: str) -> None:
    """Raise for a function whose signature is not that of an encoder factory. Does not call it.

    A factory has no parameters, or one of the known options, or an encoder as return annotation;
    every other parameter has a default.
    """
    parameters = inspect.signature(function).parameters.values()
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in _OPTIONS
    ]
    offered = not parameters or any(parameter.name in _OPTIONS for parameter in parameters)
    if required or not (offered or _returned_class(function) is not None):
        what = f"needs an argument '{required[0]}'" if required else "does not return an encoder"
        raise UsageError(
            f"model '{target}' is a function that {what}",
            remedy=f"It must accept arguments among {', '.join(_OPTIONS)} and return an encoder.",
        )


def _returned_class(target: Any) -> Any:
    """Return the class in a function's return annotation. None if there is none."""
    if not _is_function(target):
        return target
    try:
        made = get_type_hints(target).get("return")
    except Exception:  # an annotation may name something that is not imported
        return None
    return made if hasattr(made, "encode_images") else None


def _require_accepted(spec: ModelSpec, options: LoadOptions, names: frozenset[str]) -> None:
    """Raise if an option that changes vectors would be ignored."""
    plain = LoadOptions()
    for name in _VECTOR_OPTIONS:
        if getattr(options, name) != getattr(plain, name) and name not in names:
            raise UsageError(
                f"{spec.id} does not accept --{name}",
                remedy=f"Give its constructor an argument named {name}, or leave the option out.",
            )


class InstanceEncoder(PluginEncoder):
    """An object of the user as an `Encoder`.

    Objects of one class may differ by what they were made with. Unless the object has a
    `fingerprint`, a hash of its vectors for a test image and a test text is part of its identity.
    """

    def __init__(self, spec: ModelSpec, instance: Any) -> None:
        super().__init__(spec, instance, {})
        self.instance = instance
        self._probe = None if hasattr(instance, "fingerprint") else self._hash_vectors()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Identity of the vectors, ready for JSON."""
        probe = getattr(self, "_probe", None)
        return super().fingerprint | ({} if probe is None else {"probe": probe})

    def _hash_vectors(self) -> str:
        ramp = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
        vectors = [self.encode_images([Image.fromarray(ramp).convert("RGB")])]
        if "text" in self.modalities:
            vectors.append(self.encode_texts(["a crater"]))
        rounded = np.round(np.concatenate(vectors), 3) + 0.0  # -0 becomes 0
        return hashlib.sha256(rounded.tobytes()).hexdigest()
