"""Tests of the remaining-time text."""

from __future__ import annotations

import pytest

from marsretrieval.progress import time_left


@pytest.mark.parametrize(
    ("elapsed", "share", "text"),
    [
        (10, 0, ""),
        (10, 0.5, "0:10 left"),
        (60, 0.25, "3:00 left"),
        (3600, 0.1, "9:00:00 left"),
        (59.6, 0.5, "1:00 left"),
        (10, 1, "0:00 left"),
    ],
)
def test_time_left(elapsed: float, share: float, text: str) -> None:
    assert time_left(elapsed, share) == text
