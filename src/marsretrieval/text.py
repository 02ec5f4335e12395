"""Text formatting: plurals, and escaping of text from data for terminals and spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters (C0, DEL, C1), surrogates and bidirectional marks, except tab and line feed.
_CONTROLS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def pluralize(number: int, noun: str) -> str:
    """Format a number with its noun: `1 tile`, `2,000 tiles`.

    Args:
        number: The number.
        noun: Singular noun with a plural in -s.

    Returns:
        The number with thousands separators, and the noun.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_metres(length: float) -> str:
    """Format a length: `20,840 m`, `511.4 m`.

    Args:
        length: Length in metres.

    Returns:
        The length with four significant digits, or to the metre if it is longer, and the unit.
    """
    return f"{length:,.0f} m" if length >= 1000 else f"{length:.4g} m"


def list_some(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names, and the number of the others.

    Args:
        names: Names to list.
        limit: Number of names to write out.

    Returns:
        The names, separated by commas.
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Escape control characters, so that text from data cannot control a terminal.

    Args:
        text: Any text.
        one_line: Whether line ends and tabs are escaped as well.

    Returns:
        The text, with escapes such as `\x1b`.
    """
    escaped = _CONTROLS.sub(_escape, text)
    return re.sub(r"[\t\n]", _escape, escaped) if one_line else escaped


def table_cell(text: str) -> str:
    """Quote a text for a CSV cell if a spreadsheet would read it as a formula.

    Args:
        text: Any text. Pass numbers to the writer as numbers, not to this function.

    Returns:
        The text, prefixed with an apostrophe if it begins with `=`, `+`, `-`, `@`, a tab or a
        line end, unless all of it is a number.
    """
    if not text.startswith(_FORMULA_STARTS):
        return text
    return text if re.fullmatch(r"[+-]?\d+(\.\d+)?", text) else f"'{text}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[match[0]]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
