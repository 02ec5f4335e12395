"""Text: plurals, lengths, lists, escaping of text from data, and safe file names from data."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from marsretrieval.errors import DataError

# Control characters (C0, DEL, C1), surrogates and bidirectional marks, except tab and line feed.
_CONTROLS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NAME_BYTES = 255  # of one path component, on all common file systems
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_COMPARED = 10_000  # names of a folder


def pluralize(number: int, noun: str) -> str:
    """Format a number with its noun: `1 tile`, `2,000 tiles`.

    Args:
        number: The number.
        noun: Singular noun with a plural in -s.

    Returns:
        The number with thousands separators, and the noun.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def verb(number: int, singular: str, plural: str) -> str:
    """Choose the form of a verb: `1 of 3 hits is known`, `2 of 3 hits are known`.

    Args:
        number: Number of the things that the verb is about.
        singular: Form for one.
        plural: Form for every other number.

    Returns:
        The form.
    """
    return singular if number == 1 else plural


def format_degrees(degrees: float) -> str:
    """Format an angle with its unit: `1 degree`, `0.5 degrees`.

    Args:
        degrees: The angle.

    Returns:
        The angle with up to six significant digits, and the unit.
    """
    return f"{degrees:g} degree{'' if degrees == 1 else 's'}"


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


def has_control_characters(text: str) -> bool:
    """Check for line ends, tabs and other control characters, which names must not have.

    Returns:
        True if `printable(text, one_line=True)` would change the text.
    """
    return printable(text, one_line=True) != text


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


def is_safe_name(name: object) -> bool:
    """Check whether a value from data may be used as a file name.

    Returns:
        True for a single printable path component of at most 255 bytes.
    """
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and "/" not in name
        and "\\" not in name
        and not _UNPRINTABLE.search(name)
        and len(name.encode(errors="replace")) <= _NAME_BYTES
        and not (os.name == "nt" and (":" in name or name[-1] in ". "))
    )


def confined(
    folder: Path, name: object, *, nested: bool = True, source: Path | str | None = None
) -> Path:
    """Join a folder and a file name that comes from data; reject names that lead outside.

    Args:
        folder: Folder that must contain the path.
        name: Relative path with `/` between its components.
        nested: Whether it may have several components.
        source: File that holds the name, for the message (default: `folder`).

    Returns:
        `folder / name`.

    Raises:
        DataError: If the name is not a string, is absolute, contains `..`, a backslash, a control
            character or a component longer than file systems allow, or if links lead out of
            `folder`.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or not all(map(is_safe_name, parts)) or (len(parts) > 1 and not nested):
        quoted = repr(name)
        quoted = quoted if len(quoted) <= 80 else f"{quoted[:60]}..."
        raise DataError(
            f"{source or folder}: {quoted} is not the name of a file below its folder",
            remedy="Do not use this file, or download it again: it is damaged or crafted to access "
            "other files.",
        )
    path = folder.joinpath(*parts)
    if len(parts) > 1 and not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{path}: a link points out of {folder}",
            remedy="Replace the link by the folder that it points to.",
        )
    return path


def missing_file(path: Path | str) -> str:
    """Describe a path at which there is no file, for a message whose remedy is `suggest_path`.

    Args:
        path: The path.

    Returns:
        "no such file", or "not a file" if there is something else, such as a folder.
    """
    return "not a file" if Path(path).exists() else "no such file"


def suggest_path(path: Path | str) -> str:
    """Say what may be wrong with the path of a missing file.

    Args:
        path: A path that is not what is expected there, a file or a folder.

    Returns:
        A remedy: the nearest names in its folder, or the first folder that is missing.
    """
    path = Path(path)
    missing = path
    try:
        if path.is_dir():
            return "It is a folder: name a file in it."
        if path.is_file():
            return "It is a file: name a folder."
        if path.exists():
            return "It is neither a file nor a folder."
        while not missing.parent.exists() and missing.parent != missing:
            missing = missing.parent
        if missing != path:
            return f"Check the path: there is no folder {missing}."
        with os.scandir(path.parent) as entries:
            names = [entry.name for _, entry in zip(range(_MAX_COMPARED), entries, strict=False)]
    except OSError:
        return "Check the path."
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(str(path.with_name(name)) for name in near)}?"
    return "Check the path: no file of its folder has a similar name."
