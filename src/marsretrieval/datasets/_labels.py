"""Labels of the images of a folder: from class folders, or from a table beside the images."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marsretrieval.datasets._protocol import Skipped
from marsretrieval.datasets._source_file import read_regular
from marsretrieval.datasets._utf8 import escape

# Folders of a split are no classes.
_SPLITS = frozenset(
    {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
    | {"trainval", "train_val", "holdout"}
)
_MAX_TABLE_BYTES = 2**28
_SEPARATORS = re.compile(r"[\s,;]+")


def is_split(name: str) -> bool:
    """Return whether a folder is named as the split of a dataset (train, test, val ...)."""
    return name.lower() in _SPLITS


def class_of(folders: Sequence[str]) -> str | None:
    """Return the class that the folders above an image name.

    Args:
        folders: Names of the folders from the root of the dataset down to the image.

    Returns:
        The first folder that is not a split; None where there is none.
    """
    return next((name for name in folders if not is_split(name)), None)


@dataclass(frozen=True, slots=True)
class LabelTables:
    """What the label tables of a folder say.

    Attributes:
        labels: Path of an image to its label.
        conflicts: Path of an image with several labels to a sentence that names them.
        problems: Tables with lines that belong to no image.
    """

    labels: Mapping[Path, str] = field(default_factory=dict)
    conflicts: Mapping[Path, str] = field(default_factory=dict)
    problems: tuple[Skipped, ...] = ()


def read_label_tables(root: Path, files: Sequence[Path], images: Sequence[Path]) -> LabelTables:
    """Read ``labels*.txt`` (lines of FILE LABEL), as the HiRISE v3 dataset has it.

    Numbers become names where a ``*classmap*.csv`` (lines of NUMBER,NAME) lies beside the table.
    A table that names none of the images is none of theirs, and ignored.

    Args:
        root: Folder of the dataset; files are named relative to it, or by their last part.
        files: All files of the folder.
        images: Those of `files` that are images.

    Returns:
        The labels, and what is wrong with the tables.
    """
    stems = {image.with_suffix("") for image in images}
    tables = [
        path
        for path in files
        if path.suffix.lower() == ".txt"
        and path.name.lower().startswith("labels")
        and path.with_suffix("") not in stems
    ]
    if not tables:
        return LabelTables()
    by_name: defaultdict[str, list[Path]] = defaultdict(list)
    for image in images:
        for name in {image.name, image.relative_to(root).as_posix()}:
            by_name[name].append(image)
    labels: defaultdict[Path, dict[str, None]] = defaultdict(dict)
    problems: list[Skipped] = []
    for table in tables:
        try:
            rows = list(_rows(table))
        except ValueError as error:
            problems.append(Skipped(table.name, str(table), str(error)))
            continue
        names = _class_names(table, files)
        strays = []
        matches = 0
        for name, label in rows:
            for image in by_name.get(name, ()):
                labels[image][names.get(label, label)] = None
            if name in by_name:
                matches += 1
            else:
                strays.append(name)
        if matches and strays:
            reason = f"{len(strays):,} of its {len(rows):,} lines name no image of the folder"
            problems.append(Skipped(table.name, str(table), f"{reason} (first: {strays[0]})"))
    return LabelTables(
        {path: next(iter(names)) for path, names in labels.items() if len(names) == 1},
        {
            path: f"several labels in the tables: {', '.join(names)}"
            for path, names in labels.items()
            if len(names) > 1
        },
        tuple(problems),
    )


def _rows(table: Path) -> Iterator[tuple[str, str]]:
    """(file, label) of every line that has both."""
    text = read_regular(table, _MAX_TABLE_BYTES).decode("utf-8-sig", "surrogateescape")
    for line in text.splitlines():
        fields = _SEPARATORS.split(line.strip())
        if len(fields) > 1 and fields[1]:
            yield fields[0].replace("\\", "/").removeprefix("./"), escape(fields[1])


def _class_names(table: Path, files: Sequence[Path]) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in files:
        if path.parent == table.parent and re.fullmatch(r".*classmap.*\.csv", path.name.lower()):
            text = read_regular(path, _MAX_TABLE_BYTES).decode("utf-8-sig", "backslashreplace")
            rows = csv.reader(text.splitlines())
            names |= {row[0].strip(): row[1].strip() for row in rows if len(row) > 1 and row[1]}
    return names
