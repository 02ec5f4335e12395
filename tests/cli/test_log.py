"""Tests that commands print the warnings of the library as lines on stderr."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from typer.testing import Result

from marsretrieval.encoders import registry
from marsretrieval.errors import UsageError


def test_a_logged_warning_is_one_line_on_stderr(
    marsretrieval: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("marsretrieval.encoders.registry")

    def find(name: str) -> None:
        for _ in range(2):
            log.warning("plugin '%s': strange", name)
        log.info("not shown")
        raise UsageError("no such model")

    monkeypatch.setattr(registry, "find", find)
    done = marsretrieval("run", "-m", "x", "-t", "landform", code=2)
    assert done.stderr.count("warning: plugin 'x': strange\n") == 1
    assert "not shown" not in done.stderr and "not shown" not in done.stdout
    handlers = logging.getLogger("marsretrieval").handlers
    assert not handlers or all(type(handler).__name__ != "_Lines" for handler in handlers)
