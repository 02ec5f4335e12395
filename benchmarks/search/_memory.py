"""What Linux says of the memory of this process."""

from __future__ import annotations

from pathlib import Path

__all__ = ["memory_kb"]


def memory_kb() -> tuple[int, int]:
    """The most it had, mapped files included; and what is its own now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return int(found["VmHWM"].split()[0]), int(found["RssAnon"].split()[0])
