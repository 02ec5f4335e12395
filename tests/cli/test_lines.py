"""Progress output without a terminal."""

from __future__ import annotations

import pytest

from marsretrieval.cli import console
from marsretrieval.cli.console import PlainProgress, show_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_one_progress_line_per_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress() as progress, progress.start("cut", 1_440_000, "tiles") as bar:
        assert isinstance(progress, PlainProgress)  # no terminal under test
        for _ in range(30):
            clock[0] += 5
            bar.note("E-004_N-04")
            bar.advance(400)
    assert capsys.readouterr().err.splitlines() == [
        "cut: 4,800 of 1,440,000 tiles (80.0/s) E-004_N-04",
        "cut: 9,600 of 1,440,000 tiles (80.0/s) E-004_N-04",
    ]


def test_short_work_and_quiet_mode_print_no_progress(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress() as progress, progress.start("cut", None) as bar:
        clock[0] += 59
        bar.advance()
    with show_progress(quiet=True) as progress, progress.start("cut", None) as bar:
        clock[0] += 600
        bar.advance()
    assert capsys.readouterr().err == ""
