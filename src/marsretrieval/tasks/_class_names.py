"""Names of classes whose labels are numbers or abbreviations, read from a file."""

from __future__ import annotations

import csv
from pathlib import Path

from marsretrieval.errors import DataError
from marsretrieval.files import parse_json

_MAX_BYTES = 2**24
_REMEDY = (
    "Write one name per line in the order of the labels from 0 (.txt), lines LABEL,NAME (.csv), "
    "or an object or list (.json)."
)


def read_class_names(path: Path) -> dict[str, str]:
    """Read the names of classes.

    Args:
        path: A .json (an object of label to name, or a list), a .csv of lines LABEL,NAME, or a text
            with one name per line; lists and lines count from 0.

    Returns:
        Label to name.

    Raises:
        DataError: If the file cannot be read, or holds no names.
    """
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file", remedy=_REMEDY)
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: not a file of class names", remedy=_REMEDY)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", remedy=_REMEDY) from error
    try:
        names = _parse(path.suffix.lower(), text)
    except DataError as error:
        message = error.message.removeprefix("it: ")
        raise DataError(f"{path}: {message}", remedy=_REMEDY) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: not readable as class names ({error})", remedy=_REMEDY) from error
    if not names:
        raise DataError(f"{path}: holds no class names", remedy=_REMEDY)
    return names


def _parse(suffix: str, text: str) -> dict[str, str]:
    if suffix == ".csv":
        rows = [row for row in csv.reader(text.splitlines()) if any(row)]
        if any(len(row) != 2 for row in rows):
            raise ValueError("a line that is not LABEL,NAME")
        pairs = [(row[0], row[1]) for row in rows]
    elif suffix == ".json":
        value = parse_json(text, source="it")
        if isinstance(value, list):
            value = dict(enumerate(value))
        if not isinstance(value, dict) or not all(isinstance(n, str) for n in value.values()):
            raise ValueError("not an object or list of texts")
        pairs = [(str(label), name) for label, name in value.items()]
    else:
        lines = text.splitlines()
        pairs = [(str(number), line) for number, line in enumerate(lines) if line.strip()]
    names = {label.strip(): name.strip() for label, name in pairs}
    if len(names) != len(pairs):
        raise ValueError("a label that comes twice")
    if not all(names.values()):
        raise ValueError("a label without a name")
    return names
