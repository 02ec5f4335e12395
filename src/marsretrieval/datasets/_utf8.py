"""Names and texts that are not UTF-8: escape them for messages, and skip their items."""

from __future__ import annotations

from marsretrieval.datasets._protocol import Record, Skipped


def is_utf8(text: str) -> bool:
    """Return whether a string can be written as UTF-8 (it holds no lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str) -> str:
    r"""Make a string printable: bytes that are not UTF-8 become ``\xff``, surrogates ``\ud800``.

    Args:
        text: A name from the file system or an archive, or any other string.

    Returns:
        The string itself where it is UTF-8.
    """
    if is_utf8(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def skip_unless_utf8(item: Record | Skipped) -> Record | Skipped:
    """Replace a record whose name is not UTF-8 by a Skipped with the escaped name.

    Args:
        item: What a reader yields.

    Returns:
        An item whose strings can all be written to a store, a result and a terminal.
    """
    if isinstance(item, Skipped):
        return Skipped(escape(item.id), escape(item.source), escape(item.reason))
    if is_utf8(item.id) and is_utf8(item.source):
        return item
    reason = "its name is not UTF-8: rename it"
    return Skipped(escape(item.id), escape(item.source), reason)
