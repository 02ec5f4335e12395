"""Tests of atomic writes, temporary files and safe names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marsretrieval import io
from marsretrieval.errors import DataError, OutputError
from marsretrieval.io import atomic_path, check_output, check_output_folder, write_json
from marsretrieval.text import confined, missing_file, suggest_path


def test_file_appears_complete_with_default_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "new" / "file") as temporary:
        assert temporary.parent == tmp_path / "new"
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "file").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_failed_write_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("earlier")
    with pytest.raises(error), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "earlier"


def test_error_names_the_file_that_failed(tmp_path: Path) -> None:
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


def test_files_of_killed_processes_are_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from marsretrieval.io import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'x.tar') as temporary:\n"
        "    temporary.write_bytes(b'half'); print('ready', flush=True); time.sleep(60)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    dead, alive = processes
    dead.kill()
    dead.wait()
    (tmp_path / "x.tar.mine.tmp").touch()
    (tmp_path / ".other.tar.0123456789abcdef.tmp").touch()  # of another machine, just now
    io._stale_by_folder.clear()
    with atomic_path(tmp_path / "x.tar") as temporary:
        temporary.write_bytes(b"whole")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 4 and sum(name.startswith(".x.tar.") for name in names) == 1
    alive.kill()
    alive.wait()
    for process in processes:
        process.stdout.close()  # type: ignore[union-attr]
    io._stale_by_folder.clear()
    with atomic_path(tmp_path / "x.tar") as temporary:
        temporary.write_bytes(b"whole")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".x.tar.")]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "a/../b", "a//b", "a\\b", "a\nb", "x" * 256, None, 3]
)
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(DataError, match="not the name of a file below"):
        confined(tmp_path, name)


def test_names_below_a_folder_are_accepted(tmp_path: Path) -> None:
    for name in ("a", "a b/c.tar", "火星/é.png", "a\u00a0b", "..a", "-x"):
        assert confined(tmp_path, name) == tmp_path / name
    with pytest.raises(DataError):
        confined(tmp_path, "a/b", nested=False)


def test_a_name_as_long_as_allowed_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".txt")
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_devices_are_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "null.json"
    link.symlink_to("/dev/null")
    with pytest.raises(OutputError, match="It is a device or pipe"):
        check_output(link)
    with pytest.raises(OutputError, match="It is a device or pipe"):
        write_json(link, {})
    assert link.is_symlink()


def test_check_output_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "file")
    check_output_folder(tmp_path / "new" / "folder")
    check_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="Choose a shorter name"):
        check_output(tmp_path / ("n" * 300))


def test_suggestions_for_missing_files(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("{}")
    assert suggest_path(tmp_path / "lables.json") == f"Did you mean {tmp_path / 'labels.json'}?"
    assert (
        suggest_path(tmp_path / "x" / "y")
        == f"Check the path: there is no folder {tmp_path / 'x'}."
    )
    assert "no file of its folder" in suggest_path(tmp_path / "zzz")
    assert suggest_path(tmp_path) == "It is a folder: name a file in it."
    assert suggest_path(tmp_path / "labels.json") == "It is a file: name a folder."
    assert missing_file(tmp_path) == "not a file"
    assert missing_file(tmp_path / "zzz") == "no such file"
