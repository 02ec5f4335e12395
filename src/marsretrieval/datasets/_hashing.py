"""What tells one set of items from another: hashes of content, and of a whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def content_hash(data: bytes) -> bytes:
    """16 bytes: the first half of the SHA-256 of an encoded image."""
    return hashlib.sha256(data).digest()[:16]


def annotated_hash(content: bytes, text: str) -> bytes:
    """16 bytes for an image (its content hash) together with its caption or label."""
    return hashlib.sha256(content + text.encode()).digest()[:16]


def set_hash(items: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over the sorted lines ``id<TAB>content hash in hex``: order does not matter."""
    lines = sorted(f"{key}\t{content.hex()}\n" for key, content in items)
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()
