"""Records of where datasets come from.

``download.json`` records the content, provenance and completeness of a download, ``planet.json``
the parameters, features and files of a synthetic planet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from marsretrieval import __version__
from marsretrieval.errors import DataError, UsageError
from marsretrieval.io import (
    Int64,
    JsonObject,
    from_json,
    make_folder,
    read_json,
    write_json,
)
from marsretrieval.text import confined

if TYPE_CHECKING:
    from marsretrieval.datasets.download.sources import Source

RECORD = "download.json"
PLANET_FILE = "planet.json"
CACHE = ".cache"  # hidden, so that readers skip it
_OWN_NAMES = (CACHE, "tiles")  # tiles may be cut before the rest is downloaded
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class FileRecord:
    """File and its checksum.

    Attributes:
        path: Path relative to the folder of the dataset.
        size: Size in bytes.
        sha256: Checksum.
        content: Hash of the content of a tar.
        rows: Number of rows in a tar.
    """

    path: str
    size: Int64
    sha256: str
    content: str | None = None
    rows: Int64 | None = None


class DownloadCounts(JsonObject, total=False):
    """Numbers of items in a download; further keys are possible."""

    rows: Int64 | None


@dataclass(frozen=True, slots=True)
class DownloadRecord:
    """Content of ``download.json``.

    Attributes:
        schema_version: Version of the format.
        dataset: Name of the dataset.
        repository: Repository on the hub.
        revision: Commit.
        variant: Name of the variant, if the dataset has several.
        complete: Whether the download has finished.
        created: Time of the download (ISO 8601, UTC).
        licence: Licence of the data.
        marsretrieval: Version of this package.
        counts: Numbers of items.
        parameters: How linked images were processed.
        missing: Keys of the pairs without an image.
        table: Files of the table of links, in the hidden folder.
        files: Files of the dataset.
        begun: Files of downloads that did not finish.
    """

    schema_version: int
    dataset: str
    repository: str
    revision: str
    variant: str | None
    complete: bool
    created: str
    licence: str = ""
    marsretrieval: str = ""
    counts: DownloadCounts = field(default_factory=DownloadCounts)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    table: tuple[FileRecord, ...] = ()
    files: tuple[FileRecord, ...] = ()
    begun: tuple[str, ...] = ()


def read_record(folder: str | Path) -> DownloadRecord | None:
    """Read the record of an earlier download.

    Args:
        folder: Folder of the dataset.

    Returns:
        The record, or None if there is none.

    Raises:
        DataError: If it is damaged, of another version, or names files outside of its folder.
    """
    folder = Path(folder)
    path = folder / RECORD
    if not path.exists():
        return None
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != _SCHEMA:
        raise DataError(
            f"{path}: not a download record of this version",
            remedy="Download into another folder, or delete this one.",
        )
    remedy = "Move the folder away and download again."
    record = from_json(DownloadRecord, value, source=path, remedy=remedy)
    if record.complete and not (record.files and record.counts):
        raise DataError(
            f"{path}: has no '{'counts' if record.files else 'files'}'",
            remedy=remedy,
        )
    # Files that the dataset no longer has are deleted by these names.
    for name in (*(file.path for file in record.files), *record.begun):
        confined(folder, name, source=path)
    for file in record.table:
        confined(folder / CACHE / "hub", file.path, source=path)
    return record


def check_folder(folder: Path, source: Source) -> DownloadRecord | None:
    """Check that a folder may receive a dataset.

    Args:
        folder: Folder of the dataset.
        source: The dataset.

    Returns:
        The record of an earlier download of the same dataset and variant, or None.

    Raises:
        UsageError: If the folder holds anything else, because two datasets must not mix.
    """
    record = read_record(folder)
    remedy = "Choose another folder with --out, or delete this one."
    if record is None:
        if folder.is_dir() and any(path.name not in _OWN_NAMES for path in folder.iterdir()):
            raise UsageError(f"{folder}: contains files from another source", remedy=remedy)
        return None
    if record.variant != source.variant and record.variant is not None:
        raise UsageError(
            f"{folder}: holds variant {record.variant}, not {source.variant}",
            remedy=f"Add --variant {record.variant}, or choose another folder with --out.",
        )
    if record.repository != source.repository:
        raise UsageError(
            f"{folder}: holds repository {record.repository}, not {source.repository}",
            remedy=remedy,
        )
    return record


def begin_record(folder: Path, source: Source, revision: str, files: Iterable[str]) -> None:
    """Record the names of the files before they are downloaded, with `complete` false.

    Args:
        folder: Folder of the dataset.
        source: The dataset.
        revision: Commit to download.
        files: Paths of the files.
    """
    make_folder(folder)
    earlier = read_record(folder) or _new_record(source, revision)
    begun = tuple(sorted({*earlier.begun, *files}))
    record = replace(earlier, revision=revision, complete=False, begun=begun)
    write_json(folder / RECORD, asdict(record))


def end_record(folder: Path, source: Source, revision: str, **fields: Any) -> None:
    """Record a finished download.

    If `files` equal those of an earlier record, its time is kept.

    Args:
        folder: Folder of the dataset.
        source: The dataset.
        revision: Downloaded commit.
        **fields: Other fields of the record.
    """
    record = replace(_new_record(source, revision), complete=True, **fields)
    earlier = read_record(folder)
    if earlier is not None and earlier.files == record.files:
        record = replace(record, created=earlier.created)
    write_json(folder / RECORD, asdict(record))


def _new_record(source: Source, revision: str) -> DownloadRecord:
    return DownloadRecord(
        schema_version=_SCHEMA,
        dataset=source.dataset,
        repository=source.repository,
        revision=revision,
        variant=source.variant,
        complete=False,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=source.licence,
        marsretrieval=__version__,
    )


class PlanetCounts(JsonObject):
    """Numbers of items of a planet."""

    pairs: Int64
    landform_images: Int64
    tiles: Int64
    features: Int64


class PlanetFile(JsonObject):
    """Size and checksum of a file."""

    bytes: Int64
    sha256: str


_Feature = TypedDict("_Feature", {"class": str, "lon": float, "lat": float, "size_km": float})


class PlanetRecord(JsonObject):
    """Content of ``planet.json``: parameters, features and files of a planet."""

    synthetic: bool
    statement: str
    generator: str
    version: Int64
    seed: Int64
    size: str
    counts: PlanetCounts
    classes: dict[str, Int64]
    quads: list[str]
    features: list[_Feature]
    files: dict[str, PlanetFile]


def find_planet(folder: str | Path) -> tuple[Path, PlanetRecord] | None:
    """Find the planet that a folder holds or belongs to.

    Args:
        folder: Folder of a planet or of one of its datasets, or any other folder.

    Returns:
        Path of ``planet.json`` and its content; None if there is no planet.

    Raises:
        DataError: If the file is damaged.
    """
    folder = Path(folder).absolute()  # the working directory has a parent too
    for out in (folder, folder.parent):
        if (out / PLANET_FILE).is_file():
            return out / PLANET_FILE, parse_planet(read_json(out / PLANET_FILE), out)
    return None


def parse_planet(value: object, out: Path) -> PlanetRecord:
    """Check the content of a planet's record.

    Args:
        value: Content of the file.
        out: Folder of the planet.

    Returns:
        The record.

    Raises:
        DataError: If a key is missing or invalid.
    """
    remedy = "Create the planet again with --force."
    return from_json(PlanetRecord, value, source=out / PLANET_FILE, remedy=remedy)
