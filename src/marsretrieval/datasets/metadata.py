"""Metadata files that annotate the images of a folder.

Two conventions are read: ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet`` of Hugging
Face's ImageFolder, and the tables of image paths and captions that open_clip trains on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from os.path import commonpath, normpath
from pathlib import Path
from typing import Any

from marsretrieval.datasets.base import escape
from marsretrieval.datasets.listing import read_regular, resolve_inside
from marsretrieval.datasets.sidecar import (
    CAPTION_ALIAS,
    CAPTION_FIELDS,
    METADATA_NAMES,
    Annotation,
    Metadata,
    annotation_from_fields,
)
from marsretrieval.errors import DataError
from marsretrieval.io import parse_json

_IMAGE_COLUMNS = ("file_name", "image_file_name")
# Defaults of --csv-img-key and --csv-caption-key of open_clip.
_PAIR_IMAGE, _PAIR_CAPTION = "filepath", "title"
_MAX_BYTES = 2**30
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_COLUMN_REMEDY = (
    "Add a column 'file_name' with the path of each image relative to this file, or rename the "
    "file if it does not annotate the images."
)

_Row = tuple[str, Any, Annotation]  # name of the row in messages, path of the image, annotation


def is_table_of_images(path: Path) -> bool:
    """Check that a Parquet file holds images and is not the metadata of an image folder.

    Args:
        path: A file ``metadata.parquet``.

    Returns:
        False if it has a column of file names or none of images, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return False  # the error is reported when it is read
    return "image" in names and "file_name" not in names


def read_metadata(root: Path, files: Sequence[Path]) -> Metadata:
    """Read the metadata files of an image folder and its subfolders.

    Args:
        root: Folder of the dataset.
        files: All files below `root`.

    Returns:
        The annotations; empty without metadata files.

    Raises:
        DataError: If a folder has several metadata files; or a file cannot be read, has no column
            of file names, names an image outside its folder, or an image is named twice.
    """
    paths = [path for path in files if path.name in METADATA_NAMES]
    for first, second in itertools.pairwise(paths):
        if first.parent == second.parent:
            raise DataError(
                f"{escape(str(first.parent))}: holds both {first.name} and {second.name}",
                remedy="Keep one of them.",
            )
    top = Path(normpath(root.absolute()))

    def locate(path: Path, name: str) -> Path:
        return root / resolve_inside(path.parent, name).relative_to(top)

    annotations: dict[Path, Annotation] = {}
    sources: dict[Path, str] = {}
    for path in paths:
        for label, name, annotation in _iter_rows(path):
            place = f"{escape(str(path))}: {label}"
            try:
                image = locate(path, _parse_name(name))
            except ValueError as error:
                raise DataError(
                    f"{place}: {error}", remedy="Use paths relative to the metadata file."
                ) from error
            _add(annotations, sources, image, place, annotation)
    return Metadata(tuple(paths), annotations, sources)


def read_pairs(path: Path) -> tuple[Path, Metadata]:
    """Read a table of image paths and captions, as open_clip reads it for training.

    Args:
        path: Table with the columns `filepath` and `title`, separated by tabs or commas. Paths are
            relative to its folder, or absolute. Other columns are read as in a metadata file.

    Returns:
        The folder that contains all images, and their annotations.

    Raises:
        DataError: If the file cannot be read, lacks a column, names an image twice, or a relative
            path leads out of its folder.
    """
    annotations: dict[Path, Annotation] = {}
    sources: dict[Path, str] = {}
    for label, name, annotation in _iter_pairs(path):
        place = f"{escape(str(path))}: {label}"
        try:
            text = _parse_name(name)
            is_absolute = Path(text).is_absolute()
            image = Path(normpath(text)) if is_absolute else resolve_inside(path.parent, text)
        except ValueError as error:
            raise DataError(
                f"{place}: {error}",
                remedy="Use paths relative to the folder of the table, or absolute paths.",
            ) from error
        _add(annotations, sources, image, place, annotation)
    folder = Path(normpath(path.parent.absolute()))
    if not all(image.is_relative_to(folder) for image in annotations):
        return Path(commonpath([image.parent for image in annotations])), Metadata(
            (path,), annotations, sources
        )
    relative = {image: path.parent / image.relative_to(folder) for image in annotations}
    return path.parent, Metadata(
        (path,),
        {relative[image]: annotation for image, annotation in annotations.items()},
        {relative[image]: place for image, place in sources.items()},
    )


def _add(
    annotations: dict[Path, Annotation],
    sources: dict[Path, str],
    image: Path,
    place: str,
    annotation: Annotation,
) -> None:
    if image in annotations:
        raise DataError(
            f"{place}: names {escape(image.name)} again (first: {sources[image]})",
            remedy="Keep one row per image.",
        )
    problems = tuple((kind, f"{place}: {reason}") for kind, reason in annotation.problems)
    annotations[image] = replace(annotation, problems=problems)
    sources[image] = place


def _parse_name(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise ValueError("the path of its image is not UTF-8") from error
    if value is None or value == "":
        raise ValueError("the path of its image is missing")
    if not isinstance(value, str):
        raise ValueError(f"the path of its image should be text, not {value!r:.60}")
    if "\0" in value:
        raise ValueError("the path of its image holds a NUL character")
    return value


def _iter_rows(path: Path) -> Iterator[_Row]:
    """Yield the rows of a metadata file. Raises DataError."""
    if path.suffix == ".parquet":
        yield from _iter_parquet(path)
        return
    if path.suffix == ".jsonl":
        rows = _iter_json(path)
    else:
        rows = _iter_text(path, _COLUMN_REMEDY, *_IMAGE_COLUMNS)
    for label, fields in rows:
        name = _image_column(path, list(fields), label)
        yield label, fields[name], _parse_fields(fields)


def _iter_pairs(path: Path) -> Iterator[_Row]:
    remedy = (
        f"A table of pairs has the columns '{_PAIR_IMAGE}' and '{_PAIR_CAPTION}', as open_clip "
        "names them. To read a metadata file, name its folder."
    )
    for label, fields in _iter_text(path, remedy, _PAIR_IMAGE):
        if _PAIR_CAPTION not in fields:
            raise DataError(
                f"{escape(str(path))}: no column '{_PAIR_CAPTION}' (columns: {', '.join(fields)})",
                remedy=remedy,
            )
        annotation = _parse_fields({**fields, "caption": fields[_PAIR_CAPTION]})
        yield label, fields[_PAIR_IMAGE], annotation


def _image_column(path: Path, names: Sequence[str], label: str | None = None) -> str:
    """Return the column that names the images. Raises DataError unless there is exactly one."""
    present = [name for name in _IMAGE_COLUMNS if name in names]
    if len(present) == 1:
        return present[0]
    place = escape(str(path)) + (f": {label}" if label else "")
    if present:
        raise DataError(
            f"{place}: both {' and '.join(present)}", remedy="Keep one column of file names."
        )
    columns = ", ".join(map(escape, names)) or "none"
    raise DataError(f"{place}: no column 'file_name' (columns: {columns})", remedy=_COLUMN_REMEDY)


def _iter_text(path: Path, remedy: str, *required: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and values of each row of a text table; empty values are missing."""
    from marsretrieval.datasets.tables import parse_number, read_table

    _read_utf8(path)
    table = read_table(path)
    if table.notes:
        raise DataError(
            escape(table.notes[0]), remedy="Remove these lines, or quote values with the delimiter."
        )
    names = [name.strip() for name in table.header]
    if not set(required) & {*names}:
        raise DataError(
            f"{escape(str(path))}: no column '{required[0]}' (columns: {table.columns()})",
            remedy=remedy,
        )
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(
            f"{escape(str(path))}: the column '{escape(repeated)}' appears twice",
            remedy="Rename or remove one.",
        )
    if not table.rows:
        raise DataError(
            f"{escape(str(path))}: has no rows", remedy="Add a row per image, or remove the file."
        )
    for label, values in zip(table.labels, table.rows, strict=True):
        fields: dict[str, Any] = dict(zip(names, values, strict=True))
        for name, value in fields.items():
            if not value.strip() and name not in (*CAPTION_FIELDS, CAPTION_ALIAS, _PAIR_CAPTION):
                fields[name] = None
        if fields.get("valid") is not None:
            with suppress(ValueError):  # reported as a problem of the annotation
                fields["valid"] = parse_number(fields["valid"])
        yield label, fields


def _iter_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and values of each line of a JSON Lines file."""
    remedy = 'Write one object per line: {"file_name": "0.png", "text": "a dune"}.'
    is_empty = True
    for number, line in enumerate(_read_utf8(path).split("\n"), 1):
        if not line.strip():
            continue
        is_empty = False
        place = f"{escape(str(path))}: line {number}"
        try:
            value = parse_json(line, source=place, strict=False)
        except DataError as error:
            raise DataError(error.message, remedy=remedy) from error
        if not isinstance(value, dict):
            raise DataError(f"{place}: a {type(value).__name__}, not an object", remedy=remedy)
        yield f"line {number}", value
    if is_empty:
        raise DataError(f"{escape(str(path))}: has no rows", remedy=remedy)


def _iter_parquet(path: Path) -> Iterator[_Row]:
    """Yield the rows of a Parquet file, read as those of a Parquet dataset."""
    import pyarrow as pa

    from marsretrieval.datasets.parquet import ImageColumns, iter_rows, open_parquet

    file = open_parquet(path)
    name = _image_column(path, file.schema_arrow.names)
    columns = ImageColumns.from_schema(path, file.schema_arrow, image=name)
    row = 0
    try:
        for batch in file.iter_batches(columns=list(columns.names)):
            for fields in iter_rows(batch):
                yield f"row {row}", fields[name], _flag_blank(columns.to_annotation(fields), fields)
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{escape(str(path))}: cannot be read after row {row} ({error})",
            remedy="Fetch or write it again.",
        ) from error
    if not row:
        raise DataError(f"{escape(str(path))}: has no rows", remedy="Add a row per image.")


def _parse_fields(fields: Mapping[str, Any]) -> Annotation:
    """Parse a row; `text` is the caption of a row without fields of captions."""
    values = dict(fields)
    if not set(CAPTION_FIELDS) & values.keys():
        values["caption"] = values.get(CAPTION_ALIAS)
    return _flag_blank(annotation_from_fields(values), fields)


def _flag_blank(annotation: Annotation, fields: Mapping[str, Any]) -> Annotation:
    """Add a problem if an image has no caption because its row has a blank one."""
    names = (*CAPTION_FIELDS, CAPTION_ALIAS)
    blank = [name for name in names if isinstance(fields.get(name), str | bytes)]
    if annotation.caption is None and blank and not annotation.problems:
        problem = ("annotation", "its caption is empty")
        return replace(annotation, problems=(problem,))  # type: ignore[arg-type]
    return annotation


def _read_utf8(path: Path) -> str:
    """Read a text file. Raises DataError with the line of the first byte that is not UTF-8."""
    try:
        data = read_regular(path, _MAX_BYTES)
    except ValueError as error:
        raise DataError(
            f"{escape(str(path))}: {error}", remedy="Name a readable text file."
        ) from error
    encoding = "utf-16" if data.startswith(_UTF_16_MARKS) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{escape(str(path))}: line {line} is not UTF-8 ({error.reason})",
            remedy="Save the file as UTF-8.",
        ) from error
