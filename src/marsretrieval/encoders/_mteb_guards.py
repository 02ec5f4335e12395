"""What holds while a loader of MTEB runs: no random weights unseen, no network when offline."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator

from marsretrieval.encoders._remote_code import set_attribute


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

    return set_attribute(constants, "HF_HUB_OFFLINE", wanted or constants.HF_HUB_OFFLINE)


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
