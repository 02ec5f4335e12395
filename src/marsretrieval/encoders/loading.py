"""Models by name, class or instance: what every public function that takes a model accepts."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from marsretrieval.encoders.base import (
    OBJECT_LOADER,
    Encoder,
    LoadOptions,
    Modality,
    ModelSpec,
    PromptPreset,
)
from marsretrieval.encoders.registry import all_specs, find, hold, load, origin_of
from marsretrieval.encoders.torch_imports import check_device
from marsretrieval.errors import (
    UsageError,
    as_optional,
    as_path,
    describe_exception,
)
from marsretrieval.text import suggest_path

# A name as of `marsretrieval models`, "module:Class", a class, or an object with `encode_images`.
ModelLike = str | type | Any


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model before or after it is loaded.

    Attributes:
        spec: Its entry in the registry, or one made for a class or an object.
        options: How it is loaded.
        encoder: The loaded encoder; None: not loaded yet.
    """

    spec: ModelSpec
    options: LoadOptions
    encoder: Encoder | None = None

    def load(self) -> Encoder:
        """Return the encoder, loading it if necessary.

        Raises:
            ModelLoadError: If it cannot be loaded.
        """
        return self.encoder if self.encoder is not None else load(self.spec, self.options)


def list_models(pattern: str = "*") -> list[str]:
    """List the models of the registry.

    Args:
        pattern: Shell pattern of ids or names, or of their part after a hyphen: ``"siglip*"``
            lists ``vit-l-16-siglip-384``; upper and lower case are the same.

    Returns:
        Ids, built-in models first.

    Raises:
        UsageError: If the pattern is not a text.
    """
    if not isinstance(pattern, str):
        raise UsageError(
            f"{pattern!r} is not a pattern of model names",
            remedy='Give a text such as "siglip*", or nothing for all models.',
        )
    patterns = (pattern.lower(), f"*-{pattern.lower()}")
    return [
        spec.id
        for spec in all_specs()
        if any(fnmatchcase(spec.id.lower(), option) for option in patterns)
        or any(fnmatchcase(spec.name.lower(), option) for option in patterns)
    ]


def load_model(
    model: ModelLike,
    *,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    prompts: PromptPreset = "paper",
    offline: bool = False,
    trust_remote_code: bool = False,
) -> Encoder:
    """Load a model.

    Args:
        model: Name of a model (`list_models`), ``"oc:ARCHITECTURE/PRETRAINED"`` (open_clip),
            ``"hf:REPOSITORY"`` (transformers), ``"timm:NAME"``, ``"st:NAME"``, ``"mteb:NAME"``,
            ``"module:Class"``, a class, or an object with `encode_images`.
        checkpoint: Local weights in place of the published ones.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        dtype: ``"auto"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        prompts: Prompts of the paper, or those that the model's authors recommend.
        offline: Use only local files.
        trust_remote_code: Allow code in the files of the model.

    Returns:
        The encoder.

    Raises:
        UnknownNameError: If no model has this name.
        UsageError: If the object is not an encoder.
        ModelLoadError: If it cannot be loaded.
    """
    options = LoadOptions(
        device=device,
        dtype=dtype,
        checkpoint=as_optional(as_path, checkpoint, "checkpoint"),
        prompts=prompts,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    return resolve_model(model, options).load()


def resolve_model(model: ModelLike, options: LoadOptions | None = None) -> ResolvedModel:
    """Find out what a model is without loading it.

    Args:
        model: As of `load_model`.
        options: How a model that is not loaded yet is loaded. A loaded one keeps its own options.

    Returns:
        Its spec, its options, and the encoder if it is loaded.

    Raises:
        UnknownNameError: If no model has this name.
        UsageError: If it is not a model, the checkpoint does not exist, or options are given for a
            loaded model.
    """
    chosen = options or LoadOptions()
    if chosen.checkpoint is not None and not chosen.checkpoint.exists():
        raise UsageError(
            f"checkpoint {chosen.checkpoint}: no such file or folder",
            remedy=suggest_path(chosen.checkpoint),
        )
    check_device(chosen.device)
    instance: Any = model
    if isinstance(model, str):
        return ResolvedModel(find(model), chosen)
    if inspect.isclass(model) and "<locals>" not in model.__qualname__:
        return ResolvedModel(find(f"{model.__module__}:{model.__qualname__}"), chosen)
    if options not in (None, LoadOptions()):
        name = getattr(model, "__qualname__", type(model).__name__)
        raise UsageError(
            f"options are given for {name}, which is not loaded by marsretrieval",
            remedy="Give them to its constructor, or to load_model.",
        )
    origin = None if inspect.isclass(model) else origin_of(model)
    if origin is not None:
        return ResolvedModel(*origin, instance)
    return _resolve_object(model, chosen)


@contextmanager
def reuse(models: list[ResolvedModel]) -> Iterator[None]:
    """Let `registry.load` return the encoders that are loaded, while the context is open."""
    with hold({(m.spec.id, m.options): m.encoder for m in models if m.encoder is not None}):
        yield


def refuse_to_load(spec: ModelSpec, options: LoadOptions) -> Encoder:
    """Raise an error: an object of the user cannot be loaded, only passed.

    Args:
        spec: Spec that `resolve_model` made for the object.
        options: Ignored.

    Raises:
        UsageError: Always.
    """
    raise UsageError(f"{spec.id} is an object in Python", remedy="Pass the object itself.")


def _resolve_object(model: Any, options: LoadOptions) -> ResolvedModel:
    from marsretrieval.encoders.custom import InstanceEncoder, modalities_of
    from marsretrieval.encoders.identity import source_sha256

    if inspect.isclass(model):
        try:
            model = model()
        except Exception as error:  # a user's constructor may raise anything
            raise UsageError(
                f"{model.__qualname__} cannot be made without arguments "
                f"({describe_exception(error)})",
                remedy="Pass an object of the class.",
            ) from error
    if not hasattr(model, "encode_images"):
        raise UsageError(
            f"{type(model).__name__} is not a model",
            remedy="Pass a name, a class, or an object with encode_images(images) -> (n, d).",
        )
    kind = type(model)
    target = f"{kind.__module__}:{kind.__name__}"
    encoder: Encoder
    if isinstance(model, Encoder):
        encoder, name = model, model.id
    else:
        name = f"{target}-object"
        encoder = InstanceEncoder(_spec(name, target, name, modalities_of(model)), model)
    identity = {**encoder.fingerprint, "source": source_sha256(kind)}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=repr).encode()).hexdigest()
    spec = _spec(name, target, f"{name}@{digest[:16]}", encoder.modalities)
    return ResolvedModel(spec, options, encoder)


def _spec(name: str, target: str, repository: str, modalities: frozenset[Modality]) -> ModelSpec:
    return ModelSpec.unregistered(
        name,
        name=name,
        family="object",
        loader=OBJECT_LOADER,
        repository=repository,
        modalities=modalities,
        settings={"target": target},
    )
