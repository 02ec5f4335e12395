"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marsretrieval.errors import DataError, OutputError
from marsretrieval.files import atomic_path


def test_a_file_appears_whole_with_the_rights_of_others(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "new" / "file") as temporary:
        assert temporary.parent == tmp_path / "new"
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "file").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_what_failed(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("earlier")
    with pytest.raises(error), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "earlier"


def test_the_file_that_failed_is_the_one_that_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with (
        pytest.raises(DataError, match="source: cannot be read"),
        atomic_path(tmp_path / "out") as temporary,
    ):
        temporary.write_bytes(source.read_bytes())
    with pytest.raises(OutputError, match="out: cannot be written"), atomic_path(tmp_path / "out"):
        raise OSError(28, os.strerror(28))
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot be written"),
        atomic_path(tmp_path / "file" / "x"),
    ):
        pass
