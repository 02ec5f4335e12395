"""Calling other programs: which GPUs they see, and who answers Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["INTERRUPTED", "call", "environment", "interrupts_left_to_programs"]

INTERRUPTED = 130


@contextmanager
def interrupts_left_to_programs() -> Iterator[None]:
    """A terminal interrupts the program that was called as well: it ends as it should, in its
    own time, and its exit code tells."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def environment(ids: Sequence[str]) -> dict[str, str]:
    """Of a program that sees these GPUs only; none given: what this one sees."""
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(ids)} if ids else {})}


def call(
    words: Sequence[str], ids: Sequence[str] = (), *, stdout: Any = None
) -> subprocess.CompletedProcess[bytes]:
    """Call a program and wait. Ends this one, too, when it was interrupted."""
    with interrupts_left_to_programs():
        done = subprocess.run(words, env=environment(ids), stdout=stdout, check=False)
    if done.returncode == INTERRUPTED:
        sys.exit(INTERRUPTED)
    return done
