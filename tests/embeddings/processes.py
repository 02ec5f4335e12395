"""Wait for the files of a build in another process, and compare stores."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from marsretrieval.embeddings import open_store

__all__ = ["assert_equal_stores", "wait_for"]


def wait_for(process: subprocess.Popen[str], store: Path, pattern: str, count: int = 1) -> None:
    """Wait until so many files exist; fail if the process exits before."""
    end = time.monotonic() + 60
    while len(list(store.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def assert_equal_stores(one: Path, other: Path) -> None:
    """Compare two stores byte for byte, except the timings in the entries."""
    assert open_store(one).set_hash == open_store(other).set_hash
    contents = [
        {path.name: path.read_bytes() for path in store.glob("shards/*.arrow")}
        for store in (one, other)
    ]
    assert contents[0] == contents[1]
