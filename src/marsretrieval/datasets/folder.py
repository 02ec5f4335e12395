"""Images in a folder: at any depth, one subfolder per class, or listed in a table."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.datasets.base import (
    Record,
    RepeatedKey,
    Shard,
    Skipped,
    escape,
    skip_unless_utf8,
)
from marsretrieval.datasets.images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets.listing import (
    files_below,
    files_fingerprint,
    is_side_file,
    read_regular,
    regular_size,
)
from marsretrieval.datasets.sidecar import (
    MAX_ANNOTATION_BYTES,
    METADATA_NAMES,
    Annotation,
    Metadata,
    Problem,
    class_from_folders,
    locate_image,
    parse_annotation,
)
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.datasets.position_fields import Position

_MAX_TABLE_BYTES = 2**28
_FILES_PER_SHARD = 512
_SEPARATORS = re.compile(r"[\s,;]+")


@dataclass(frozen=True, slots=True)
class LabelTables:
    """Labels from the label tables of a folder.

    Attributes:
        labels: Path of an image to its label.
        conflicts: Path of an image with several labels to a message that lists them.
        problems: Tables that cannot be read, or have lines that match no image.
    """

    labels: Mapping[Path, str] = field(default_factory=dict)
    conflicts: Mapping[Path, str] = field(default_factory=dict)
    problems: tuple[Skipped, ...] = ()


def read_label_tables(root: Path, files: Sequence[Path], images: Sequence[Path]) -> LabelTables:
    """Read ``labels*.txt`` (lines of FILE LABEL), as in the HiRISE v3 dataset.

    Numbers become names if a ``*classmap*.csv`` (lines of NUMBER,NAME) is in the same folder.
    Tables that match no image are ignored.

    Args:
        root: Folder of the dataset. Lines name files relative to it, or by their last part.
        files: All files of the folder.
        images: Those of `files` that are images.

    Returns:
        The labels and problems of the tables.
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
            rows = list(_read_label_lines(table))
        except ValueError as error:
            problems.append(Skipped(table.name, str(table), str(error)))
            continue
        names = _read_class_names(table, files)
        unmatched = []
        match_count = 0
        for name, label in rows:
            for image in by_name.get(name, ()):
                labels[image][names.get(label, label)] = None
            if name in by_name:
                match_count += 1
            else:
                unmatched.append(name)
        if match_count and unmatched:
            lines = pluralize(len(rows), "line")
            reason = f"{len(unmatched):,} of its {lines} do not match an image in the folder"
            problems.append(Skipped(table.name, str(table), f"{reason} (first: {unmatched[0]})"))
    return LabelTables(
        {path: next(iter(names)) for path, names in labels.items() if len(names) == 1},
        {
            path: f"several labels in the tables: {', '.join(names)}"
            for path, names in labels.items()
            if len(names) > 1
        },
        tuple(problems),
    )


@dataclass(frozen=True)
class FolderSource:
    """All images below a folder, sorted by path. The id is the path without its extension.

    The label is, in this order: the one in a metadata file; in a ``labels*.txt`` table (see
    `read_label_tables`); with `class_folders`, the name of the first folder below `root` that is
    not a split (train, test, val ...); the one in the JSON file beside the image. A .json or .txt
    file beside an image annotates it, as in a WebDataset, where its row in a metadata file does
    not. A world file beside it gives its position.

    Attributes:
        name: The path as the user gave it.
        root: The folder.
        by_class: The subfolders of `root` are classes; sets `kind`.
        files: Images and unknown files below `root`, and the missing ones that a metadata file
            names.
        duplicates: Images whose id an earlier file already has.
        class_folders: Use folder names as labels.
        tables: Labels from label tables.
        metadata: Annotations from metadata files, or from a table of pairs.
        is_table: The images are those of a table of pairs; sets `kind`.
    """

    name: str
    root: Path
    by_class: bool = False
    files: tuple[Path, ...] = field(default=(), repr=False)
    duplicates: frozenset[Path] = field(default=frozenset(), repr=False)
    class_folders: bool = False
    tables: LabelTables = field(default=LabelTables(), repr=False)
    metadata: Metadata = field(default=Metadata(), repr=False)
    is_table: bool = False

    @classmethod
    def from_folder(cls, root: str | Path, *, by_class: bool, class_folders: bool) -> FolderSource:
        """List a folder and read its metadata files and label tables.

        Args:
            root: Folder of the images.
            by_class: The subfolders of `root` are classes.
            class_folders: Use folder names as labels, unless there is a metadata file.

        Returns:
            The source, which may have no images.

        Raises:
            DataError: If a folder cannot be listed, or a metadata file is invalid.
        """
        root = Path(root)
        all_files = files_below(root)
        metadata = Metadata()
        if any(path.name in METADATA_NAMES for path in all_files):
            from marsretrieval.datasets.metadata import read_metadata

            metadata = read_metadata(root, all_files)
        not_images = frozenset(metadata.files)
        files = [path for path in all_files if not (is_side_file(path) or path in not_images)]
        images = [path for path in files if path.suffix.lower() in EXTENSIONS]
        tables = read_label_tables(root, all_files, images)
        if metadata.files:
            files = sorted({*files, *metadata.annotations})
            by_class = class_folders = False
        return cls(
            escape(str(root)),
            root,
            by_class,
            tuple(files),
            _repeated_keys(images),
            class_folders,
            tables,
            metadata,
        )

    @classmethod
    def from_pairs(cls, path: str | Path) -> FolderSource:
        """Read a table of image paths and captions, as open_clip reads it for training.

        Args:
            path: The table (see `read_pairs`).

        Returns:
            The images of the table. Ids are relative to its folder, or, if an image lies outside,
            to the folder that all images share.

        Raises:
            DataError: If the table is invalid.
        """
        from marsretrieval.datasets.metadata import read_pairs

        path = Path(path)
        root, metadata = read_pairs(path)
        files = sorted(metadata.annotations)
        present = [file for file in files if file.suffix.lower() in EXTENSIONS and file.exists()]
        return cls(
            escape(str(path)),
            root,
            files=tuple(files),
            duplicates=_repeated_keys(present),
            metadata=metadata,
            is_table=True,
        )

    @property
    def kind(self) -> str:
        """`csv` for a table of pairs, `classes` if subfolders are classes, else `folder`."""
        return "csv" if self.is_table else "classes" if self.by_class else "folder"

    def shards(self) -> Sequence[Shard]:
        """List shards of up to 512 files."""
        return [
            Shard(
                f"{start // _FILES_PER_SHARD:06d}",
                files_fingerprint(part, root=self.root),
                len(part),
            )
            for start in range(0, len(self.files), _FILES_PER_SHARD)
            for part in [self.files[start : start + _FILES_PER_SHARD]]
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the items of a shard in the order of their paths.

        Args:
            shard: One of `shards()`.
            images: Read the encoded images. If False, `data` is empty, and the last shard also
                yields the problems of the label tables.

        Yields:
            A Record per image, or a Skipped.

        Raises:
            DataError: If the disk or server does not respond.
        """
        start = int(shard.name) * _FILES_PER_SHARD
        for path in self.files[start : start + _FILES_PER_SHARD]:
            yield skip_unless_utf8(self._read_item(path, images=images))
        if not images and start + _FILES_PER_SHARD >= len(self.files):
            yield from map(skip_unless_utf8, self.tables.problems)

    def _read_item(self, path: Path, *, images: bool) -> Record | Skipped:
        relative_path = path.relative_to(self.root)
        key = relative_path.with_suffix("").as_posix()
        source = escape(str(path))
        row = self.metadata.sources.get(path)
        named_by = f" (named by {row})" if row else ""
        if path.suffix.lower() not in EXTENSIONS:
            reason = f"not an image by its extension '{path.suffix}'{named_by}"
            return Skipped(key, source, reason)
        if path in self.duplicates:
            return RepeatedKey(key, source, "the same key has an image of another format")
        try:
            if images:
                data = read_regular(path, MAX_BYTES)
            else:
                regular_size(path, MAX_BYTES)
                data = b""
        except ValueError as error:
            return Skipped(key, source, f"{error}{named_by}")
        annotation = self._annotation(path)
        if path in self.tables.conflicts:
            conflict: Problem = ("annotation", self.tables.conflicts[path])
            annotation = replace(annotation, problems=(*annotation.problems, conflict))
        location, annotation = locate_image(
            path.stem, annotation, lambda: _read_position(path, data) if images else None
        )
        return Record(
            id=key,
            data=data,
            source=source,
            caption=annotation.caption,
            original_caption=annotation.original_caption,
            label=self._label(path, relative_path.parts[:-1], annotation),
            lon=location.lon,
            lat=location.lat,
            width_deg=location.width_deg,
            height_deg=location.height_deg,
            valid=annotation.valid,
            warnings=annotation.warnings(key, source),
        )

    def _annotation(self, path: Path) -> Annotation:
        sidecar = _read_annotation(path)
        if not self.metadata.files:
            return sidecar
        row = self.metadata.annotations.get(path)
        if row is None:
            problem: Problem = ("annotation", "no row of a metadata file names it")
            return replace(sidecar, problems=(*sidecar.problems, problem))
        return row.with_fallback(sidecar)

    def _label(self, path: Path, folders: Sequence[str], annotation: Annotation) -> str | None:
        row = self.metadata.annotations.get(path)
        if row is not None and row.label is not None:
            return row.label
        if path in self.tables.conflicts:
            return None
        folder = class_from_folders(folders) if self.class_folders else None
        return self.tables.labels.get(path) or folder or annotation.label


def _repeated_keys(images: Sequence[Path]) -> frozenset[Path]:
    """Return the images that differ from an earlier one only by their extension."""
    first: dict[Path, Path] = {}
    for path in images:
        first.setdefault(path.with_suffix(""), path)
    return frozenset(path for path in images if first[path.with_suffix("")] != path)


def _read_label_lines(table: Path) -> Iterator[tuple[str, str]]:
    """Yield (file, label) of each line that has both."""
    text = read_regular(table, _MAX_TABLE_BYTES).decode("utf-8-sig", "surrogateescape")
    for line in text.splitlines():
        fields = _SEPARATORS.split(line.strip())
        if len(fields) > 1 and fields[1]:
            yield fields[0].replace("\\", "/").removeprefix("./"), escape(fields[1])


def _read_class_names(table: Path, files: Sequence[Path]) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in files:
        if path.parent == table.parent and re.fullmatch(r".*classmap.*\.csv", path.name.lower()):
            text = read_regular(path, _MAX_TABLE_BYTES).decode("utf-8-sig", "backslashreplace")
            rows = csv.reader(text.splitlines())
            names |= {row[0].strip(): row[1].strip() for row in rows if len(row) > 1 and row[1]}
    return names


def _read_annotation(path: Path) -> Annotation:
    try:
        return parse_annotation(_read_sibling(path, ".json"), _read_sibling(path, ".txt"))
    except ValueError as error:
        reason = f"its annotation cannot be read ({error})"
        return Annotation(problems=(("annotation", reason),))


def _read_position(path: Path, data: bytes) -> Position | None:
    """Read the georeference of an image, or the world file beside it. Raises ValueError."""
    from marsretrieval.datasets.georeference import (
        read_georeference,
        read_world_file,
        world_file_suffixes,
    )

    position = read_georeference(data)
    if position is not None:
        return position
    for suffix in world_file_suffixes(path.suffix):
        text = _read_sibling(path, suffix)
        if text is not None:
            return read_world_file(text, data, _read_sibling(path, ".prj"))
    return None


def _read_sibling(path: Path, suffix: str) -> bytes | None:
    """Read the file beside an image; None if there is none. Raises ValueError, DataError."""
    for name in (suffix, suffix.upper()):
        sibling = path.with_suffix(name)
        if sibling.is_file():
            return read_regular(sibling, MAX_ANNOTATION_BYTES)
    return None
