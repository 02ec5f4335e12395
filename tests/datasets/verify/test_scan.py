"""Interrupted verification with several processes."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from marsretrieval.datasets import open_images, scan
from tests.datasets.layouts import write_tar
from tests.datasets.verify.sets import grey


class Interrupting:
    """Progress that raises KeyboardInterrupt after the first shard."""

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


def test_abandoned_workers_stop_within_a_shard(tmp_path: Path, monkeypatch) -> None:
    for number in range(6):
        write_tar(tmp_path / f"{number}.tar", [(f"{number}.png", grey(number))])
    source = open_images(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        scan.scan(source, likeness=False, workers=2, progress=Interrupting())
    stop = Event()
    monkeypatch.setattr(scan, "_stop", stop)
    shard = source.shards()[0]
    assert len(scan._scan_shard(source, shard, likeness=False).items) == 1
    stop.set()
    assert len(scan._scan_shard(source, shard, likeness=False).items) == 0
