"""WebDataset tars of tiles, each with a manifest, for quads of the mosaic and own rasters.

A tar is complete when its manifest exists: the manifest is written after the tar, and deleted
before the tar is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from marsretrieval.errors import DataError
from marsretrieval.io import (
    Int64,
    atomic_path,
    from_json,
    is_damage,
    read_json,
    sha256_file,
    write_json,
)
from marsretrieval.text import confined

if TYPE_CHECKING:
    from dataclasses import Field


class TileManifest(Protocol):
    """The fields that the manifests of all tars have."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def spec_hash(self) -> str:
        """Hash of the tile options."""

    @property
    def source_fingerprint(self) -> str:
        """Fingerprint of the file that the tiles were cut from."""

    @property
    def tar(self) -> str:
        """File name of the tar."""

    @property
    def tar_bytes(self) -> Int64:
        """Size of the tar."""


Manifest = TypeVar("Manifest", bound=TileManifest)


def read_tile_manifest(
    path: Path, manifest_type: type[Manifest], /, *, description: str, **constants: Any
) -> Manifest:
    """Read the manifest of a tar of tiles.

    Args:
        path: The JSON file.
        manifest_type: Class of the manifest.
        description: What the manifest describes, for the message.
        **constants: Keys that must have these values, such as the version.

    Returns:
        The manifest.

    Raises:
        DataError: If it is missing, damaged, of another version or of another kind.
    """
    value = read_json(path)
    if not isinstance(value, dict) or any(
        value.get(name) != constant for name, constant in constants.items()
    ):
        raise DataError(
            f"{path}: not a manifest of {description} of this version",
            remedy="Cut the tiles again with --force.",
        )
    manifest = from_json(manifest_type, value, source=path)
    confined(path.parent, manifest.tar, nested=False, source=path)
    return manifest


def finished_manifest(
    path: Path,
    read: Callable[[Path], Manifest],
    spec_hash: str,
    fingerprint: Callable[[], str] | None,
) -> Manifest | None:
    """Return the manifest of tiles that need not be cut again.

    Args:
        path: The JSON file.
        read: Reads the manifest.
        spec_hash: Hash of the tile options of the current run.
        fingerprint: Returns the fingerprint of the source; None to accept any.

    Returns:
        The manifest if it has the same options and fingerprint, and its tar the recorded size;
        else None.

    Raises:
        DataError: If a file cannot be read for a reason other than damage.
    """
    tar = path.with_suffix(".tar")
    try:
        manifest = read(path)
        tar = path.with_name(manifest.tar)
        up_to_date = (
            manifest.spec_hash == spec_hash
            and manifest.tar_bytes == tar.stat().st_size
            and (fingerprint is None or manifest.source_fingerprint == fingerprint())
        )
    except (DataError, OSError) as error:
        if is_damage(error):
            return None
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{tar}: cannot be read ({error.strerror or error})",
            remedy="Check the disk, the permissions and the limits of this process (ulimit -n).",
        ) from error
    return manifest if up_to_date else None


@dataclass(slots=True)
class TarRecord:
    """Name, size and checksum of a tar.

    Attributes:
        name: File name.
        bytes: Size.
        sha256: Checksum.
    """

    name: str
    bytes: int = 0
    sha256: str = ""


@contextmanager
def replace_tar(tar: Path) -> Iterator[tuple[Path, TarRecord]]:
    """Replace a tar atomically; its manifest is deleted just before.

    Args:
        tar: The tar; its manifest is the JSON file of the same name.

    Yields:
        Path to write the new tar to, and its record, which is complete after the block. If the
        block raises, the earlier tar and its manifest stay.
    """
    record = TarRecord(tar.name)
    with atomic_path(tar) as temporary:
        yield temporary, record
        record.bytes, record.sha256 = temporary.stat().st_size, sha256_file(temporary)
        tar.with_suffix(".json").unlink(missing_ok=True)


def write_tile_manifest(out: Path, manifest: TileManifest) -> None:
    """Write the manifest next to its tar.

    Args:
        out: Folder of the tar.
        manifest: The manifest.
    """
    write_json((out / manifest.tar).with_suffix(".json"), asdict(manifest))
