"""Quads of a region from a server on 127.0.0.1: download, check, cut, delete."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.datasets.ctx import (
    FetchSettings,
    Input,
    JobSettings,
    Quad,
    cut_quads,
    read_manifest,
)
from marsretrieval.errors import UsageError
from tests.datasets.ctx.quads import noise, write_quad, zipped
from tests.datasets.ctx.runs import SPEC, TILES, start
from tests.datasets.download.servers import Handler, serve

QUADS = [Quad(0, 172), Quad(0, 176), Quad(0, -180)]  # over the antimeridian


class Mosaic:
    """Server of zips with range requests. `silent_after`: it stops sending after so many bytes."""

    def __init__(self, zips: dict[str, bytes]) -> None:
        self.zips = zips
        self.requests: list[tuple[str, str | None]] = []
        self.silent_after: int | None = None
        self.over = threading.Event()

    def __call__(self, request: Handler) -> None:
        name = request.path.rpartition("/")[2]
        span = request.headers.get("Range")
        self.requests.append((name, span))
        data = self.zips.get(name)
        if data is None:
            request.send(404)
            return
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        request.send_response(206 if span else 200)
        request.send_header("Content-Length", str(len(data) - start))
        if span:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        if self.silent_after is None:
            request.wfile.write(data[start:])
        else:
            request.wfile.write(data[start : self.silent_after])
            self.over.wait(120)


@pytest.fixture(scope="module")
def zips(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("mosaic")
    return {
        quad.zip_name: zipped(
            write_quad(folder, quad, noise(700, number)), quad, folder
        ).read_bytes()
        for number, quad in enumerate(QUADS)
    }


@pytest.fixture
def mosaic(zips) -> Mosaic:
    return Mosaic(dict(zips))


@pytest.fixture
def address(mosaic: Mosaic) -> Iterator[str]:
    with serve(mosaic) as url:
        yield f"{url}/CTX/V01/tiles"
        mosaic.over.set()


def fetched(out: Path, address: str, quads=QUADS, **settings):
    return cut_quads(
        [Input(quad) for quad in quads], SPEC, out,
        settings=JobSettings(
            server=address, fetch=FetchSettings(attempts=2, backoff_s=0.01), **settings
        ),
    )  # fmt: skip


def arguments(out: Path, address: str) -> list[str]:
    return [
        "data", "tiles", "--delta", "0.5", "--size", "32", "--bbox", "173,1,-179,2",
        "--server", address, "--out", str(out), "--json",
    ]  # fmt: skip


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size == size):
        time.sleep(0.01)
    assert path.stat().st_size == size


def test_region_is_downloaded_cut_and_its_zips_deleted(
    mosaic, address, tmp_path: Path, marsretrieval: Callable[..., Result]
) -> None:
    out = tmp_path / "out"
    output = json.loads(marsretrieval(*arguments(out, address)).stdout)
    assert output["complete"]
    assert sorted(output["quads"]["cut"]) == ["E-180_N00", "E172_N00", "E176_N00"]
    assert output["tiles"] == 3 * TILES
    assert sorted(path.name for path in out.iterdir()) == [
        f"{quad.name}{end}"
        for quad in sorted(QUADS, key=lambda quad: quad.name)
        for end in (".json", ".tar")
    ]
    manifest = read_manifest(out / "E176_N00.json")
    assert manifest.source == "MurrayLab_GlobalCTXMosaic_V01_E176_N00.zip"
    requests = len(mosaic.requests)
    assert requests == 3
    again = json.loads(marsretrieval(*arguments(out, address)).stdout)
    assert (again["quads"]["cut"], len(again["quads"]["kept"])) == ([], 3)
    assert len(mosaic.requests) == requests


def test_missing_quad_is_reported_and_the_others_are_cut(
    mosaic, address, tmp_path, marsretrieval: Callable[..., Result]
) -> None:
    del mosaic.zips[QUADS[0].zip_name]
    output = json.loads(marsretrieval(*arguments(tmp_path / "out", address), code=1).stdout)
    assert [item["source"] for item in output["failed"]] == ["E172_N00"]
    assert "404" in output["failed"][0]["reason"]
    assert output["tiles"] == 2 * TILES


def test_damaged_zip_is_deleted_and_downloaded_again_next_time(
    mosaic, address, zips, tmp_path: Path
) -> None:
    name = QUADS[1].zip_name
    data = bytearray(zips[name])
    data[len(data) // 2] ^= 1
    mosaic.zips[name] = bytes(data)
    report = fetched(tmp_path, address)
    assert [item.source for item in report.failed] == ["E176_N00"]
    assert "damaged" in report.failed[0].reason
    assert not (tmp_path / ".scratch").exists()
    mosaic.zips[name] = zips[name][: len(data) // 2]
    assert "damaged or incomplete zip" in fetched(tmp_path, address).failed[0].reason
    mosaic.zips[name] = zips[name]
    healed = fetched(tmp_path, address)
    assert healed.complete
    assert (len(healed.cut), len(healed.kept)) == (1, 2)


def test_killed_run_resumes_within_the_file(
    mosaic, address, zips, tmp_path: Path, marsretrieval: Callable[..., Result]
) -> None:
    out = tmp_path / "out"
    part = out / ".scratch" / f"{QUADS[2].zip_name}.part"  # the mosaic's order is by west edge
    mosaic.silent_after = 200_000
    process = start(arguments(out, address))
    wait_for(part, 200_000)
    process.kill()
    process.join()
    mosaic.silent_after, mosaic.requests = None, []
    output = json.loads(marsretrieval(*arguments(out, address)).stdout)
    assert mosaic.requests[0] == (QUADS[2].zip_name, "bytes=200000-")
    assert output["tiles"] == 3 * TILES


def test_ctrl_c_does_not_wait_for_a_silent_server(mosaic, address, tmp_path: Path) -> None:
    """Otherwise the run would wait for twenty seconds, then retry."""
    out = tmp_path / "out"
    mosaic.silent_after = 200_000
    program = [sys.executable, "-m", "marsretrieval", *arguments(out, address)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    wait_for(out / ".scratch" / f"{QUADS[2].zip_name}.part", 200_000)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("interrupted")
    assert len(mosaic.requests) == 1


def test_complete_zip_is_not_downloaded_twice(mosaic, address, zips, tmp_path: Path):
    """The run is killed between download and cutting."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / QUADS[0].zip_name).write_bytes(zips[QUADS[0].zip_name])
    report = fetched(tmp_path / "out", address, scratch=tmp_path / "scratch")
    assert report.complete
    assert QUADS[0].zip_name not in {name for name, _ in mosaic.requests}


def test_scratch_folder_holds_at_most_two_zips(mosaic, address, tmp_path, monkeypatch):
    from marsretrieval.datasets.ctx import runner

    counts = []
    real = runner.pack_quad

    def slowly(path, *args, **kwargs):
        deadline, following = time.monotonic() + 60, len(counts) < 2
        while len(list(path.parent.glob("*.zip"))) < 1 + following:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)  # for one too many
        counts.append(len({item.name.partition(".")[0] for item in path.parent.glob("*.zip*")}))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(runner, "pack_quad", slowly)
    assert fetched(tmp_path, address).complete
    assert counts == [2, 2, 1]


def test_unreachable_server_stops_the_run(tmp_path: Path) -> None:
    report = fetched(tmp_path, "http://127.0.0.1:9")
    assert [item.source for item in report.failed] == ["E172_N00"]
    assert report.untried == ["E176_N00", "E-180_N00"]
    assert not report.complete


def test_server_failure_for_some_quads_does_not_stop_the_others(
    mosaic, address, tmp_path: Path
) -> None:
    first = mosaic.zips.pop(QUADS[0].zip_name)
    real = mosaic.__call__

    def answer(request: Handler) -> None:
        if QUADS[0].zip_name in request.path:
            request.send(500)
        else:
            real(request)

    with serve(answer) as url:
        report = fetched(tmp_path, url)
        assert [item.source for item in report.failed] == ["E172_N00"]
        assert (len(report.cut), report.untried) == (2, [])
        mosaic.zips[QUADS[0].zip_name] = first
    with serve(lambda request: request.send(503)) as url:
        quads = [Quad(0, west) for west in range(0, 20, 4)]
        report = fetched(tmp_path / "other", url, quads)
        assert (len(report.failed), len(report.untried)) == (3, 2)


def test_unexpected_quads_stop_the_download_early(mosaic, address, zips, tmp_path: Path) -> None:
    """The zips are complete and contain another quad."""
    quads = [Quad(0, west) for west in range(0, 20, 4)]
    mosaic.zips = {quad.zip_name: zips[QUADS[0].zip_name] for quad in quads}
    report = fetched(tmp_path, address, quads)
    assert [item.source for item in report.failed] == ["E000_N00", "E004_N00", "E008_N00"]
    assert all("not the quad" in item.reason for item in report.failed)
    assert report.untried == ["E012_N00", "E016_N00"]
    assert not report.complete
    assert len({name for name, _ in mosaic.requests}) <= 4  # one ahead


def test_two_runs_cannot_share_a_scratch_folder(address, tmp_path: Path, monkeypatch) -> None:
    from marsretrieval.datasets.ctx import runner

    def within(*args, **kwargs):
        monkeypatch.setattr(runner, "pack_quad", real)
        with pytest.raises(UsageError, match="another run"):
            fetched(tmp_path / "other", address, scratch=tmp_path / "scratch")
        return real(*args, **kwargs)

    real = runner.pack_quad
    monkeypatch.setattr(runner, "pack_quad", within)
    report = fetched(tmp_path / "out", address, QUADS[:1], scratch=tmp_path / "scratch")
    assert report.complete


def test_command_shows_its_plan_and_refuses_invalid_use(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("marsretrieval.datasets.ctx.runner.free_bytes", lambda folder: 10**13)
    runner = CliRunner()

    def run(*words: str) -> Result:
        return runner.invoke(app, ["data", "tiles", *words])

    done = run("--bbox", "-180,-80,180,80", "--dry-run", "--json")
    output = json.loads(done.stdout)
    assert (len(output["quads"]), output["tiles"]) == (3600, 1_440_000)
    assert 5e12 < output["download_bytes"] < 7e12
    done = run("--quads", "E-004_N-04,E000_N00", "--dry-run")
    assert done.exit_code == 0
    assert "E-004_N-04, E000_N00" in done.stdout
    assert "800" in done.stdout
    assert "not enough free disk space" not in done.stderr
    monkeypatch.setattr("marsretrieval.datasets.ctx.runner.free_bytes", lambda folder: 10**9)
    done = run("--quads", "E-004_N-04,E000_N00", "--dry-run")
    assert (done.exit_code, "not enough free disk space" in done.stderr) == (0, True)
    assert list(tmp_path.iterdir()) == []
    server = ["--quads", "E000_N00", "--server"]
    for words in (
        [], ["--clip", "x"], ["--bbox", "1,2,3"], ["--quads", "E1_N1"],
        [*server, "nonsense"], [*server, "file:///etc"], [*server, "https://"],
    ):  # fmt: skip
        done = run(*words)
        assert done.exit_code == 2, words
        assert "error:" in done.stderr
    assert run("absent").exit_code == 1
