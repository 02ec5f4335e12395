"""Verification by several processes, ended before its end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from marsretrieval.datasets import _scan, open_images
from tests.datasets.layouts import write_tar
from tests.datasets.verify.sets import grey


class Interrupting:
    """Progress of someone who presses Ctrl-C when the first shard is done."""

    def start(self, label: str, total: int | None, unit: str = "items") -> Interrupting:
        return self

    def advance(self, count: int = 1) -> None:
        raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> Interrupting:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def test_workers_end_within_a_shard_when_nobody_waits(tmp_path: Path, monkeypatch) -> None:
    for number in range(6):
        write_tar(tmp_path / f"{number}.tar", [(f"{number}.png", grey(number))])
    source = open_images(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _scan.scan(source, likeness=False, workers=2, progress=Interrupting())
    stop = Event()
    monkeypatch.setattr(_scan, "_stop", stop)
    shard = source.shards()[0]
    assert len(_scan._scan_shard(source, shard, likeness=False).items) == 1
    stop.set()
    assert len(_scan._scan_shard(source, shard, likeness=False).items) == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_workers_end_when_the_one_they_work_for_is_killed() -> None:
    code = """if True:
        import multiprocessing, os, time
        from concurrent.futures import ProcessPoolExecutor
        from marsretrieval.datasets._scan import _begin
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, context, _begin, (context.Event(),))
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert runs(worker)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(worker)


def runs(pid: int) -> bool:
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return told.rpartition(")")[2].split()[0] != "Z"
