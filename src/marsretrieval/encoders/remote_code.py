"""Prevent code execution from checkpoints, unless the user trusts them.

Configuration files of transformers, open_clip and sentence-transformers can name Python classes
to import. Only `--trust-remote-code` enables that here, never a file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from marsretrieval.errors import ModelLoadError

TRUST = "Pass --trust-remote-code to run it, if you trust its author."
_SWITCHES = ("trust_remote_code", "allow_all_kernels")
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # read by torch.load
_SAFE_SENTENCE_TRANSFORMERS = 6  # older versions import any class that modules.json names


class RemoteCodeError(ModelLoadError):
    """A checkpoint would run code, and the user has not allowed it."""

    def __init__(self, message: str) -> None:
        """Create the error, with --trust-remote-code as its remedy.

        Args:
            message: What would run code.
        """
        super().__init__(message, remedy=TRUST)


@contextlib.contextmanager
def no_remote_code() -> Iterator[None]:
    """Refuse code of repositories and folders inside the block, whatever a file or a loader sets.

    Covers transformers' dynamic modules and hub kernels, torch.hub, and pickled objects in
    checkpoints. Disables prompts on the terminal.

    Raises:
        RemoteCodeError: If code of a checkpoint would run inside the block.
    """
    import torch

    def refuse(*arguments: Any, **options: Any) -> Any:
        names = [str(value) for value in (*arguments, *options.values()) if value]
        raise RemoteCodeError(f"code of a checkpoint would be run ({': '.join(names[:2])})")

    with contextlib.ExitStack() as stack:
        stack.enter_context(set_attribute(torch.hub, "load", refuse))
        stack.enter_context(_weights_only())
        with contextlib.suppress(ImportError):
            from transformers import dynamic_module_utils

            for name in ("get_cached_module_file", "get_class_in_module", "create_dynamic_module"):
                stack.enter_context(set_attribute(dynamic_module_utils, name, refuse))
            # With a time limit above 0 the library prompts on the terminal to run the code.
            stack.enter_context(set_attribute(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 0))
        with contextlib.suppress(ImportError):
            from transformers.integrations import hub_kernels

            stack.enter_context(set_attribute(hub_kernels, "get_kernel", refuse))
        yield


def refuse_switches(config: Any, path: Path) -> None:
    """Raise if a configuration enables the execution of code, at any depth.

    Args:
        config: Parsed JSON of the file.
        path: The file, for the message.

    Raises:
        RemoteCodeError: If a key such as `trust_remote_code` is set.
    """
    values: Sequence[Any]
    if isinstance(config, Mapping):
        for key in _SWITCHES:
            if config.get(key):
                raise RemoteCodeError(f"{path}: sets {key}, which would run code of the checkpoint")
        values = list(config.values())
    else:
        values = config if isinstance(config, list) else []
    for value in values:
        refuse_switches(value, path)


def asks_for_trust(error: BaseException) -> bool:
    """Check whether an error of a library is a refusal to run code.

    Args:
        error: Error of transformers or sentence-transformers.

    Returns:
        Whether `trust_remote_code` would avoid it.
    """
    return isinstance(error, RemoteCodeError) or "trust_remote_code" in str(error)


def require_safe_sentence_transformers(model: str) -> None:
    """Raise if the installed sentence-transformers imports any class that a file names.

    Args:
        model: Id of the model, for the message.

    Raises:
        ModelLoadError: If it is older than version 6.
    """
    try:
        installed = version("sentence-transformers")
    except PackageNotFoundError:
        return
    if int(installed.split(".")[0]) < _SAFE_SENTENCE_TRANSFORMERS:
        raise ModelLoadError(
            f"{model}: sentence-transformers {installed} runs code that modules.json names",
            remedy="pip install 'sentence-transformers>=6', or pass --trust-remote-code if you "
            "trust the model.",
        )


@contextlib.contextmanager
def set_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a library inside the block.

    Args:
        owner: Module or object.
        name: Name of the attribute.
        value: Value inside the block.
    """
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before
