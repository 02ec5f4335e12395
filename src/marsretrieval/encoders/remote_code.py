"""Prevent code execution from checkpoints, unless the user trusts them.

Configuration files of transformers, open_clip and sentence-transformers can name Python classes
to import. Only `--trust-remote-code` enables that here, never a file.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from marsretrieval.encoders.torch_imports import Execute, hook_import
from marsretrieval.errors import ModelLoadError

TRUST = "Pass --trust-remote-code to run it, if you trust its author."
_SWITCHES = ("trust_remote_code", "allow_all_kernels")
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # read by torch.load
_SAFE_SENTENCE_TRANSFORMERS = 6  # older versions import any class that modules.json names
_NO_PROMPT = 0
_DYNAMIC_MODULES = "transformers.dynamic_module_utils"
_REFUSED = {  # functions that run code of a checkpoint, by module
    "torch.hub": ("load",),
    _DYNAMIC_MODULES: ("get_cached_module_file", "get_class_in_module", "create_dynamic_module"),
    "transformers.integrations.hub_kernels": ("get_kernel",),
}


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
    checkpoints. Disables prompts on the terminal. A library that is first imported inside the block
    is covered from its import. Blocks of several threads may overlap.

    Raises:
        RemoteCodeError: If code of a checkpoint would run inside the block.
    """
    _GUARD.enter()
    try:
        yield
    finally:
        _GUARD.leave()


class _Guard:
    """Replaced functions of the libraries, while at least one block of `no_remote_code` runs.

    A function is also replaced where another module has copied it with ``from ... import``.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks = 0
        self._replaced: list[tuple[str, Any, Any]] = []  # name, original, replacement
        self._weights_only: str | None = None

    def enter(self) -> None:
        for name in _REFUSED:
            hook_import(name, self._execute)
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._weights_only = os.environ.get(_WEIGHTS_ONLY)
                os.environ[_WEIGHTS_ONLY] = "1"
        try:
            # Another thread may be importing one of them: import_module waits for the end.
            self._replace(
                [importlib.import_module(name) for name in _REFUSED if sys.modules.get(name)]
            )
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks:
                return
            _substitute([(name, after, before) for name, before, after in self._replaced])
            self._replaced.clear()
            if self._weights_only is None:
                os.environ.pop(_WEIGHTS_ONLY, None)
            else:
                os.environ[_WEIGHTS_ONLY] = self._weights_only

    def _execute(self, module: ModuleType, execute: Execute) -> None:
        """Execute a module that is being imported, then guard it inside a block."""
        execute(module)
        self._replace([module])

    def _replace(self, modules: Iterable[ModuleType]) -> None:
        with self._lock:
            if not self._blocks:
                return
            ours = {id(after) for _, _, after in self._replaced}
            found = []
            for module in modules:
                values: dict[str, Any] = {name: _refusal() for name in _REFUSED[module.__name__]}
                if module.__name__ == _DYNAMIC_MODULES:
                    # With a time limit above 0 the library prompts on the terminal to run the code.
                    values["TIME_OUT_REMOTE_CODE"] = _NO_PROMPT
                found += [(name, getattr(module, name), after) for name, after in values.items()]
            new = [entry for entry in found if id(entry[1]) not in ours]
            self._replaced += new
            _substitute(new)


_GUARD = _Guard()


def _refusal() -> Callable[..., Any]:
    """Create a function that raises RemoteCodeError; every function of a library has its own."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        names = [str(value) for value in (*arguments, *options.values()) if value]
        raise RemoteCodeError(f"code of a checkpoint would be run ({': '.join(names[:2])})")

    return refuse


def _substitute(values: Sequence[tuple[str, Any, Any]]) -> None:
    """Replace values (name, before, after) in all modules that have them under their name."""
    changed = {name for name, _, _ in values}
    for module in list(sys.modules.values()):
        if issubclass(type(module), ModuleType):
            # isinstance() and vars() would execute a module of importlib's LazyLoader.
            names = object.__getattribute__(module, "__dict__")
            if names.keys().isdisjoint(changed):  # nearly all of thousands of modules
                continue
            for name, before, after in values:
                if names.get(name) is before:
                    names[name] = after


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
