"""Memory use of this process on Linux."""

from __future__ import annotations

from pathlib import Path

__all__ = ["memory_kb"]


def memory_kb() -> tuple[int, int]:
    """Return the peak memory with mapped files, and the present private memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmHWM"].split()[0]), int(fields["RssAnon"].split()[0])
