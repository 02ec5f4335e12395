"""Fixtures of the download tests: web server, hub and short time limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from marsretrieval.datasets.download import LinkSettings
from tests.datasets.download.servers import Hub, Web, serve


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def base(web: Web) -> Iterator[str]:
    with serve(web) as address:
        yield address


@pytest.fixture
def settings(base: str) -> LinkSettings:
    return LinkSettings(
        workers=4,
        # Never reached on a busy machine; the tests of these limits set their own.
        timeout_s=30,
        total_s=60,
        max_bytes=100_000,
        backoff_s=0.01,
        wayback_web=f"{base}/web",
        allowed_addresses=frozenset({"127.0.0.1"}),
    )


@pytest.fixture
def publish(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Hub], Hub]]:
    """Put a repository on a local hub; the cache of the hub library is an empty folder."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub-cache")))
    with ExitStack() as stack:

        def put(hub: Hub) -> Hub:
            monkeypatch.setenv("HF_ENDPOINT", stack.enter_context(serve(hub)))
            return hub

        yield put
