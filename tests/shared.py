"""Access to real data outside the repository; tests are skipped if it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["shared_file"]

_ROOT = Path(
    os.environ.get("MARSRETRIEVAL_SHARED") or Path(__file__).resolve().parents[2] / "shared"
)


def shared_file(name: str) -> Path:
    """Return the path of a shared file or folder; skip the calling test if it is missing.

    Args:
        name: Path relative to the folder of shared data.

    Returns:
        The path.
    """
    path = _ROOT / name
    if not path.exists():
        pytest.skip(f"no {name} in {_ROOT} (set MARSRETRIEVAL_SHARED)")
    return path
