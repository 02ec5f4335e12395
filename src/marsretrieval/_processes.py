"""Worker processes that go away when nobody waits for them any more."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Started anew, not forked: a thread (of a bar, of torch) may hold a lock at the moment of a fork.
SPAWN = multiprocessing.get_context("spawn")


def process_pool(
    workers: int,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    *,
    scratch: Path | None = None,
) -> ProcessPoolExecutor:
    """A pool whose processes are deaf to Ctrl-C, which goes to all of a terminal: the one that
    waits for them decides. Where that one is killed they end too, and remove `scratch`; the
    library would have them wait for work for ever.

    begin: called with `arguments` in each process first.
    """
    return ProcessPoolExecutor(
        workers, mp_context=SPAWN, initializer=_begin, initargs=(scratch, begin, arguments)
    )


def _begin(
    scratch: Path | None, begin: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with_parent(scratch: Path | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)
