"""Worker processes exit with their parent process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from marsretrieval.system import peak_memory, reset_peak_memory

CODE = """
import os, sys, time
from pathlib import Path
from marsretrieval.system import process_pool

def begin(word):
    global first_word
    first_word = word

def answer():
    return first_word, os.getpid()

if __name__ == "__main__":
    pool = process_pool(1, begin, ("begun",), scratch=Path(sys.argv[1]))
    print(*pool.submit(answer).result(), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc here")
def test_peak_memory_is_that_since_the_last_reset() -> None:
    size = 2**28
    reset_peak_memory()
    before = peak_memory()["peak_memory_bytes"]
    block = bytearray(b"x" * size)
    held = peak_memory()["peak_memory_bytes"]
    del block
    assert held - before > size // 2
    assert peak_memory()["peak_memory_bytes"] >= held
    reset_peak_memory()
    assert peak_memory()["peak_memory_bytes"] < held - size // 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_children_exit_and_clean_up_when_the_parent_is_killed(tmp_path: Path) -> None:
    script, scratch = tmp_path / "script.py", tmp_path / "scratch"
    script.write_text(CODE)
    (scratch / "deep").mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, str(script), str(scratch)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    word, worker = process.stdout.readline().split()
    assert word == "begun" and runs(int(worker)) and scratch.exists()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while (runs(int(worker)) or scratch.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(int(worker)) and not scratch.exists()


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
