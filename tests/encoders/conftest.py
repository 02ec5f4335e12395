from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes a tiny transformers checkpoint per architecture once."""
    from tests.encoders.tiny_transformers import save_tiny

    @cache
    def folder(name: str) -> Path:
        path = tmp_path_factory.mktemp("tiny") / name
        save_tiny(name, path)
        return path

    return folder
