"""Fixtures: two small quads to cut, and a folder for their tiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.datasets.ctx.quads import noise, write_quad
from tests.datasets.ctx.runs import OTHER, QUAD


@pytest.fixture(scope="session")
def two_quads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two quads once; tests must not change them."""
    folder = tmp_path_factory.mktemp("quads")
    for quad in (QUAD, OTHER):
        write_quad(folder, quad, noise(400, quad.west % 7))
    return folder


@pytest.fixture
def quads(two_quads: Path, tmp_path: Path) -> Path:
    """Copy the two quads, for a test that may change them."""
    return Path(shutil.copytree(two_quads, tmp_path / "in"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
