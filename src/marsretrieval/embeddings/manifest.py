"""The two kinds of JSON in a store: what it is (manifest), and what is finished (entries)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from marsretrieval.datasets import ItemWarning, Skipped
from marsretrieval.errors import DataError, StoreError
from marsretrieval.io import (
    Constraint,
    JsonObject,
    confined,
    from_json,
    is_damage,
    read_json,
    sha256_json,
    write_json,
)

if TYPE_CHECKING:
    from marsretrieval.encoders import LoadOptions, ModelSpec

SCHEMA_VERSION = 1

Kind = Literal["image", "text"]
Dtype = Literal["float16", "float32"]

_SEARCH_DEPTH, _MAX_LISTED = 3, 3

_Count = Annotated[int, Constraint(ge=0, le=2**50)]

_REBUILD = "Run the command that made it again: only what is missing or damaged is computed."
_REPLACE = "Restore it, or make the whole store anew: the command that made it, with --force."


def manifest_path(store: Path) -> Path:
    return store / "manifest.json"


def shards_folder(store: Path) -> Path:
    return store / "shards"


def vectors_path(store: Path, shard: str) -> Path:
    """Arrow file of a shard. Raises StoreError for a name that leads out of the store."""
    return _shard_path(store, shard, ".arrow")


def entry_path(store: Path, shard: str) -> Path:
    """Entry of a shard. Raises StoreError for a name that leads out of the store."""
    return _shard_path(store, shard, ".json")


def _shard_path(store: Path, shard: str, suffix: str) -> Path:
    try:
        return confined(shards_folder(store), f"{shard}{suffix}", nested=False, source=store)
    except DataError as error:
        raise StoreError(error.message, remedy=error.remedy) from error


def require_own_shards(store: Path) -> None:
    """Raise StoreError where the folder of shards is a link: nothing behind it may be removed."""
    folder = shards_folder(store)
    if folder.is_symlink():
        raise StoreError(
            f"{folder}: a link to {folder.resolve()}; files there are not removed",
            remedy="Move that folder into the store, or link to the whole store instead.",
        )


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """How a model was asked for: enough to load it again, for the queries of a search.

    `revision` and `stamp` pin the weights of a repository and of a local checkpoint.
    """

    model: str  # catalogue id, or module:Class
    revision: str | None = None
    checkpoint: str | None = None  # absolute path
    dtype: str = "auto"
    prompts: str = "paper"
    stamp: str | None = None

    @property
    def pinned(self) -> bool:
        """Do equal requests mean equal weights? Not for a user's class, whose code may change."""
        return self.revision is not None or self.stamp is not None

    @classmethod
    def from_spec(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        checkpoint = options.checkpoint
        return cls(
            model=spec.id,
            revision=spec.revision,
            checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
            dtype=options.dtype,
            prompts=options.prompts,
            stamp=None if checkpoint is None else _stamp(checkpoint),
        )


class DatasetIdentity(JsonObject):
    """Which dataset a store was made from."""

    name: str
    kind: str
    fingerprint: str  # of all planned shards


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store holds and who made it; says nothing of how much is finished.

    encoder: the fingerprint of the encoder: equal fingerprints, equal vectors.
    request: how the model was asked for (None: unknown, but for the fingerprint).
    role: for texts, what they were embedded as.
    """

    kind: Kind
    encoder: Mapping[str, Any]
    dataset: DatasetIdentity
    dimension: Annotated[int, Constraint(gt=0, le=2**20)]
    dtype: Dtype
    shards: tuple[str, ...]
    request: ModelRequest | None = None
    role: str | None = None
    created: str = ""  # ISO 8601, UTC
    schema_version: int = SCHEMA_VERSION

    @property
    def made_by(self) -> str:
        """What every shard of the store has in common; an entry with another one is of another
        store that was here before."""
        return sha256_json([self.kind, self.encoder, self.dimension, self.dtype, self.role])


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished shard. While it is not there, the shard counts as not embedded."""

    shard: str
    fingerprint: str  # of the source's shard
    made_by: str  # Manifest.made_by
    rows: _Count = 0
    bytes: _Count = 0
    sha256: str = ""  # of the Arrow file
    skipped: tuple[Skipped, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[ItemWarning, ...] = ()  # parts of annotations that were ignored

    def fits(self, manifest: Manifest) -> bool:
        return self.made_by == manifest.made_by


def write_manifest(store: Path, manifest: Manifest) -> None:
    value = asdict(manifest)
    value["created"] = manifest.created or datetime.datetime.now(datetime.UTC).isoformat(
        timespec="seconds"
    )
    write_json(manifest_path(store), value)


def _stores_below(folder: Path) -> list[Path]:
    """Stores up to three folders down, where `run` puts those of its results."""
    stores = [
        path.parent
        for depth in range(1, _SEARCH_DEPTH + 1)
        for path in folder.glob("*/" * depth + "manifest.json")
        if shards_folder(path.parent).is_dir()
    ]
    return sorted(stores)


def read_manifest(store: Path) -> Manifest:
    """Raises StoreError when `store` holds none, or one that this version cannot read."""
    path = manifest_path(store)
    if not path.is_file():
        problem = (
            "no such folder" if not store.exists() else "no embedding store (no manifest.json)"
        )
        nested_stores = _stores_below(store)
        remedy = "Make one: marsretrieval embed -m MODEL --images DIR --store DIR"
        if nested_stores:
            listed = ", ".join(str(folder) for folder in nested_stores[:_MAX_LISTED])
            remedy = f"There are some below it: {listed}"
        raise StoreError(f"{store}: {problem}", remedy=remedy)
    value = _read(path, remedy=_REPLACE)
    version = value.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written in store format {version}, this version reads {SCHEMA_VERSION}",
            remedy="Use the version of marsretrieval that made it, or make it anew with --force.",
        )
    try:
        manifest = from_json(Manifest, value, source=path)
        for shard in manifest.shards:
            confined(shards_folder(store), f"{shard}.arrow", nested=False, source=path)
        if len(set(manifest.shards)) != len(manifest.shards):
            raise DataError(f"{path}: 'shards' names a shard twice")
    except DataError as error:
        raise StoreError(error.message, remedy=error.remedy or _REPLACE) from error
    return manifest


def write_entry(store: Path, entry: Entry) -> None:
    value = asdict(entry)
    if not entry.warnings:  # versions before this key read the entry
        del value["warnings"]
    write_json(entry_path(store, entry.shard), value)


def read_entry(store: Path, shard: str) -> Entry | None:
    """None where the shard is not finished. Raises StoreError when its entry is damaged."""
    path = entry_path(store, shard)
    try:
        if not path.exists():
            return None
    except OSError as error:
        raise read_error(path, error) from error
    value = _read(path, remedy=_REBUILD)
    entry = from_json(Entry, value, source=path, error=StoreError, remedy=_REBUILD)
    if entry.shard != shard:
        raise StoreError(f"{path}: of another shard, {entry.shard[:80]}", remedy=_REBUILD)
    return entry


def finished_entry(store: Path, made_by: str, shard: str, fingerprint: str) -> Entry | None:
    """The entry of a shard whose vectors are there, by this maker and of this content; else None:
    missing, outdated and damaged ones are all to be embedded. Raises StoreError where the disk,
    the rights or a lack of descriptors keep it from being read."""
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
    """The error for a file that the disk or the rights keep from being read."""
    return StoreError(
        f"{path}: cannot be read ({error.strerror or error})",
        remedy="Check the disk, the rights and the limits of this process (ulimit -n): this is "
        "no damage of the store.",
    )


def differences(
    stored: Mapping[str, Any], current: Mapping[str, Any], *, prefix: str = ""
) -> list[str]:
    """One line for each leaf in which two nested mappings differ: ``name: a there, b here``."""
    lines: list[str] = []
    for key in sorted({*stored, *current}):
        old, new = stored.get(key), current.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, prefix=f"{prefix}{key}.")
        elif _tuples_to_lists(old) != _tuples_to_lists(new):
            lines.append(f"{prefix}{key}: {_shorten(old)} in the store, {_shorten(new)} now")
    return lines


def _stamp(checkpoint: Path) -> str:
    files = sorted(checkpoint.rglob("*")) if checkpoint.is_dir() else [checkpoint]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _tuples_to_lists(value: Any) -> Any:
    # JSON turns tuples into lists; that is no difference.
    return [_tuples_to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:24]}...{text[-24:]}"
