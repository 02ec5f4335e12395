"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """`1 tile`, `2,000 tiles`. noun: one with a plural in -s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
