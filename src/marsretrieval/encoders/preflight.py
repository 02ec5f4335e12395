"""Check a model without its weights or torch, and report the errors that loading would raise."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from marsretrieval.errors import MarsRetrievalError, MissingDependencyError, ModelLoadError

if TYPE_CHECKING:
    from marsretrieval.encoders.base import LoadOptions, ModelSpec

_PACKAGE = __name__.rpartition(".")[0]
# For each loader module, the extra to install and its libraries (module, package).
_NEEDS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    f"{_PACKAGE}.open_clip": ("models", (("torch", "torch"), ("open_clip", "open_clip"))),
    f"{_PACKAGE}.two_tower": ("models", (("torch", "torch"), ("transformers", "transformers"))),
    f"{_PACKAGE}.vision_only": ("models", (("torch", "torch"), ("transformers", "transformers"))),
    f"{_PACKAGE}.multimodal_lm": (
        "models",
        (("torch", "torch"), ("transformers", "transformers")),
    ),
    f"{_PACKAGE}.sentence_transformers": (
        "st",
        (("torch", "torch"), ("sentence_transformers", "sentence-transformers")),
    ),
    f"{_PACKAGE}.mteb": ("mteb", (("torch", "torch"), ("mteb", "mteb"))),
}
_FOLDERS = {f"{_PACKAGE}.{name}" for name in ("two_tower", "vision_only", "multimodal_lm")}


def find_load_error(spec: ModelSpec, options: LoadOptions) -> MarsRetrievalError | None:
    """Find out, without loading a model, whether loading it would fail.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The error that loading would raise: a missing library, a checkpoint that is missing or of
        the wrong kind, an option that a class does not accept. None if no error is expected.
    """
    try:
        _check(spec, options)
    except MarsRetrievalError as error:
        return error
    return None


def _check(spec: ModelSpec, options: LoadOptions) -> None:
    module = spec.loader.partition(":")[0]
    extra, libraries = _NEEDS.get(module, ("", ()))
    for name, package in libraries:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(package, extra, needed_for=f"loading {spec.id}")
    if spec.family == "plugin" and "target" in spec.settings:
        from marsretrieval.encoders.custom import require_options

        require_options(spec, options)
    checkpoint = options.checkpoint
    if checkpoint is not None and not checkpoint.exists():
        raise ModelLoadError(
            f"{spec.id}: {checkpoint}: no such file or folder",
            remedy="Give an existing --checkpoint.",
        )
    if module == f"{_PACKAGE}.open_clip" and checkpoint is not None:
        from marsretrieval.encoders.open_clip import find_source

        find_source(spec, options)
    elif module in _FOLDERS and checkpoint is not None:
        _check_folder(spec, options)
    elif module == f"{_PACKAGE}.sentence_transformers":
        _check_sentence_transformers(spec, options)


def _check_folder(spec: ModelSpec, options: LoadOptions) -> None:
    folder = options.checkpoint
    assert folder is not None
    remedy = "Give the folder that save_pretrained wrote (config.json, *.safetensors)."
    if not folder.is_dir():
        raise ModelLoadError(f"{spec.id}: {folder} is not a folder", remedy=remedy)
    names = ("config.json", "adapter_config.json")
    if not any((folder / name).is_file() for name in names):
        raise ModelLoadError(f"{spec.id}: {folder} has no {' or '.join(names)}", remedy=remedy)
    if not any(file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind)):
        raise ModelLoadError(f"{spec.id}: {folder} has no weights (*.safetensors)", remedy=remedy)


def _check_sentence_transformers(spec: ModelSpec, options: LoadOptions) -> None:
    remedy = "Give a folder that sentence-transformers wrote, or a repository as NAMESPACE/NAME."
    if options.checkpoint is not None and not options.checkpoint.is_dir():
        raise ModelLoadError(f"{spec.id}: {options.checkpoint} is not a folder", remedy=remedy)
    name = spec.repository
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if options.checkpoint is None and looks_local:
        from pathlib import Path

        if not Path(name).is_dir():
            raise ModelLoadError(f"{spec.id}: {name}: no such folder", remedy=remedy)
