"""Settings and fixtures for all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.datasets.synthetic import write_planet

# Tiny models are not faster with more threads, and two workers would compete for the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

# Slowest files, which run first so that no worker is still busy with one at the end.
LONG = (
    "test_browser.py",
    "test_docs_commands.py",
    "test_docs.py",
    "test_scripts.py",
    "test_notebook.py",
    "test_marks.py",
    "test_site.py",
    "test_mteb.py",
    "test_transformers_families.py",
    "test_examples.py",
    "test_own_models.py",
    "test_training.py",
    "test_ray.py",
    "test_embed_search.py",
    "test_exports.py",
    "test_torchvision.py",
    "test_write.py",
)

# Deterministic examples, and no time limit per example, since the machine may be busy.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def tiny_planet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the tiny synthetic planet of seed 0 once for all workers; tests must not change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # parent of the workers' folders
    with (folder / "planet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_planet(folder / "planet", size="tiny")
    return folder / "planet"


@pytest.fixture(scope="session")
def tile_store(tiny_planet: Path) -> Path:
    """Embed the tiles of the tiny planet once for all workers; tests must not change the store."""
    from marsretrieval.datasets import open_images
    from marsretrieval.embeddings import build_store
    from marsretrieval.encoders import LoadOptions, load

    path = tiny_planet.parent / "planet.store"
    with (tiny_planet.parent / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            tiles = tiny_planet / "Mars-Global-Geolocalization" / "tiles"
            build_store(load("mars-nano", LoadOptions(device="cpu")), open_images(tiles), path)
    return path


@pytest.fixture
def marsretrieval() -> Callable[..., Result]:
    """Run the command line in this process and check its exit code."""

    def run(*arguments: object, code: int = 0) -> Result:
        done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start chromium; the test is skipped if it or playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()
