from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval.datasets.listing import free_bytes, only_alike, only_one, readable_bytes
from marsretrieval.errors import UsageError


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (758_000_000, "758 MB"), (3.2e9, "3.2 GB"),
     (188.7e9, "188.7 GB"), (6_228e9, "6.2 TB")],
)  # fmt: skip
def test_readable_sizes(count: float, text: str) -> None:
    assert readable_bytes(int(count)) == text


def test_free_space_is_of_the_disk_of_the_folder(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/yet/there") > 0


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with only_one(tmp_path, "go elsewhere"):
        refused = pytest.raises(UsageError, match="Wait for it, or go elsewhere")
        with refused, only_one(tmp_path, "go elsewhere"):
            pass
    with only_one(tmp_path, "go elsewhere"):
        pass


def test_file_system_without_locks_is_supported(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuse(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_one(tmp_path, "go elsewhere"):
        pass


def test_runs_with_different_settings_are_kept_separate(tmp_path: Path) -> None:
    with (
        only_alike(tmp_path, "a", "choose"),
        only_alike(tmp_path, "a", "choose"),
        pytest.raises(UsageError, match="another run with other options"),
        only_alike(tmp_path, "b", "choose"),
    ):
        pass
    (tmp_path / ".writing-a.lock").touch()  # of a process that was killed
    with only_alike(tmp_path, "b", "choose"):
        assert [path.name for path in tmp_path.iterdir()] == [".writing-b.lock"]
    assert not list(tmp_path.iterdir())
