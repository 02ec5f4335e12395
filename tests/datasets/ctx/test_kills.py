"""Full disk, Ctrl-C and kill -9 at any moment: the same command resumes from complete files."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from marsretrieval.datasets.ctx import (
    Quad,
    TileSpec,
    read_manifest,
)
from tests.datasets.ctx.quads import noise, write_quad, zipped
from tests.datasets.ctx.runs import SPEC, contents, difference, run, start

TILES_COMMAND = ["data", "tiles", "--delta", "0.5", "--size", "32"]
PROGRAM = [sys.executable, "-m", "marsretrieval"]


def test_a_disk_that_fills_up_while_cutting(quads: Path, out: Path) -> None:
    """A limit on the file size simulates a full disk: the write fails half way."""
    limit = 100_000
    done = subprocess.run(
        [*PROGRAM, *TILES_COMMAND, str(quads), "--out", str(out)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert run(quads, out).complete


# Where a process may die: the function that is replaced by death.
DEATHS = {
    "while cutting": "marsretrieval.datasets.ctx.tiling.encode",
    "before the tar has its name": "marsretrieval.datasets.tile_archive.sha256_file",
    "between tar and manifest": "marsretrieval.datasets.tile_archive.write_json",
}


@pytest.fixture(scope="module")
def expected(two_quads: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("expected") / "out"
    run(two_quads, out)
    return contents(out)


@pytest.mark.parametrize("moment", DEATHS)
@pytest.mark.parametrize("older", [False, True])
def test_killed_run_is_resumed(
    quads: Path, out: Path, expected: dict[str, str], moment: str, older: bool
) -> None:
    if older:
        run(quads, out, TileSpec.of("0.5", size=16))
    process = start(
        [*TILES_COMMAND, str(quads), "--out", str(out), *["--force"] * older],
        dies_in=DEATHS[moment],
    )
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    manifests = [path for path in out.glob("*.json") if read_manifest(path).spec_hash == SPEC.hash]
    assert manifests == []
    leftovers = list(out.glob(".*.tmp"))
    hours_ago = time.time() - 7200
    for path in leftovers:
        os.utime(path, (hours_ago, hours_ago))
    assert run(quads, out, force=older).complete
    assert contents(out) == expected


def test_kills_at_any_moment(
    tmp_path: Path, out: Path, marsretrieval: Callable[..., Result]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for west in range(0, 16, 4):
        tiff = write_quad(folder, Quad(0, west), noise(700, west))
        if west % 8:
            zipped(tiff, Quad(0, west), folder)
            tiff.unlink()
    run(folder, tmp_path / "expected")
    arguments = [*TILES_COMMAND, str(folder), "--out", str(out), "--json"]
    codes = []
    for tars, delay in ((0, 0.0), (0, 0.02), (1, 0.0), (1, 0.04), (2, 0.02)):
        process = start(arguments)
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if out.exists() and len(list(out.glob("*.tar"))) >= tars:
                break
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join()
        codes.append(process.exitcode)
        for path in out.glob("*.json"):
            manifest = read_manifest(path)
            assert not difference(out / manifest.tar, tmp_path / "expected" / manifest.tar)
    assert codes[0] == -signal.SIGKILL
    assert json.loads(marsretrieval(*arguments).stdout)["complete"]
    files = {name: data for name, data in contents(out).items() if not name.startswith(".")}
    assert files == contents(tmp_path / "expected")


def test_ctrl_c_stops_soon_without_partial_files(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for west in range(0, 16, 4):
        write_quad(folder, Quad(0, west), noise(400, west, no_data=False))
    command = [*PROGRAM, "data", "tiles", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error
    assert len(list(out.glob("*.json"))) < 4, "it went on to the end"
    assert not list(out.glob(".*.tmp"))
    for path in out.glob("*.tar"):
        assert path.with_suffix(".json").exists()
