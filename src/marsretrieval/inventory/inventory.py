"""An inventory of a landform: marks on a store's tiles, a learned ranking, audits, an estimate."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from marsretrieval import __version__
from marsretrieval.errors import DataError, UsageError
from marsretrieval.inventory import audit as audits
from marsretrieval.inventory.answers import (
    MARK_VALUES,
    Answer,
    check_answers,
    check_unique,
    mark_value,
)
from marsretrieval.inventory.files import (
    AUDITS,
    SCHEMA,
    Audit,
    InventoryFiles,
    InventoryHeader,
    Mark,
    now,
    statuses,
)
from marsretrieval.inventory.store_identity import (
    cached_whitening,
    check_store,
    check_vector,
    identify_store,
    load_vector,
    place_distance,
    save_vector,
    update_store,
)
from marsretrieval.inventory.summary import estimate_files
from marsretrieval.io import read_json, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import exact_topk, rows_of
from marsretrieval.search.index.find import known_of
from marsretrieval.search.learned import Whitening, learn_query
from marsretrieval.search.tiles import rows_below
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.embeddings import EmbeddingStore

_LOG = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]

QUERY, LEARNED, SHOWN = "query.npy", "learned.npy", "shown.json"
DOMAIN = 6300  # tiles: three strata of 300, 1,200 and 4,800 unmarked ones
COUNT = 25  # tiles to look at next

_EXPLORING = 3  # one of so many tiles is drawn from further down the ranking
_DEPTH = 10  # exploring reaches so many ranks per tile marked yes
_MIN_DEPTH = 100


@dataclass(frozen=True, slots=True)
class NextTiles:
    """Tiles to look at next.

    Attributes:
        tiles: Plain data per tile: id, lon, lat, source and how it was chosen; scores and ranks
            only outside audits.
        audit: Number of the open audit; None if there is none.
        page: Page of the audit.
        complete: Whether the audit needs no more answers, or every tile is marked.
    """

    tiles: list[dict[str, Any]]
    audit: int | None = None
    page: int | None = None
    complete: bool = False


class Inventory:
    """An inventory and its store.

    Attributes:
        files: The folder of the inventory.
        store: The embedding store.
    """

    def __init__(self, files: InventoryFiles, store: EmbeddingStore) -> None:
        """Join an inventory with its store.

        Args:
            files: The opened folder.
            store: The store.

        Raises:
            InventoryError: If the inventory belongs to another store; the message names the
                difference.
        """
        check_store(files, store)
        self.files = files
        self.store = store
        self._empty = rows_below(store, None)
        self._whitening: Whitening | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        store: EmbeddingStore,
        *,
        landform: str,
        query: npt.ArrayLike,
        texts: Sequence[str] = (),
    ) -> Self:
        """Create an inventory without marks.

        Args:
            path: Folder to create.
            store: The store.
            landform: What is looked for.
            query: Query vector, shape (dimension,): the first ranking, and the prior of learning.
            texts: Texts of the query, for the report.

        Returns:
            The inventory, open for writing.

        Raises:
            UsageError: If the vector has another shape or is not finite.
            InventoryError: If there is an inventory already.
            OutputError: If it cannot be written.
        """
        path = Path(path)
        vector = check_vector(query, store.dimension)
        empty = rows_below(store, None)
        header = InventoryHeader(
            schema=SCHEMA,
            landform=landform,
            texts=tuple(texts),
            store=identify_store(store),
            place_deg=place_distance(store),
            without_data=0 if empty is None else int(empty.sum()),
            created=now(),
            version=__version__,
        )
        files = InventoryFiles.create(path, header)
        save_vector(path / QUERY, vector)
        return cls(files, store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Inventory {self.path}: {pluralize(len(self.marked), 'mark')}>"

    def close(self) -> None:
        """Release the lock of the writer."""
        self.files.close()

    @property
    def path(self) -> Path:
        """Folder of the inventory."""
        return self.files.path

    @property
    def population(self) -> int:
        """Tiles of the store with data."""
        return self.files.header.store.rows - self.files.header.without_data

    @property
    def marked(self) -> dict[str, Mark]:
        """Current mark of each marked tile."""
        return statuses(self.files.marks, self.files.audits)

    @property
    def open_audit(self) -> Audit | None:
        """The open audit, if any."""
        last = self.files.audits[-1] if self.files.audits else None
        return last if last is not None and last.state == "open" else None

    @property
    def query(self) -> Vector:
        """Query vector with which the inventory was made."""
        return load_vector(self.path / QUERY, self.store.dimension)

    @property
    def vector(self) -> Vector:
        """The learned vector, or the query vector before the first `learn`."""
        path = self.path / LEARNED
        return load_vector(path, self.store.dimension) if path.exists() else self.query

    def mark(
        self,
        answers: Mapping[str, str] | Sequence[Answer],
    ) -> dict[str, int]:
        """Record answers; all of them or none.

        Args:
            answers: Tile id to yes, no, unsure or none (take back), or answers with details.

        Returns:
            Number of tiles marked yes, no and unsure now.

        Raises:
            UsageError: If an id is not in the store, or an answer is invalid.
            OutputError: If the marks could not be saved.
        """
        if isinstance(answers, Mapping):
            answers = [Answer(name, mark_value(value)) for name, value in answers.items()]
        check_answers(answers)
        self.files.require_writable()
        rows = rows_of(
            self.store,
            [answer.id for answer in answers],
            sources=[answer.source for answer in answers],
        )
        columns = known_of(self.store).take(rows)
        page_slots = self._shown()
        time = now()
        marks = []
        for index, answer in enumerate(answers):
            lon, lat = float(columns.lon[index]), float(columns.lat[index])
            name = columns.ids[index]
            marks.append(
                Mark(
                    id=name,
                    mark=answer.mark,
                    time=time,
                    lon=lon if np.isfinite(lon) else None,
                    lat=lat if np.isfinite(lat) else None,
                    row=int(rows[index]),
                    count=answer.count,
                    tiles=answer.tiles,
                    note=answer.note,
                    **self._origin(answer, name, page_slots),
                )
            )
        check_unique([mark.id for mark in marks], answers)
        self.files.append(marks)
        return self.counts()

    def counts(self) -> dict[str, int]:
        """Return the number of tiles marked yes, no and unsure."""
        values = [mark.mark for mark in self.marked.values()]
        return {value: values.count(value) for value in MARK_VALUES[:3]}

    def next(self, count: int = COUNT, *, progress: Progress = NO_PROGRESS) -> NextTiles:
        """Choose the tiles to look at: the page of the open audit, else the best unmarked tiles.

        Outside audits, two of three tiles are the best unmarked ones, and one is drawn at random
        from further down the ranking. An audit shows its tiles in random order, without scores.

        Args:
            count: Number of tiles.
            progress: Progress display.

        Returns:
            The tiles; none if the audit is complete or every tile is marked.

        Raises:
            UsageError: If `count` is below 1.
            OutputError: If an audit's page cannot be saved.
        """
        if count < 1:
            raise UsageError(f"count must be at least 1, not {count}")
        if self.open_audit is not None:
            return self._next_of_audit(self.open_audit, count)
        return self._next_of_ranking(count, progress)

    def learn(self) -> Vector:
        """Learn a query vector from the marks and save it as the inventory's ranking.

        Marks of an open audit are left out until it is closed.

        Returns:
            float32 array of shape (dimension,), unit length.

        Raises:
            UsageError: If the marks are all yes or all no, or there are none.
            OutputError: If it cannot be saved.
        """
        self.files.require_writable()
        usable = self._training_marks()
        yes = [name for name, mark in usable.items() if mark.mark == "yes"]
        no = [name for name, mark in usable.items() if mark.mark == "no"]
        if not yes or not no:
            what = "no tile is marked"
            if yes or no:
                what = f"all marks are {'yes' if yes else 'no'} ({len(yes) + len(no)})"
            raise UsageError(
                f"{self.path}: {what}; learning needs both yes and no",
                remedy=f"Mark at least one tile {'no' if yes else 'yes'} "
                "(marsretrieval inventory next shows tiles).",
            )
        if self._whitening is None:
            self._whitening = cached_whitening(self.files, self.store)
        reader = known_of(self.store)
        vector = learn_query(
            reader.vectors(self._rows(yes, usable)),
            reader.vectors(self._rows(no, usable)),
            self._whitening,
            text=self.query,
        )
        save_vector(self.path / LEARNED, vector)
        return vector

    def start_audit(
        self,
        domain: int = DOMAIN,
        *,
        target: float = audits.TARGET,
        seed: int = 0,
        elsewhere: int = audits.REST,
        progress: Progress = NO_PROGRESS,
    ) -> Audit:
        """Freeze the ranking and begin an audit of its first tiles.

        Args:
            domain: Number of tiles of the ranking to estimate for, marked ones included; at most
                the tiles of the store.
            target: Half width of the interval, as a share of the estimate, at which to stop.
            seed: Seed of the random draws.
            elsewhere: Tiles outside the domain to look at, for the upper bound there.
            progress: Progress display.

        Returns:
            The open audit.

        Raises:
            UsageError: If an audit is open, or a parameter is out of range.
            OutputError: If it cannot be saved.
        """
        self.files.require_writable()
        if self.open_audit is not None:
            raise UsageError(
                f"{self.path}: audit {self.open_audit.number} is open",
                remedy=f"Answer its tiles, or close it: inventory audit {self.path.stem} close.",
            )
        if domain < 1:
            raise UsageError(f"domain must be at least 1 tile, not {domain}")
        vector = self.vector
        ranking = exact_topk(
            self.store, vector, min(domain, self.population), exclude=self._empty, progress=progress
        )
        _, rows = ranking.hits(0)
        number = len(self.files.audits) + 1

        def rest(count: int) -> tuple[int, list[str]]:
            outside = np.ones(self.store.rows, dtype=np.bool_)
            outside[rows] = False
            if self._empty is not None:
                outside &= ~self._empty
            marked = self.marked
            outside[self._rows(list(marked), marked)] = False
            candidates = np.flatnonzero(outside)
            generator = np.random.default_rng([seed, number, 0])
            chosen = generator.choice(candidates, min(count, len(candidates)), replace=False)
            return len(candidates), known_of(self.store).ids(chosen)

        audit = audits.begin_audit(
            number,
            known_of(self.store).ids(rows),
            self.files.marks,
            self.files.audits,
            population=self.population,
            rest=rest,
            vector=hashlib.sha256(vector.tobytes()).hexdigest(),
            target=target,
            seed=seed,
            rest_count=elsewhere,
        )
        save_vector(self.path / AUDITS / f"{number:03d}.npy", vector)
        self.files.write_audit(audit)
        return audit

    def close_audit(self) -> Audit:
        """Close the open audit, so that its marks may be learned from.

        Returns:
            The closed audit.

        Raises:
            UsageError: If no audit is open.
            OutputError: If it cannot be saved.
        """
        if self.open_audit is None:
            raise UsageError(f"{self.path}: no audit is open")
        closed = replace(self.open_audit, state="closed", closed=now())
        self.files.write_audit(closed)
        return closed

    def estimate(self) -> dict[str, Any]:
        """Estimate the number of positive tiles and places; see `inventory.estimate_files`."""
        return estimate_files(self.files)

    def records(self) -> list[dict[str, Any]]:
        """Return all marked tiles as table rows; see `inventory.export.mark_records`."""
        from marsretrieval.inventory.export import mark_records

        return mark_records(self.files)

    def to_geodataframe(self) -> GeoDataFrame:
        """Return the confirmed places, one row each, with footprints in IAU_2015:49900.

        Raises:
            MissingDependencyError: If geopandas is not installed (extra `gis`).
        """
        from marsretrieval.inventory.export import places_frame

        return places_frame(self.files, self.store)

    def update_store(self, store: EmbeddingStore) -> dict[str, int]:
        """Continue with a store that has grown or moved; marks are mapped by tile id.

        Args:
            store: A store of the same encoder.

        Returns:
            Tiles before and after, and number of marks.

        Raises:
            UsageError: If an audit is open.
            InventoryError: If the encoder differs.
        """
        return update_store(self.files, store)

    def _training_marks(self) -> dict[str, Mark]:
        held_back = None if self.open_audit is None else self.open_audit.number
        usable = [
            mark for mark in self.files.marks if mark.audit is None or mark.audit != held_back
        ]
        return statuses(usable, self.files.audits)

    @property
    def held_back(self) -> int:
        """Marks of the open audit, from which nothing is learned yet."""
        return len(self.marked) - len(self._training_marks())

    def _next_of_audit(self, audit: Audit, count: int) -> NextTiles:
        page = audits.open_page(audit, self.files.marks)
        if page is None:
            self.files.require_writable()
            drawn = audits.draw_page(audit, self.files.marks, self.files.audits, count)
            if drawn is audit:
                return NextTiles([], audit.number, len(audit.pages), complete=True)
            self.files.write_audit(drawn)
            page = len(drawn.pages), list(drawn.pages[-1])
        number, slots = page
        tiles = self._describe(rows_of(self.store, [slot.id for slot in slots[:count]]))
        for tile in tiles:
            tile.update(how="audit", audit=audit.number, page=number)
        return NextTiles(tiles, audit.number, number)

    def _next_of_ranking(self, count: int, progress: Progress) -> NextTiles:
        marked = self.marked
        exclude = np.zeros(self.store.rows, dtype=np.bool_)
        if self._empty is not None:
            exclude |= self._empty
        exclude[self._rows(list(marked), marked)] = True
        remaining = int((~exclude).sum())
        if not remaining:
            return NextTiles([], complete=True)
        yes = sum(mark.mark == "yes" for mark in marked.values())
        depth = min(remaining, count + max(_MIN_DEPTH, _DEPTH * yes))
        vector = self.vector
        ranking = exact_topk(self.store, vector, depth, exclude=exclude, progress=progress)
        scores, rows = ranking.hits(0)
        best = min(len(rows), count - count // _EXPLORING)
        generator = np.random.default_rng([len(self.files.marks)])
        extra = min(count - best, len(rows) - best)
        further = best + generator.choice(len(rows) - best, extra, replace=False)
        chosen = np.concatenate([np.arange(best), np.sort(further)]).astype(np.int64)
        tiles = self._describe(rows[chosen])
        search = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
        for tile, position in zip(tiles, chosen.tolist(), strict=True):
            tile.update(
                how="best" if position < best else "exploring",
                rank=position + 1,
                score=round(float(scores[position]), 7),
            )
        if self.files.writable:
            self._set_damaged_aside()
            write_json(self.path / SHOWN, {"search": search, "tiles": tiles})
        return NextTiles(tiles)

    def _describe(self, rows: npt.ArrayLike) -> list[dict[str, Any]]:
        columns = known_of(self.store).take(rows)
        return [
            {
                "id": name,
                "lon": float(lon) if np.isfinite(lon) else None,
                "lat": float(lat) if np.isfinite(lat) else None,
                "source": source,
            }
            for name, lon, lat, source in zip(
                columns.ids, columns.lon, columns.lat, columns.sources, strict=True
            )
        ]

    def _set_damaged_aside(self) -> None:
        """Rename `shown.json` if it is damaged, so that it is not overwritten."""
        try:
            self._shown()
        except DataError as error:
            names = (f"shown.damaged-{number}.json" for number in itertools.count(1))
            aside = next(path for name in names if not (path := self.path / name).exists())
            (self.path / SHOWN).rename(aside)
            _LOG.warning("%s; renamed to %s", error.message, aside.name)

    def _shown(self) -> dict[str, dict[str, Any]]:
        """Return the tiles that `next` showed last, with how they were chosen."""
        path = self.path / SHOWN
        if not path.exists():
            return {}
        remedy = "Run `inventory next` again, which renames the damaged file."
        try:
            value = read_json(path)
            return {tile["id"]: {**tile, "search": value["search"]} for tile in value["tiles"]}
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged", remedy=remedy) from error
        except DataError as error:
            raise DataError(error.message, remedy=remedy) from error

    def _origin(
        self, answer: Answer, name: str, pages: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        for audit in reversed(self.files.audits):
            page = audits.page_of(audit, name, self.files.marks)
            if page is not None and answer.page in (None, page):
                return {"how": "audit", "audit": audit.number, "page": page}
        if answer.page is not None:
            raise UsageError(
                f"{name} is not on page {answer.page} of an open audit",
                remedy="Show the page again.",
            )
        if answer.search is not None:
            origin = {"search": answer.search, "rank": answer.rank, "score": answer.score}
            return {"how": "search", **origin}
        if name in pages:
            keys = ("how", "search", "rank", "score")
            return {key: pages[name][key] for key in keys if key in pages[name]}
        return {"how": "direct"}

    def _rows(self, names: Sequence[str], marks: Mapping[str, Mark]) -> npt.NDArray[np.int64]:
        """Return the rows of marked tiles; the noted rows are checked before use."""
        noted = np.array([-1 if (row := marks[name].row) is None else row for name in names])
        rows = noted.astype(np.int64)
        valid = (rows >= 0) & (rows < self.store.rows)
        tiles = known_of(self.store)
        actual = iter(tiles.ids(rows[valid]) if valid.any() else [])
        is_right = np.array(
            [ok and next(actual) == name for ok, name in zip(valid, names, strict=True)],
            dtype=np.bool_,
        )
        wrong = np.flatnonzero(~is_right)
        if len(wrong):
            rows[wrong] = rows_of(self.store, [names[index] for index in wrong.tolist()])
        return rows
