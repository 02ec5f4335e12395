"""Real data kept outside the repository; tests that need it skip themselves where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["shared_file"]

_ROOT = Path(
    os.environ.get("MARSRETRIEVAL_SHARED") or Path(__file__).resolve().parents[2] / "shared"
)


def shared_file(name: str) -> Path:
    """A file or folder of the shared data; skips the calling test where it is not there."""
    path = _ROOT / name
    if not path.exists():
        pytest.skip(f"no {name} in {_ROOT} (set MARSRETRIEVAL_SHARED)")
    return path
