"""JSON files of a store: the manifest of the store and one entry per finished shard."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required, Self

from marsretrieval.datasets.base import ItemWarning, Skipped
from marsretrieval.errors import DataError, StoreError
from marsretrieval.io import (
    Constraint,
    JsonObject,
    from_json,
    is_damage,
    read_json,
    sha256_json,
    write_json,
)
from marsretrieval.text import confined

if TYPE_CHECKING:
    from marsretrieval.encoders import LoadOptions, ModelSpec

SCHEMA_VERSION = 1

Kind = Literal["image", "text"]
Dtype = Literal["float16", "float32"]

_SEARCH_DEPTH, _MAX_LISTED = 3, 3

_Count = Annotated[int, Constraint(ge=0, le=2**50)]

_REBUILD = "Run the command that created it again: only missing or damaged parts are computed."
_REPLACE = (
    "Restore it, or create the whole store again: run the command that created it with --force."
)


def manifest_path(store: Path) -> Path:
    """Return the path of a store's manifest.

    Args:
        store: Folder of the store.

    Returns:
        Path of manifest.json.
    """
    return store / "manifest.json"


def shards_folder(store: Path) -> Path:
    """Return the folder of a store's shards.

    Args:
        store: Folder of the store.

    Returns:
        Path of the subfolder.
    """
    return store / "shards"


def vectors_path(store: Path, shard: str) -> Path:
    """Return the path of a shard's Arrow file.

    Args:
        store: Folder of the store.
        shard: Name of the shard.

    Returns:
        Path of the file.

    Raises:
        StoreError: If the name leads out of the store.
    """
    return _shard_path(store, shard, ".arrow")


def entry_path(store: Path, shard: str) -> Path:
    """Return the path of a shard's entry.

    Args:
        store: Folder of the store.
        shard: Name of the shard.

    Returns:
        Path of the JSON file.

    Raises:
        StoreError: If the name leads out of the store.
    """
    return _shard_path(store, shard, ".json")


def _shard_path(store: Path, shard: str, suffix: str) -> Path:
    try:
        return confined(shards_folder(store), f"{shard}{suffix}", nested=False, source=store)
    except DataError as error:
        raise StoreError(error.message, remedy=error.remedy) from error


def require_own_shards(store: Path) -> None:
    """Raise if the folder of shards is a symbolic link, so that no file behind it is removed.

    Args:
        store: Folder of the store.

    Raises:
        StoreError: If the folder is a link.
    """
    folder = shards_folder(store)
    if folder.is_symlink():
        raise StoreError(
            f"{folder}: a link to {folder.resolve()}; files there are not removed",
            remedy="Move that folder into the store, or link to the whole store instead.",
        )


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Model name and load options of a store, enough to load the model again for queries.

    Attributes:
        model: Id in the registry, or module:Class.
        revision: Commit of the repository, which pins its weights.
        checkpoint: Absolute path of local weights.
        dtype: Precision of the weights.
        prompts: Name of the prompt preset.
        stamp: Hash of the names, sizes and times of the checkpoint files, which pins them.
    """

    model: str
    revision: str | None = None
    checkpoint: str | None = None
    dtype: str = "auto"
    prompts: str = "paper"
    stamp: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether equal requests mean equal weights.

        False for a user's class, whose code may change.
        """
        return self.revision is not None or self.stamp is not None

    @classmethod
    def from_spec(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """Describe how a model is loaded.

        Args:
            spec: The model.
            options: The load options.

        Returns:
            The request.
        """
        checkpoint = options.checkpoint
        return cls(
            model=spec.id,
            revision=spec.revision,
            checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
            dtype=options.dtype,
            prompts=options.prompts,
            stamp=None if checkpoint is None else _stamp(checkpoint),
        )


class DatasetIdentity(JsonObject, total=False):
    """Identity of the dataset that a store was made from."""

    name: Required[str]
    kind: Required[str]
    fingerprint: Required[str]  # of all planned shards
    derived: dict[str, Any]  # of a merged store or a subset: the operation and its sources


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content and encoder of a store. Does not record which shards are finished.

    Attributes:
        kind: Whether the rows are images or texts.
        encoder: Fingerprint of the encoder. Equal fingerprints give equal vectors.
        dataset: Identity of the dataset.
        dimension: Vector dimension.
        dtype: Vector dtype.
        shards: Names of all planned shards.
        request: Model name and load options. None if unknown.
        role: Role that texts were embedded with.
        created: ISO 8601 time, UTC.
        schema_version: Version of the store format.
    """

    kind: Kind
    encoder: Mapping[str, Any]
    dataset: DatasetIdentity
    dimension: Annotated[int, Constraint(gt=0, le=2**20)]
    dtype: Dtype
    shards: tuple[str, ...]
    request: ModelRequest | None = None
    role: str | None = None
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def made_by(self) -> str:
        """Hash of what all shards of the store share.

        An entry with another hash belongs to a store that was in the same folder before.
        """
        return sha256_json([self.kind, self.encoder, self.dimension, self.dtype, self.role])


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished shard. A shard without an entry counts as not embedded.

    Attributes:
        shard: Name of the shard.
        fingerprint: Fingerprint of the shard of the source.
        made_by: `Manifest.made_by` of the store.
        rows: Number of rows.
        bytes: Size of the Arrow file.
        sha256: Hash of the Arrow file.
        skipped: Items without a vector.
        seconds: Seconds by stage.
        warnings: Parts of annotations that were ignored.
    """

    shard: str
    fingerprint: str
    made_by: str
    rows: _Count = 0
    bytes: _Count = 0
    sha256: str = ""
    skipped: tuple[Skipped, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[ItemWarning, ...] = ()

    def fits(self, manifest: Manifest) -> bool:
        """Check whether the entry belongs to a store.

        Args:
            manifest: Manifest of the store.

        Returns:
            Whether the store made it.
        """
        return self.made_by == manifest.made_by


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Write the manifest of a store, with the present time unless it has one.

    Args:
        store: Folder of the store.
        manifest: The manifest.

    Raises:
        OutputError: If it cannot be written.
    """
    value = asdict(manifest)
    value["created"] = manifest.created or datetime.datetime.now(datetime.UTC).isoformat(
        timespec="seconds"
    )
    write_json(manifest_path(store), value)


def _stores_below(folder: Path) -> list[Path]:
    """List stores up to three folders below, where `run` puts those of its results."""
    stores = [
        path.parent
        for depth in range(1, _SEARCH_DEPTH + 1)
        for path in folder.glob("*/" * depth + "manifest.json")
        if shards_folder(path.parent).is_dir()
    ]
    return sorted(stores)


def read_manifest(store: Path) -> Manifest:
    """Read and validate the manifest of a store.

    Args:
        store: Folder of the store.

    Returns:
        The manifest.

    Raises:
        StoreError: If it is missing, damaged or of another store format.
    """
    path = manifest_path(store)
    if not path.is_file():
        problem = (
            "no such folder" if not store.exists() else "no embedding store (no manifest.json)"
        )
        nested_stores = _stores_below(store)
        remedy = "Make one: marsretrieval embed -m MODEL --images DIR --store DIR"
        if nested_stores:
            listed = ", ".join(str(folder) for folder in nested_stores[:_MAX_LISTED])
            remedy = f"Stores in its subfolders: {listed}"
        raise StoreError(f"{store}: {problem}", remedy=remedy)
    value = _read(path, remedy=_REPLACE)
    version = value.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written in store format {version}, this version reads {SCHEMA_VERSION}",
            remedy="Use the version of marsretrieval that created it, or create it again with "
            "--force.",
        )
    try:
        manifest = from_json(Manifest, value, source=path)
        for shard in manifest.shards:
            confined(shards_folder(store), f"{shard}.arrow", nested=False, source=path)
        if len(set(manifest.shards)) != len(manifest.shards):
            raise DataError(f"{path}: 'shards' lists a shard twice")
    except DataError as error:
        raise StoreError(error.message, remedy=error.remedy or _REPLACE) from error
    return manifest


def write_entry(store: Path, entry: Entry) -> None:
    """Write the entry of a finished shard.

    Args:
        store: Folder of the store.
        entry: The entry.

    Raises:
        OutputError: If it cannot be written.
    """
    value = asdict(entry)
    if not entry.warnings:  # so that versions without this key can read the entry
        del value["warnings"]
    write_json(entry_path(store, entry.shard), value)


def read_entry(store: Path, shard: str) -> Entry | None:
    """Read the entry of a shard.

    Args:
        store: Folder of the store.
        shard: Name of the shard.

    Returns:
        The entry. None if the shard is not finished.

    Raises:
        StoreError: If the entry is damaged or cannot be read.
    """
    path = entry_path(store, shard)
    try:
        if not path.exists():
            return None
    except OSError as error:
        raise read_error(path, error) from error
    value = _read(path, remedy=_REBUILD)
    entry = from_json(Entry, value, source=path, error=StoreError, remedy=_REBUILD)
    if entry.shard != shard:
        raise StoreError(f"{path}: belongs to another shard, {entry.shard[:80]}", remedy=_REBUILD)
    return entry


def finished_entry(store: Path, made_by: str, shard: str, fingerprint: str) -> Entry | None:
    """Return the entry of a shard if its vectors are up to date.

    Args:
        store: Folder of the store.
        made_by: `Manifest.made_by` of the store.
        shard: Name of the shard.
        fingerprint: Fingerprint of the shard of the source.

    Returns:
        The entry. None if the shard is missing, outdated or damaged and must be embedded.

    Raises:
        StoreError: If the files cannot be read because of the disk, permissions or a lack of file
            descriptors.
    """
    try:
        entry = read_entry(store, shard)
        size = vectors_path(store, shard).stat().st_size
    except (StoreError, OSError) as error:
        if is_damage(error):
            return None
        if isinstance(error, StoreError):
            raise
        raise read_error(vectors_path(store, shard), error) from error
    fits = (
        entry is not None
        and entry.made_by == made_by
        and entry.fingerprint == fingerprint
        and entry.bytes == size
    )
    return entry if fits else None


def _read(path: Path, *, remedy: str) -> dict[str, Any]:
    try:
        value = read_json(path)
    except DataError as error:
        if isinstance(error.__cause__, OSError) and not is_damage(error):
            raise read_error(path, error.__cause__) from error
        raise StoreError(error.message, remedy=remedy) from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: not a JSON object", remedy=remedy)
    return value


def read_error(path: Path, error: OSError) -> StoreError:
    """Return the error for a file that the operating system fails to read.

    Args:
        path: The file.
        error: The error of the operating system.

    Returns:
        The error to raise.
    """
    return StoreError(
        f"{path}: cannot be read ({error.strerror or error})",
        remedy="Check the disk, the permissions and the limits of this process (ulimit -n): the "
        "store itself is not damaged.",
    )


def differences(
    stored: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    prefix: str = "",
    sides: tuple[str, str] = ("in the store", "now"),
) -> list[str]:
    """Compare two nested mappings.

    Args:
        stored: Mapping in the store.
        current: Mapping to compare with.
        prefix: Path of the keys, for nested mappings.
        sides: Descriptions of the two mappings.

    Returns:
        One line per leaf that differs: ``key: A in the store, B now``.
    """
    lines: list[str] = []
    for key in sorted({*stored, *current}):
        old, new = stored.get(key), current.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, prefix=f"{prefix}{key}.", sides=sides)
        elif _tuples_to_lists(old) != _tuples_to_lists(new):
            values = f"{_shorten(old)} {sides[0]}, {_shorten(new)} {sides[1]}"
            lines.append(f"{prefix}{key}: {values}")
    return lines


def _stamp(checkpoint: Path) -> str:
    files = sorted(checkpoint.rglob("*")) if checkpoint.is_dir() else [checkpoint]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _tuples_to_lists(value: Any) -> Any:
    # JSON turns tuples into lists, which must not count as a difference.
    return [_tuples_to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:24]}...{text[-24:]}"
