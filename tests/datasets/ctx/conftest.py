"""Fixtures: two small quads to cut, and a folder for their tiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.ctx.quads import noise, write_quad
from tests.datasets.ctx.runs import OTHER, QUAD


@pytest.fixture
def quads(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for quad in (QUAD, OTHER):
        write_quad(folder, quad, noise(400, quad.west % 7))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
