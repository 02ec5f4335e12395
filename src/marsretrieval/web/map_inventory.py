"""The inventory of a map server: one writer, one lock, and no HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from marsretrieval import embeddings
from marsretrieval.api.inventory import create_inventory
from marsretrieval.embeddings.manifest import manifest_path, shards_folder
from marsretrieval.errors import MarsRetrievalError, UsageError
from marsretrieval.inventory import (
    Answer,
    Inventory,
    InventoryError,
    InventoryFiles,
    InventoryInUseError,
    inventory_path,
)
from marsretrieval.inventory.audit import answered, count_answers, is_complete, planned
from marsretrieval.inventory.export import write_inventory
from marsretrieval.inventory.files import Audit
from marsretrieval.inventory.inventory import LEARNED
from marsretrieval.inventory.report import describe
from marsretrieval.inventory.store_identity import cached_whitening, check_store, save_search
from marsretrieval.io import make_folder
from marsretrieval.web.workspace import MapStore, Search

EXPORTS = (
    "places.gpkg", "places.geojson", "places.parquet", "places.fgb", "places.csv",
    "ground_truth.csv", "negatives.csv", "marks.csv", "report.md", "report.html",
)  # fmt: skip
FOLDER = "exports"

MarkName = Literal["yes", "no", "unsure"]


class MapInventory:
    """An inventory and the store of the map that it belongs to.

    All methods may be called from several threads. If another process writes to the inventory, it
    is shown but not changed, and read again when its files have changed.

    Args:
        inventory: The opened inventory.
        store: Its store.
        read_only: Why marks are refused; empty if they are not.
    """

    def __init__(self, inventory: Inventory, store: MapStore, read_only: str = "") -> None:
        self.store = store
        self.read_only = read_only
        self._inventory = inventory
        self._lock = threading.RLock()
        self._state = self._files_state()
        self._store_state = _store_state(store)

    @classmethod
    def open(
        cls,
        name: str | Path,
        stores: Sequence[MapStore],
        *,
        landform: str | None = None,
        read_only: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> Self:
        """Open the inventory of one of several stores, or create it.

        Args:
            name: Name or path, with or without the suffix `.inventory`.
            stores: The stores; a new inventory belongs to the first one.
            landform: What a new inventory is about: its name, and the text of its first ranking.
            read_only: Refuse marks.
            report: Called with lines for the user.

        Returns:
            The inventory; read-only if another process has it open for writing.

        Raises:
            UsageError: If an existing inventory is about another landform.
            InventoryError: If there is none and no landform is given, it is damaged, or it belongs
                to none of the stores; the message names the difference.
            OutputError: If it cannot be created.
        """
        path = inventory_path(name)
        if not (path / "inventory.json").exists():
            if landform is None or read_only:
                raise InventoryError(
                    f"{path}: no inventory here",
                    remedy="Add --landform TEXT, such as 'pitted cones', to create it"
                    f"{' (without --read-only)' if read_only else ''}, or use: marsretrieval "
                    f"inventory new {path} --store {stores[0].store.path} --text TEXT.",
                )
            created = create_inventory(path, stores[0].store, text=landform)
            report(f"{path}: created, for {landform} in {stores[0].store.path}")
            return cls(created, stores[0])
        reason = "this server is read-only (--read-only)" if read_only else ""
        try:
            files = InventoryFiles(path, write=not read_only)
        except InventoryInUseError as error:
            reason = f"{error.message}; here it can only be looked at"
            report(f"warning: {reason}")
            files = InventoryFiles(path)
        try:
            if landform is not None and landform != files.header.landform:
                raise UsageError(
                    f"{path} is about {files.header.landform}, not {landform}",
                    remedy="Leave --landform out, or name another inventory.",
                )
            if files.torn:
                report(f"warning: {files.torn}")
            store = _owner(files, stores)
            return cls(Inventory(files, store.store.embeddings), store, reason)
        except BaseException:
            files.close()
            raise

    @property
    def name(self) -> str:
        """Name of the folder without its suffix."""
        return self._inventory.path.stem

    @property
    def learned(self) -> Path | None:
        """File of the learned query vector; None before the first `learn`."""
        path = self._inventory.path / LEARNED
        return path if path.exists() else None

    @property
    def saved_in(self) -> Path | None:
        """Folder that the marks of this server are saved in; None if it records none."""
        return None if self.read_only else self._inventory.path

    def close(self) -> None:
        """Release the lock of the writer."""
        with self._lock:
            self._inventory.close()

    def marks(self) -> dict[str, MarkName]:
        """Return the current mark of each marked tile."""
        with self._current() as inventory:
            return {name: _name(mark.mark) for name, mark in inventory.marked.items()}

    def mark_rows(self) -> list[tuple[str, float | None, float | None, MarkName]]:
        """Return id, longitude, latitude and mark of each marked tile."""
        with self._current() as inventory:
            marked = inventory.marked.values()
            return [(mark.id, mark.lon, mark.lat, _name(mark.mark)) for mark in marked]

    def hidden(self) -> set[str]:
        """Return the tiles of the open page of an audit, whose marks and scores are not shown."""
        with self._current() as inventory:
            audit = inventory.open_audit
            if audit is None or not audit.pages:
                return set()
            page, number = audit.pages[-1], len(audit.pages)
            answers = {
                mark.id
                for mark in inventory.files.marks
                if mark.audit == audit.number and mark.page == number and mark.mark != "none"
            }
            names = {slot.id for slot in page}
            return set() if names <= answers else names

    def mark(
        self,
        answer: Answer,
        *,
        search: Search | None = None,
        audit: int | None = None,
    ) -> dict[str, int]:
        """Record an answer; it is on the disk when this returns.

        Args:
            answer: The answer, without the key of a search.
            search: The search that showed the tile, if it is still kept.
            audit: Number of the audit that shows the tile.

        Returns:
            Number of tiles marked yes, no and unsure now.

        Raises:
            UsageError: If the tile is unknown, no page of the open audit, or on its open page while
                `audit` is not given: a search shows its score, so that this is no blind answer.
            OutputError: If the mark could not be saved.
        """
        with self._lock:
            inventory = self._inventory
            if audit is not None:
                self._require_audit(audit)
            elif answer.mark != "none" and answer.id in self.hidden():
                assert inventory.open_audit is not None
                raise UsageError(
                    f"{answer.id} is on the open page of audit {inventory.open_audit.number}, "
                    "which is answered without seeing scores",
                    remedy="Answer it on the page of the audit, or close the audit.",
                )
            if audit is None and search is not None:
                result = search.result
                key = save_search(inventory.files, result.query, result.about)
                answer = replace(answer, search=key)
            return inventory.mark([answer])

    def prepare(self) -> None:
        """Compute what the first `learn` needs, so that it is as fast as later ones."""
        files = self._inventory.files
        if files.writable:
            with suppress(MarsRetrievalError):  # `learn` reports it
                cached_whitening(files, self._inventory.store)

    def learn(self) -> Path:
        """Learn a ranking from the marks.

        Returns:
            File of the learned query vector.

        Raises:
            UsageError: If marks are missing.
            InventoryError: If the store has changed.
            OutputError: If it cannot be saved.
        """
        with self._lock:
            self._check_store()
            self._inventory.learn()
            return self._inventory.path / LEARNED

    def start_audit(self, domain: int, *, target: float, seed: int) -> dict[str, Any]:
        """Freeze the ranking and begin an audit; arguments as of `Inventory.start_audit`.

        Args:
            domain: Tiles of the ranking.
            target: Half width, as a share of the estimate, at which to stop.
            seed: Seed of the draws.

        Returns:
            The audit, see `describe_audit`.

        Raises:
            UsageError: If an audit is open.
            InventoryError: If the store has changed.
            OutputError: If it cannot be saved.
        """
        with self._lock:
            self._check_store()
            return self._describe_audit(
                self._inventory.start_audit(domain, target=target, seed=seed)
            )

    def page(self, number: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the open page of an audit, drawing it if necessary.

        Args:
            number: Number of the open audit.

        Returns:
            The tiles without an answer, each with its `page`, and the audit. No tiles if it is
            complete.

        Raises:
            UsageError: If this audit is not open, or a page has to be drawn and may not be.
            OutputError: If the page cannot be saved.
        """
        with self._current() as inventory:
            self._require_audit(number)
            tiles = inventory.next().tiles
            audit = inventory.open_audit
            assert audit is not None
            return tiles, self._describe_audit(audit)

    def close_audit(self, number: int) -> None:
        """Close the open audit.

        Args:
            number: Its number.

        Raises:
            UsageError: If this audit is not open.
            OutputError: If it cannot be saved.
        """
        with self._lock:
            self._require_audit(number)
            self._inventory.close_audit()

    def estimate(self) -> dict[str, Any]:
        """Return the estimate as of `Inventory.estimate`, with a `sentence`."""
        with self._current() as inventory:
            estimate = inventory.estimate()
        return {**estimate, "sentence": describe(estimate)}

    def summary(self) -> dict[str, Any]:
        """Return the fields of `web.schemas.InventoryInfo`."""
        with self._current() as inventory:
            audit = inventory.open_audit
            return {
                "name": self.name,
                "path": str(inventory.path),
                "landform": inventory.files.header.landform,
                "marked": inventory.counts(),
                "held_back": inventory.held_back,
                "learned": self.learned is not None,
                "audit": None if audit is None else self._describe_audit(audit),
                "estimate": self.estimate(),
                "read_only": self.read_only,
            }

    def export(self, name: str) -> tuple[Path, int]:
        """Write a file into the folder of exports.

        Args:
            name: One of `EXPORTS`.

        Returns:
            The file and its number of rows.

        Raises:
            UsageError: If there is no such export.
            InventoryError: If there is nothing to export.
            OutputError: If it cannot be written.
        """
        if name not in EXPORTS:
            raise UsageError(f"no export '{name}'", remedy=f"Use one of {', '.join(EXPORTS)}.")
        with self._lock:
            folder = self._inventory.path / FOLDER
            make_folder(folder)
            command = f"marsretrieval inventory export {self._inventory.path} --out {name}"
            _, rows = write_inventory(
                self._inventory.files,
                folder / name,
                store=lambda: self._inventory.store,
                command=command,
            )
            return folder / name, rows

    def exported(self, name: str) -> Path | None:
        """Return an exported file.

        Args:
            name: One of `EXPORTS`.

        Returns:
            The file; None if it has not been written.
        """
        path = self._inventory.path / FOLDER / name
        return path if name in EXPORTS and path.is_file() else None

    def _require_audit(self, number: int) -> None:
        audit = self._inventory.open_audit
        if audit is None or audit.number != number:
            raise UsageError(
                f"audit {number} is not open", remedy="Reload the page to see the present state."
            )

    def _describe_audit(self, audit: Audit) -> dict[str, Any]:
        """Return the fields of `web.schemas.AuditInfo`."""
        files = self._inventory.files
        tally = count_answers(audit, files.marks, files.audits)
        return {
            "number": audit.number,
            "domain": audit.domain,
            "done": answered(audit, files.marks),
            "planned": planned(audit, tally),
            "target": audit.target,
            "complete": is_complete(audit, tally),
        }

    def _check_store(self) -> None:
        """Compare the store on the disk with the one that the inventory is about."""
        state = _store_state(self.store)
        if state != self._store_state:
            check_store(self._inventory.files, embeddings.open_store(self.store.store.path))
            self._store_state = state

    @contextmanager
    def _current(self) -> Iterator[Inventory]:
        """Hold the lock, and read the inventory again if another process has changed it."""
        with self._lock:
            if not self._inventory.files.writable:
                state = self._files_state()
                if state != self._state:
                    path, store = self._inventory.path, self._inventory.store
                    self._inventory = Inventory(InventoryFiles(path), store)
                    self._state = state
            yield self._inventory

    def _files_state(self) -> tuple[tuple[str, int, int], ...]:
        folder = self._inventory.path
        paths = [folder / "inventory.json", folder / "marks.jsonl", *folder.glob("audits/*.json")]
        stats = [(str(path), path.stat()) for path in sorted(paths) if path.exists()]
        return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _store_state(store: MapStore) -> tuple[int, ...]:
    """Return modification times that change with every added or replaced shard."""
    path = store.store.path
    paths = (manifest_path(path), shards_folder(path))
    return tuple(path.stat().st_mtime_ns for path in paths if path.exists())


def _owner(files: InventoryFiles, stores: Sequence[MapStore]) -> MapStore:
    """Find the store of an inventory, else name the differences to all stores."""
    problems: list[InventoryError] = []
    for store in stores:
        try:
            check_store(files, store.store.embeddings)
        except InventoryError as error:
            problems.append(error)
        else:
            return store
    if len(problems) == 1:
        raise problems[0]
    raise InventoryError(
        f"{files.path} belongs to none of the stores: "
        + "; ".join(error.message for error in problems),
        remedy=f"Serve its store, which was {files.header.store.path}.",
    )


def _name(mark: str) -> MarkName:
    for name in _NAMES:
        if mark == name:
            return name
    raise AssertionError(mark)


_NAMES: tuple[MarkName, ...] = ("yes", "no", "unsure")
