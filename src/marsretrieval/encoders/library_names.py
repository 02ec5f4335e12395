"""Names that select a model of a library: ``oc:`` (open_clip), ``hf:`` (hub), ``timm:``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from marsretrieval.encoders.base import LIBRARIES, Modality, ModelSpec
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import (
    MarsRetrievalError,
    MissingDependencyError,
    UnknownNameError,
    UsageError,
)
from marsretrieval.io import read_json

_PACKAGE = __name__.rpartition(".")[0]
_IMAGE: frozenset[Modality] = frozenset({"image"})
_BOTH: frozenset[Modality] = frozenset({"image", "text"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_NUMBER = re.compile(r"\d+")
_ACTIVATIONS = ("quickgelu", "gelu")
_PIXEL_KEYS = ("mean", "std", "interpolation", "resize_mode")
_SUGGESTIONS = 3

# Types of transformers with one class for each, by `model_type` of a config.json.
TWO_TOWERS: Mapping[str, str] = {
    "altclip": "AltCLIPModel",
    "aimv2": "Aimv2Model",
    "chinese_clip": "ChineseCLIPModel",
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
    "tipsv2": "Tipsv2Model",
}
# Image encoders and what is their vector: the class token, the mean patch, or the model's pooler.
VISION_ONLY: Mapping[str, tuple[str, str]] = {
    "aimv2_vision_model": ("Aimv2VisionModel", "mean"),
    "clip_vision_model": ("CLIPVisionModel", "pooler"),
    "convnext": ("ConvNextModel", "pooler"),
    "convnextv2": ("ConvNextV2Model", "pooler"),
    "dinov2": ("Dinov2Model", "cls"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "cls"),
    "dinov3_convnext": ("DINOv3ConvNextModel", "pooler"),
    "dinov3_vit": ("DINOv3ViTModel", "cls"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler"),
    "swin": ("SwinModel", "pooler"),
    "swinv2": ("Swinv2Model", "pooler"),
    "vit": ("ViTModel", "cls"),
}


def spec_from_library(library: str, name: str) -> ModelSpec:
    """Create the spec of a model of a library.

    Args:
        library: One of `LIBRARIES`.
        name: Name of the model after the prefix.

    Returns:
        The spec. Its id is the name as the library writes it.

    Raises:
        UnknownNameError: If the library has no such model. Suggests similar names.
        UsageError: If the name contradicts itself.
        MissingDependencyError: If the library is not installed.
    """
    if library == "oc":
        return _open_clip(name)
    return _timm(name) if library == "timm" else _hub(name)


def names_like(name: str, registered: Sequence[str]) -> list[str]:
    """Find similar names in the registry, else also in open_clip and in timm.

    The libraries, whose import takes seconds, are not consulted if a registered name holds the name
    or differs from it in a few letters. Repositories of the hub cannot be listed: a name that could
    be one is suggested as such, unless a registered model or one of open_clip or timm has it.

    Args:
        name: The unknown name.
        registered: Names of the registry.

    Returns:
        The most similar names. Empty if none is similar.
    """
    if any(_plain(name) in _plain(option) for option in registered):
        return _similar(name, registered)
    if misspelled := _misspelled(name, registered):
        return misspelled
    names: list[str] = list(registered)
    for library in ("oc", "timm"):
        try:
            names += list_names(library)
        except (ImportError, RuntimeError, MarsRetrievalError):  # not installed, or broken
            continue
    similar = _similar(name, names)
    if _REPOSITORY.fullmatch(name) and not any(_plain(name) in _plain(near) for near in similar):
        return [f"hf:{name}", *similar[: _SUGGESTIONS - 1]]
    return similar


def list_names(library: str) -> list[str]:
    """List the names of a library's models.

    Args:
        library: ``oc`` or ``timm``. Repositories of the hub (``hf``) cannot be listed.

    Returns:
        The names, with their prefix: with published weights first, then architectures alone.

    Raises:
        MissingDependencyError: If the library is not installed.
        UsageError: If the library's models cannot be listed.
    """
    if library == "oc":
        open_clip = _import("open_clip")
        pairs = [f"oc:{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
        return pairs + [f"oc:{architecture}" for architecture in open_clip.list_models()]
    if library == "timm":
        timm = _import("timm")
        return [f"timm:{name}" for name in (*timm.list_pretrained(), *timm.list_models())]
    raise UsageError(
        f"the models of {library}: cannot be listed",
        remedy="Find the repository at https://huggingface.co/models, and give hf:NAMESPACE/NAME.",
    )


def split_revision(name: str) -> tuple[str, str | None]:
    """Split ``REPOSITORY@REVISION``.

    Args:
        name: Name of a repository or folder.

    Returns:
        The repository, and the revision if one is given.

    Raises:
        UsageError: If the revision is empty, or given for a folder.
    """
    if "@" not in name or Path(name).is_dir():
        return name, None
    repository, _, revision = name.rpartition("@")
    if not repository or not revision:
        raise UsageError(f"model 'hf:{name}' has no revision after @", remedy="Leave the @ out.")
    if Path(repository).is_dir():
        raise UsageError(
            f"model 'hf:{name}': {repository} is a folder, which has no revisions",
            remedy="Give the folder alone.",
        )
    return repository, revision


def modalities_of_config(config: Mapping[str, Any]) -> frozenset[Modality]:
    """Tell from a model's configuration what it embeds.

    Args:
        config: Content of its config.json.

    Returns:
        Images alone for a vision model, else images and texts.
    """
    is_timm = "model_type" not in config and "architecture" in config
    return _IMAGE if is_timm or config.get("model_type") in VISION_ONLY else _BOTH


def _open_clip(name: str) -> ModelSpec:
    """Create the spec of ``oc:ARCHITECTURE[/PRETRAINED]``.

    OpenAI's ViT and their fine-tunes use QuickGELU, most others GELU, and weights of one load into
    the other without an error. The published weights state it; the name of an architecture may.
    """
    open_clip = _import("open_clip")
    model, slash, tag = name.partition("/")
    architectures = {_plain(listed): listed for listed in open_clip.list_models()}
    architecture = architectures.get(_plain(model))
    stated: str | None = None
    if architecture is None:
        for suffix in _ACTIVATIONS:
            base = architectures.get(_plain(model).removesuffix(suffix))
            if _plain(model).endswith(suffix) and base and _has_activation(open_clip, base):
                architecture, stated = base, suffix
                break
    if architecture is None or (slash and not tag):
        raise UnknownNameError(
            "model of open_clip",
            f"oc:{name}",
            list_names("oc"),
            similar=_similar(f"oc:{name}", list_names("oc")),
            remedy="All: marsretrieval models oc:",
        )
    config: Mapping[str, Any] = open_clip.get_model_config(architecture)
    if architecture.endswith("-quickgelu"):
        stated = "quickgelu"
    elif stated == "gelu" and config.get("quick_gelu"):
        raise UsageError(f"model 'oc:{name}': {architecture} of open_clip has QuickGELU, not GELU")
    settings: dict[str, Any] = {"architecture": architecture}
    is_stated = stated is None or architecture.endswith(stated)
    label = architecture if is_stated else f"{architecture}-{stated}"
    activation: str | None
    if tag:
        known_tags = _tags(open_clip, architecture)
        match = {_plain(published): published for published in known_tags}.get(_plain(tag))
        if match is None:
            names = [f"oc:{label}/{published}" for published in known_tags]
            near = _similar(f"oc:{label}/{tag}", names)
            raise UnknownNameError("weights of open_clip", f"oc:{name}", names, similar=near)
        weights = known_tags[match]
        activation = _trained_with(open_clip, architecture, weights)
        if stated not in (None, activation):
            raise UsageError(
                f"model 'oc:{name}': the weights '{match}' were trained with {activation}, not "
                f"{stated}",
                remedy=f"Use oc:{_base(architecture)}/{match}",
            )
        settings["pretrained"] = weights.get("hf_hub", "")
        settings["preprocess"] = _pixels(weights)
        label, repository = f"{label}/{match}", settings["pretrained"].rpartition("/")[0]
    else:
        activation = stated or _activation(open_clip, architecture, False)
        settings["tags"] = sorted(_tags(open_clip, architecture))
        settings["open_activation"] = stated is None and _is_open(open_clip, architecture)
        settings["preprocess"] = _usual_pixels(open_clip, architecture)
        repository = ""
    if activation is not None:
        settings |= {"activation": activation, "quick_gelu": activation == "quickgelu"}
    return ModelSpec.unregistered(
        f"oc:{label}",
        name=label,
        family="open_clip",
        loader=f"{_PACKAGE}.open_clip:load",
        repository=repository or f"open_clip, {architecture}",
        context_length=config.get("text_cfg", {}).get("context_length", 77),
        settings=settings,
    )


def _hub(name: str) -> ModelSpec:
    """Create the spec of ``hf:REPOSITORY[@REVISION]`` or ``hf:FOLDER``."""
    repository, revision = split_revision(name)
    folder = Path(repository).expanduser()
    if not folder.is_dir() and not _REPOSITORY.fullmatch(repository):
        local = repository.startswith((".", "/", "~")) or repository.count("/") > 1
        raise UsageError(
            f"model 'hf:{name}': "
            + ("no such folder" if local else "not a repository of the Hugging Face hub"),
            remedy="Give hf:NAMESPACE/NAME, hf:NAMESPACE/NAME@REVISION or hf:FOLDER.",
        )
    pinned = revision if revision is not None and _COMMIT.fullmatch(revision) else None
    settings = {} if revision is None or pinned else {"revision": revision}
    config = _local_config(folder if folder.is_dir() else None, repository, revision)
    return ModelSpec.unregistered(
        f"hf:{name}",
        name=name,
        family="transformers",
        loader=f"{_PACKAGE}.hub_model:load",
        repository=str(folder) if folder.is_dir() else repository,
        revision=pinned,
        modalities=modalities_of_config(config),
        settings=settings,
    )


def _timm(name: str) -> ModelSpec:
    """Create the spec of ``timm:NAME``, with or without a tag of weights."""
    timm = _import("timm")
    architectures, lowered = timm.list_models(), name.lower()
    if lowered not in architectures and lowered not in timm.list_pretrained():
        raise UnknownNameError(
            "model of timm",
            f"timm:{name}",
            list_names("timm"),
            similar=_similar(f"timm:{name}", list_names("timm")),
            remedy="All: marsretrieval models timm:",
        )
    config = timm.get_pretrained_cfg(lowered)
    hub = config.hf_hub_id if config is not None else None
    return ModelSpec.unregistered(
        f"timm:{lowered}",
        name=lowered,
        family="timm",
        loader=f"{_PACKAGE}.timm:load",
        repository=hub or f"timm, {lowered}",
        modalities=_IMAGE,
        settings={"architecture": lowered, "published": bool(hub)},
    )


def _import(name: str) -> Any:
    ensure_torchvision()
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(name, "models", needed_for="models of that library") from error


def _tags(open_clip: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """Return the published weights that fit an architecture: also those of its other activation."""
    base = _base(architecture)
    return {
        tag: open_clip.get_pretrained_cfg(variant, tag)
        for variant in (f"{base}-quickgelu", base)
        for tag in open_clip.list_pretrained_tags_by_model(variant)
    }


def _base(architecture: str) -> str:
    return architecture.removesuffix("-quickgelu")


def _has_activation(open_clip: Any, architecture: str) -> bool:
    """Whether a model has open_clip's own image tower, whose activation is an option."""
    return "timm_model_name" not in open_clip.get_model_config(architecture)["vision_cfg"]


def _activation(open_clip: Any, architecture: str, published: bool) -> str | None:
    if not _has_activation(open_clip, architecture):
        return None
    quick = published or open_clip.get_model_config(architecture).get("quick_gelu", False)
    return "quickgelu" if quick else "gelu"


def _trained_with(open_clip: Any, architecture: str, weights: Mapping[str, Any]) -> str | None:
    """Return the activation of published weights, which open_clip marks; a config may fix it."""
    base = _base(architecture)
    listed = base if base in open_clip.list_models() else architecture
    return _activation(open_clip, listed, weights.get("quick_gelu", False))


def _is_open(open_clip: Any, architecture: str) -> bool:
    """Whether open_clip has weights or configurations of an architecture with both activations."""
    kinds = {
        _trained_with(open_clip, architecture, weights)
        for weights in _tags(open_clip, architecture).values()
    }
    return f"{architecture}-quickgelu" in open_clip.list_models() or len(kinds) > 1


def _pixels(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in weights.items()
        if key in _PIXEL_KEYS and value is not None
    }


def _usual_pixels(open_clip: Any, architecture: str) -> dict[str, Any]:
    """Return the preprocessing that all published weights of an architecture share, if they do."""
    kinds = [_pixels(weights) for weights in _tags(open_clip, architecture).values()]
    return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else {}


def _local_config(folder: Path | None, repository: str, revision: str | None) -> dict[str, Any]:
    """Read a model's config.json, if it is on this machine. Nothing is downloaded."""
    path = None if folder is None else folder / "config.json"
    if folder is None:
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return {}
        cached = try_to_load_from_cache(repository, "config.json", revision=revision)
        path = Path(cached) if isinstance(cached, str) else None
    if path is None or not path.is_file():
        return {}
    try:
        config = read_json(path)
    except MarsRetrievalError:  # loading reports it
        return {}
    return config if isinstance(config, dict) else {}


def _similar(name: str, names: Iterable[str]) -> list[str]:
    """Return the most similar names: those that hold the name, shortest first, else the nearest.

    Those that hold it with its punctuation come first: siglip2 is also in SigLIP-256.
    """
    options = _by_plain_name(tuple(names))
    plain = _plain(name)
    library, _, rest = name.lower().partition(":")
    written = rest if library in LIBRARIES else name.lower()
    held = [key for key in options if plain in key]
    held.sort(key=lambda key: (written not in options[key].lower(), len(key), key))
    near = held or difflib.get_close_matches(plain, options, cutoff=0.65)
    return [options[key] for key in near[:_SUGGESTIONS]]


def _misspelled(name: str, registered: Iterable[str]) -> list[str]:
    """Return the registered names that differ from a name in a few letters.

    A name with other numbers is another model. One with a slash is of a repository or open_clip.
    """
    if "/" in name:
        return []
    numbers = _NUMBER.findall(name)
    options = {
        _plain(option): option for option in registered if _NUMBER.findall(option) == numbers
    }
    near = difflib.get_close_matches(_plain(name), options, n=_SUGGESTIONS, cutoff=0.8)
    return [options[key] for key in near]


@cache
def _by_plain_name(names: tuple[str, ...]) -> dict[str, str]:
    return {_plain(name): name for name in reversed(names)}  # the first of equal names is kept


def _plain(name: str) -> str:
    """Return a name without its library, in lower case, letters and digits only."""
    library, _, rest = name.lower().partition(":")
    return re.sub(r"[^a-z0-9+]", "", rest if library in LIBRARIES else name.lower())
