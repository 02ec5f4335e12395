"""How links are fetched."""

from __future__ import annotations

from dataclasses import dataclass

from marsretrieval import __version__


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """Times in seconds; `total_s` bounds one try of one link."""

    workers: int = 16
    per_host: int = 4
    connect_s: float = 10.0
    read_s: float = 20.0
    total_s: float = 180.0
    max_bytes: int = 128 * 2**20
    max_redirects: int = 8
    attempts: int = 3
    backoff_s: float = 1.0  # before the second try; doubled before each further one
    max_pause_s: float = 60.0
    user_agent: str = f"marsretrieval/{__version__} (research data set, one request an image)"
    wayback: bool = True
    wayback_api: str = "https://archive.org/wayback/available"
    wayback_web: str = "https://web.archive.org/web"
    allowed_addresses: frozenset[str] = frozenset()  # not public, yet let through: for tests
