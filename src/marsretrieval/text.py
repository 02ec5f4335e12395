"""Words for people: numbers in sentences, and texts from data that are safe to show."""

from __future__ import annotations

import re

# Controls of terminals (C0, DEL, C1), halves of characters, and marks that turn the direction of
# writing round; a line's end and a tab stay.
_CONTROLS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def pluralize(number: int, noun: str) -> str:
    """`1 tile`, `2,000 tiles`. noun: one with a plural in -s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str, *, one_line: bool = False) -> str:
    """Escape control characters, so that no name from data can steer a terminal.

    Args:
        text: Any text.
        one_line: Whether ends of lines and tabs are escaped as well.

    Returns:
        The text, with `\\x1b` and the like spelt out.
    """
    escaped = _CONTROLS.sub(_escape, text)
    return re.sub(r"[\t\n]", _escape, escaped) if one_line else escaped


def table_cell(text: str) -> str:
    """A text for a cell of a CSV file that no spreadsheet takes for a formula.

    Args:
        text: Any text; numbers are to be written as numbers, not passed here.

    Returns:
        The text; with an apostrophe before it where it begins with `=`, `+`, `-`, `@`, a tab or
        an end of line, unless all of it is a number.
    """
    if not text.startswith(_FORMULA_STARTS):
        return text
    return text if re.fullmatch(r"[+-]?\d+(\.\d+)?", text) else f"'{text}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[match[0]]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
