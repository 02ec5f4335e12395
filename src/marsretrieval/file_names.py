"""Safe file names from data, and suggestions for the names of missing files."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from marsretrieval.errors import DataError

_NAME_BYTES = 255  # of one path component, on all common file systems
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_COMPARED = 10_000  # names of a folder


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


def suggest_path(path: Path | str) -> str:
    """Say what may be wrong with the path of a missing file.

    Args:
        path: A path that is no file.

    Returns:
        A remedy: the nearest names in its folder, or the first folder that is missing.
    """
    path = Path(path)
    missing = path
    try:
        if path.exists():
            return "It is not a file: name a file in it, if it is a folder."
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
