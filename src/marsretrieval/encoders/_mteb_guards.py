"""What holds while a loader of MTEB runs: no code from a repository, no random weights unseen."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["RemoteCodeError", "missing_weights", "no_remote_code", "offline", "quiet"]


class RemoteCodeError(Exception):
    """A loader tried to fetch code to run."""


@contextlib.contextmanager
def no_remote_code() -> Iterator[None]:
    """Some loaders ask transformers or torch.hub to trust a repository's code, unasked. Here that
    raises RemoteCodeError."""
    from transformers import dynamic_module_utils as modules

    def refuse(repository: Any = "", *rest: Any, **more: Any) -> Any:
        raise RemoteCodeError(f"{repository}: {rest[0]}" if rest else str(repository))

    with _set(modules, "get_cached_module_file", refuse), _set(torch.hub, "load", refuse):
        yield


@contextlib.contextmanager
def missing_weights() -> Iterator[list[str]]:
    """Names of weights that transformers made up because the files have none: it tells of them in
    a log line only, and loaders of MTEB do not ask."""
    found: list[str] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.extend(re.findall(r"^(\S+) *\| *MISSING", record.getMessage(), re.MULTILINE))

    reader = Reader(logging.WARNING)
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.addHandler(reader)
    logger.setLevel(min(before, logging.WARNING))
    try:
        yield found
    finally:
        logger.removeHandler(reader)
        logger.setLevel(before)


def offline(wanted: bool) -> contextlib.AbstractContextManager[None]:
    """The hub is not asked, where that is `wanted` or was so before."""
    from huggingface_hub import constants

    return _set(constants, "HF_HUB_OFFLINE", wanted or constants.HF_HUB_OFFLINE)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MTEB's advice to authors of models and tasks is not for those who run them."""
    logger = logging.getLogger("mteb")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a library, for as long as the block lasts."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
