"""Call other programs with selected GPUs, and let them handle Ctrl-C."""

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
    """Ignore SIGINT while a called program, which receives it as well, shuts down."""
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def environment(ids: Sequence[str]) -> dict[str, str]:
    """Return the environment of a program that sees only some GPUs.

    Args:
        ids: GPU ids; if empty, the program sees the GPUs of this process.

    Returns:
        The environment variables.
    """
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(ids)} if ids else {})}


def call(
    words: Sequence[str], ids: Sequence[str] = (), *, stdout: Any = None
) -> subprocess.CompletedProcess[bytes]:
    """Call a program and wait for it. Exits if the program was interrupted.

    Args:
        words: The command.
        ids: GPU ids that the program sees.
        stdout: As for `subprocess.run`.

    Returns:
        The completed process.
    """
    with interrupts_left_to_programs():
        process = subprocess.run(words, env=environment(ids), stdout=stdout, check=False)
    if process.returncode == INTERRUPTED:
        sys.exit(INTERRUPTED)
    return process
