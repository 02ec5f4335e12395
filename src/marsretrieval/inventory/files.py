"""Files of an inventory: header, append-only log of marks, and audits."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from marsretrieval.errors import DataError, MarsRetrievalError, OutputError, UsageError, as_path
from marsretrieval.io import (
    Constraint,
    Int64,
    from_json,
    locked,
    parse_json,
    read_json,
    write_json,
)
from marsretrieval.text import is_safe_name, pluralize

SCHEMA = 1
SUFFIX = ".inventory"
HEADER, MARKS, AUDITS = "inventory.json", "marks.jsonl", "audits"

MarkValue = Literal["yes", "no", "unsure", "none"]
How = Literal["best", "exploring", "search", "audit", "direct"]
SlotKind = Literal["sample", "repeat", "check", "control", "elsewhere"]
MAX_COUNT = 2**62  # of landforms or tiles of one mark
_Count = Annotated[int, Constraint(ge=0, le=MAX_COUNT)]


class InventoryError(MarsRetrievalError):
    """An inventory is damaged, in use, or belongs to another store."""


class InventoryInUseError(InventoryError):
    """Another process, or another object of this one, is the writer of the inventory."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of the log of marks.

    Attributes:
        id: Tile id.
        mark: The answer; `none` takes an earlier one back.
        time: UTC time in ISO 8601.
        lon: Longitude of the tile's centre in degrees; None if unknown.
        lat: Latitude of the tile's centre in degrees; None if unknown.
        row: Row of the tile in the store when it was marked; a hint, checked on use.
        count: Landforms within the tile.
        tiles: Positive tiles of the place that the tile belongs to, itself included.
        note: Free text.
        how: Why the tile was shown: best unmarked, exploring, hit of a search, audit; or marked
            directly.
        search: Hash of the query vector that ranked it.
        rank: Its rank, from 1; for best and exploring, among the unmarked tiles.
        score: Its score.
        audit: Number of the audit that showed it.
        page: Page of the audit, from 1.
    """

    id: str
    mark: MarkValue
    time: str
    lon: float | None = None
    lat: float | None = None
    row: Int64 | None = None
    count: _Count | None = None
    tiles: _Count | None = None
    note: str | None = None
    how: How = "direct"
    search: str | None = None
    rank: _Count | None = None
    score: float | None = None
    audit: _Count | None = None
    page: _Count | None = None


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What identifies the store of an inventory.

    Attributes:
        path: Absolute path when the inventory was made.
        rows: Number of tiles.
        set_hash: Hash of ids and contents of all tiles.
        shards: Hash of the shards' checksums; if it is equal, the set hash is not recomputed.
        encoder: Fingerprint of the encoder.
    """

    path: str
    rows: _Count
    set_hash: str
    shards: str
    encoder: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InventoryHeader:
    """Contents of `inventory.json`.

    Attributes:
        schema: Version of the format.
        landform: What is looked for.
        texts: Texts of the query.
        store: The store.
        place_deg: Positive tiles closer than this belong to one place, in degrees.
        without_data: Tiles of the store without data, which are not part of the inventory.
        created: UTC time in ISO 8601.
        version: Version of marsretrieval.
    """

    schema: int
    landform: str
    texts: tuple[str, ...]
    store: StoreIdentity
    place_deg: float
    without_data: _Count
    created: str
    version: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One tile of an audit page.

    Attributes:
        id: Tile id.
        kind: Part of the sample, second showing of a sampled tile (repeat: any, at random; check:
            marked yes where few are), confirmed positive, or tile outside the domain.
        stratum: Stratum of a sampled tile, from 0.
    """

    id: str
    kind: SlotKind
    stratum: _Count | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """Frozen design and drawn pages of an audit: contents of `audits/NNN.json`.

    Attributes:
        schema: Version of the format.
        number: Number of the audit, from 1.
        state: Whether pages may be drawn.
        created: UTC time in ISO 8601.
        closed: UTC time at which it was closed.
        vector: SHA-256 of the query vector of the ranking.
        ranking: SHA-256 of the ids of the domain in the order of the ranking.
        seed: Seed of all draws.
        domain: Tiles of the domain: the first of the ranking.
        population: Tiles of the store with data.
        target: Half width, as a share of the estimate, at which the audit is complete.
        marks_before: Lines of the log of marks when the audit began.
        sizes: Unmarked tiles per stratum.
        order: Tile ids per stratum in random order, at most 5,000 each.
        rest: Unmarked tiles outside the domain.
        rest_order: Tiles to show of them, in random order.
        controls: Confirmed positive tiles to show unannounced, in random order.
        pages: Drawn pages, in mixed order.
        versions: Versions of the libraries that drew the sample.
    """

    schema: int
    number: _Count
    state: Literal["open", "closed"]
    created: str
    closed: str | None
    vector: str
    ranking: str
    seed: _Count
    domain: _Count
    population: _Count
    target: float
    marks_before: _Count
    sizes: tuple[_Count, ...]
    order: tuple[tuple[str, ...], ...]
    rest: _Count
    rest_order: tuple[str, ...]
    controls: tuple[str, ...]
    pages: tuple[tuple[Slot, ...], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


def now() -> str:
    """Return the UTC time in ISO 8601, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def inventory_path(name: str | Path) -> Path:
    """Return the folder of an inventory.

    Args:
        name: Name or path, with or without the suffix `.inventory`.

    Returns:
        The folder.

    Raises:
        UsageError: If the name is empty or cannot be a file name.
    """
    path = as_path(name, "name")
    if not is_safe_name(path.name):
        raise UsageError(f"'{name}' cannot be the name of an inventory", remedy="Name a folder.")
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


class InventoryFiles:
    """The folder of an inventory, open for reading or as its only writer.

    Attributes:
        path: The folder.
        header: Contents of `inventory.json`.
        marks: All lines of the log, in order.
        audits: All audits, in order.
        torn: Description of an incomplete last line of the log, left by a killed process.
    """

    def __init__(self, path: str | Path, *, write: bool = False) -> None:
        """Open an inventory.

        Args:
            path: The folder.
            write: Take the lock of the writer.

        Raises:
            InventoryError: If there is none, or it is damaged.
            InventoryInUseError: If another process has it open for writing (`write`).
        """
        path = Path(path)
        self.path = path
        self.torn: str | None = None
        self._stack = ExitStack()
        self._writable = False
        if not (path / HEADER).is_file():
            raise InventoryError(
                f"{path}: no inventory here",
                remedy="Make one: marsretrieval inventory new NAME --store STORE --text TEXT.",
            )
        if write:
            try:
                self._stack.enter_context(locked(path, wait=False))
            except BlockingIOError as error:
                raise InventoryInUseError(
                    f"{path}: another process is writing to this inventory",
                    remedy="Close it (or call close() on the other object), then try again.",
                ) from error
            self._writable = True
        try:
            self.header = self._read_header()
            self.marks = self._read_marks()
            self.audits = self._read_audits()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: str | Path, header: InventoryHeader) -> Self:
        """Create an inventory and open it as its writer.

        Args:
            path: Folder to create.
            header: Contents of `inventory.json`.

        Returns:
            The inventory without marks.

        Raises:
            InventoryError: If there is one already.
            OutputError: If it cannot be written.
        """
        path = Path(path)
        if (path / HEADER).exists():
            raise InventoryError(f"{path}: exists already", remedy="Choose another name.")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InventoryError(f"{path}: not an empty folder", remedy="Choose another name.")
        write_json(path / HEADER, asdict(header))
        return cls(path, write=True)

    @property
    def writable(self) -> bool:
        """Whether this object may write."""
        return self._writable

    def close(self) -> None:
        """Release the lock."""
        self._writable = False
        self._stack.close()

    def require_writable(self) -> None:
        """Check that this object is the writer.

        Raises:
            UsageError: If it was opened for reading or has been closed.
        """
        if not self._writable:
            raise UsageError(
                f"{self.path} is open for reading only", remedy="Open it again for writing."
            )

    def append(self, marks: Sequence[Mark]) -> None:
        """Append marks to the log in one write, and sync it to disk.

        Args:
            marks: The marks.

        Raises:
            OutputError: If they could not be saved; the log is then as before.
        """
        self.require_writable()
        path = self.path / MARKS
        data = b"".join(_encode(mark) for mark in marks)
        try:
            is_new = not path.exists()
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                length = os.fstat(handle).st_size
                try:
                    if os.write(handle, data) != len(data):
                        raise OSError(28, os.strerror(28))  # ENOSPC
                    os.fsync(handle)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(handle, length)
                    raise
            finally:
                os.close(handle)
            if is_new:
                _sync_folder(self.path)
        except OSError as error:
            names = ", ".join(mark.id for mark in marks[:3]) + (", ..." if len(marks) > 3 else "")
            raise OutputError(
                f"{path}: {pluralize(len(marks), 'mark')} NOT saved ({names}): "
                f"{error.strerror or error}",
                remedy="Free space or restore access to the folder, then mark again.",
            ) from error
        self.marks.extend(marks)

    def write_audit(self, audit: Audit) -> None:
        """Write an audit atomically; replace the one of the same number.

        Args:
            audit: The audit.

        Raises:
            OutputError: If it cannot be written.
        """
        self.require_writable()
        write_json(self._audit_path(audit.number), asdict(audit))
        self.audits[audit.number - 1 :] = [audit]

    def write_header(self, header: InventoryHeader) -> None:
        """Replace the header atomically.

        Args:
            header: The new contents of `inventory.json`.

        Raises:
            OutputError: If it cannot be written.
        """
        self.require_writable()
        write_json(self.path / HEADER, asdict(header))
        self.header = header

    def _audit_path(self, number: int) -> Path:
        return self.path / AUDITS / f"{number:03d}.json"

    def _read_header(self) -> InventoryHeader:
        path = self.path / HEADER
        value = read_json(path)
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise InventoryError(
                f"{path}: schema {schema!r}; this version reads {SCHEMA}",
                remedy="Use the version of marsretrieval that made it.",
            )
        return from_json(InventoryHeader, value, source=path, error=InventoryError)

    def _read_marks(self) -> list[Mark]:
        path = self.path / MARKS
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InventoryError(
                f"{path}: cannot be read ({error.strerror})",
                remedy="Check the permissions and the disk.",
            ) from error
        lines = data.split(b"\n")
        tail = lines.pop()
        marks = []
        for number, line in enumerate(lines, 1):
            source = f"{path}, line {number}"
            try:
                value = parse_json(line, source=source)
            except DataError as error:
                raise InventoryError(
                    str(error),
                    remedy="Restore the file, or replace this line (audits count lines) with "
                    '{"id": "-", "mark": "none", "time": ""}.',
                ) from error
            marks.append(from_json(Mark, value, source=source, error=InventoryError))
        if tail:
            self.torn = (
                f"{path}: the last line is incomplete ({pluralize(len(tail), 'byte')}): the mark "
                "that was being written when a process was killed is lost"
            )
            if self._writable:
                os.truncate(path, len(data) - len(tail))
        return marks

    def _read_audits(self) -> list[Audit]:
        audits: list[Audit] = []
        while (path := self._audit_path(len(audits) + 1)).exists():
            audit = from_json(Audit, read_json(path), source=path, error=InventoryError)
            if audit.schema != SCHEMA or audit.number != len(audits) + 1:
                raise InventoryError(f"{path}: not audit {len(audits) + 1} of schema {SCHEMA}")
            if audit.marks_before > len(self.marks):
                raise InventoryError(
                    f"{path}: began after {pluralize(audit.marks_before, 'mark')}, and {MARKS} has "
                    f"{len(self.marks):,}",
                    remedy=f"Restore {MARKS}: lines are missing.",
                )
            audits.append(audit)
        return audits


def _encode(mark: Mark) -> bytes:
    """Return a mark as a JSON line, without fields that have no value."""
    values = {item.name: getattr(mark, item.name) for item in fields(mark)}
    record = {name: value for name, value in values.items() if value is not None}
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _sync_folder(path: Path) -> None:
    """Sync a folder, so that a new file in it survives a power failure."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def statuses(marks: Sequence[Mark], audits: Sequence[Audit]) -> dict[str, Mark]:
    """Return the current mark of each tile.

    A later mark replaces an earlier one, except that a repeat or a control of an audit measures the
    reader and changes nothing, and a check that is not answered yes makes the tile unsure.

    Args:
        marks: Lines of the log.
        audits: Audits of the inventory.

    Returns:
        Tile id to its latest mark; tiles whose mark was taken back are left out.
    """
    second = _second_showings(audits)
    current: dict[str, Mark] = {}
    for mark in marks:
        kind = second.get((mark.audit, mark.page, mark.id))
        if kind is None:
            current[mark.id] = mark
        elif kind == "check" and mark.mark != "none":
            before = current.get(mark.id)
            if before is not None and before.mark in ("yes", "unsure"):
                value: MarkValue = "yes" if mark.mark == "yes" else "unsure"
                current[mark.id] = replace(before, mark=value)
    return {name: mark for name, mark in current.items() if mark.mark != "none"}


def _second_showings(
    audits: Sequence[Audit],
) -> dict[tuple[int | None, int | None, str], SlotKind]:
    return {
        (audit.number, page, slot.id): slot.kind
        for audit in audits
        for page, slots in enumerate(audit.pages, 1)
        for slot in slots
        if slot.kind in ("repeat", "check", "control")
    }
