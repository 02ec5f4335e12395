"""System information for result files, and worker processes."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

_PACKAGES = (
    "marsretrieval", "numpy", "scipy", "pyarrow", "pillow", "torch", "torchvision",
    "open_clip_torch", "timm", "transformers", "sentence-transformers", "mteb", "rasterio",
)  # fmt: skip

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can affect a metric."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def usable_cpus() -> int:
    """Return the number of CPUs allowed by the affinity mask and the cgroup quota."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return max(1, count)


def hardware(device: str | None = None) -> dict[str, Any]:
    """Describe the machine.

    Args:
        device: Device that ran the model; its name is added if torch is loaded.

    Returns:
        Platform, CPUs, memory in GiB, device and accelerator.
    """
    description: dict[str, Any] = {"platform": platform.platform(), "cpus": usable_cpus()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        description["memory_gib"] = round(min(size, _memory_limit()) / 2**30, 1)
    if device is not None:
        description["device"] = device
        torch = sys.modules.get("torch")
        if torch is not None and device.startswith("cuda"):
            description["accelerator"] = torch.cuda.get_device_name(device)
    return description


def reset_peak_memory() -> None:
    """Begin a new measurement of `peak_memory`, where the system supports it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Return the peak memory since `reset_peak_memory`, or since the start of the process.

    Returns:
        `peak_memory_bytes`, the resident memory of this process without its workers, and
        `peak_gpu_memory_bytes`, the memory that torch allocated on the current GPU; values that
        cannot be measured are missing.
    """
    peaks: dict[str, int] = {}
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        peaks["peak_memory_bytes"] = 1024 * int(line.split()[1])
    if not peaks and sys.platform == "darwin":
        import resource

        peaks["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["peak_gpu_memory_bytes"] = int(torch.cuda.max_memory_allocated())
    return peaks


def _memory_limit() -> float:
    """Return the memory limit of the cgroup in bytes; infinity without a limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return float("inf") if limit == "max" else int(limit)
    except (OSError, ValueError):
        return float("inf")


# A forked process would inherit locks held by threads of a progress bar or of torch.
SPAWN = multiprocessing.get_context("spawn")


def process_pool(
    workers: int,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    *,
    scratch: Path | None = None,
) -> ProcessPoolExecutor:
    """Create a process pool whose workers ignore SIGINT and end with the parent process.

    Ctrl-C reaches all processes of a terminal; only the parent handles it. If the parent is
    killed, the workers exit and remove `scratch`; workers of the standard pool would wait for
    ever.

    Args:
        workers: Number of processes.
        begin: Function called first in each process.
        arguments: Its arguments.
        scratch: Folder to remove if the parent is killed.

    Returns:
        The pool.
    """
    return ProcessPoolExecutor(
        workers, mp_context=SPAWN, initializer=_start_worker, initargs=(scratch, begin, arguments)
    )


def _start_worker(
    scratch: Path | None, begin: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(scratch,), daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _exit_with_parent(scratch: Path | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def let_interrupts_end_waits() -> None:
    """Let Ctrl-C end waits for threads again, after a library has changed the handling of SIGINT.

    The handler that Polars sets when it is imported (MTEB imports it) restarts interrupted system
    calls: Python then raises KeyboardInterrupt only when the wait has ended by itself.
    """
    if hasattr(signal, "siginterrupt"):  # POSIX
        signal.siginterrupt(signal.SIGINT, True)


def limit_allocator() -> bool:
    """Let the C allocator of this process return freed memory to the system.

    glibc keeps freed blocks of up to 32 MiB, per thread, once a program has freed one of this size:
    a server that computes arrays of some MiB for each request then holds several hundred MiB. With
    the limits of this function, blocks of 1 MiB and more are returned when they are freed, and
    threads share two heaps. Only glibc is changed.

    Returns:
        Whether the limits were set.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    limits = ((_M_MMAP_THRESHOLD, 2**20), (_M_TRIM_THRESHOLD, 2**22), (_M_ARENA_MAX, 2))
    return all(mallopt(name, value) for name, value in limits)
