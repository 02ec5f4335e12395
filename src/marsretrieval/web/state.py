"""State shared by the routes of the map: stores, the inventory, and descriptions of searches."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, HTTPException, Query, Request

from marsretrieval.search import Hits
from marsretrieval.text import pluralize
from marsretrieval.web import schemas
from marsretrieval.web.images import MapImages
from marsretrieval.web.map_inventory import MapInventory
from marsretrieval.web.workspace import MapStore, Pictures, Search, command_line


@dataclass(slots=True)
class Server:
    """What the routes use.

    Attributes:
        stores: Stores by name, the first one is shown at start.
        images: Images of the tiles, by store name.
        basemap: Image of the whole planet, -180 to 180 and 90 to -90; None without one.
        basemap_credit: Credit line of the base map.
        inventory: The open inventory, of one of the stores; None without one.
        read_only: Whether marks and exports are refused.
        pictures: Uploaded query images.
        worker: Runs one search at a time.
        newest: Number of the newest search by page.
    """

    stores: dict[str, MapStore]
    images: dict[str, MapImages]
    basemap: Path | None = None
    basemap_credit: str = ""
    inventory: MapInventory | None = None
    read_only: bool = False
    pictures: Pictures = field(default_factory=Pictures)
    worker: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="search")
    )
    newest: dict[str, int] = field(default_factory=dict)

    def store(self, name: str | None) -> MapStore:
        """Return a store by name.

        Args:
            name: Its name; None for the first one.

        Returns:
            The store.

        Raises:
            HTTPException: With status 404 if there is none.
        """
        if name is None:
            return next(iter(self.stores.values()))
        if name not in self.stores:
            raise not_found(f"no store '{name}'", f"Use one of: {', '.join(self.stores)}.")
        return self.stores[name]

    def inventory_of(self, store: MapStore) -> MapInventory | None:
        """Return the inventory if it belongs to a store.

        Args:
            store: The store.

        Returns:
            The inventory; None if there is none, or it is of another store.
        """
        owned = self.inventory is not None and self.inventory.store is store
        return self.inventory if owned else None

    def require_inventory(self, *, write: bool = False) -> MapInventory:
        """Return the inventory.

        Args:
            write: Whether it has to be writable.

        Returns:
            The inventory.

        Raises:
            HTTPException: With status 404 if there is none, 403 if it may not be written.
        """
        if self.inventory is None:
            raise not_found(
                "no inventory is open", "Start the server with --inventory NAME.inventory."
            )
        reason = self.inventory.read_only
        if write and reason:
            raise HTTPException(
                HTTPStatus.FORBIDDEN, {"error": reason, "remedy": "", "code": "read-only"}
            )
        return self.inventory

    def search(self, key: str) -> tuple[MapStore, Search]:
        """Return a recent search and its store.

        Args:
            key: Key of the search.

        Returns:
            The store and the search.

        Raises:
            HTTPException: With status 410 if the search was forgotten.
        """
        for store in self.stores.values():
            search = store.find(key)
            if search is not None:
                return store, search
        raise HTTPException(
            HTTPStatus.GONE,
            {"error": "this search is no longer kept", "remedy": "Search again.", "code": "gone"},
        )


def not_found(error: str, remedy: str = "") -> HTTPException:
    """Return the error of a missing thing.

    Args:
        error: What is missing.
        remedy: What to do.

    Returns:
        An exception with status 404.
    """
    return HTTPException(
        HTTPStatus.NOT_FOUND, {"error": error, "remedy": remedy, "code": "not-found"}
    )


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def describe_search(server: Server, store: MapStore, search: Search) -> schemas.SearchResponse:
    """Convert a search to a response.

    Args:
        server: The server.
        store: The searched store.
        search: The search.

    Returns:
        The response with the first hits.
    """
    about = dict(search.result.about)
    notes = []
    if truncated := about.get("truncated"):
        notes.append(
            f"{len(truncated)} of the texts exceed the context length of the model and were cut"
        )
    if without_data := about.get("without_data"):
        notes.append(f"{pluralize(without_data, 'tile')} without data were left out")
    lowest = search.codes.lowest
    return schemas.SearchResponse(
        key=search.key,
        about=about,
        title=_title(about),
        cli=command_line(store.store, about),
        counts=search.codes.counts.tolist(),
        edges=[None if np.isnan(value) else round(float(value), 6) for value in lowest],
        bound=search.bound,
        total=int(search.codes.counts.sum()),
        hits=hit_list(search.result.hits, marks=marks_of(server, store)),
        stands_out=search.result.stands_out,
        notes=notes,
        ms=search.ms,
    )


def marks_of(server: Server, store: MapStore) -> dict[str, schemas.MarkName]:
    """Return the marks of a store.

    Args:
        server: The server.
        store: The store.

    Returns:
        Mark by tile id; empty if the store has no inventory.
    """
    inventory = server.inventory_of(store)
    return {} if inventory is None else inventory.marks()


def hit_list(
    hits: Hits,
    start: int = 0,
    end: int | None = None,
    *,
    marks: Mapping[str, schemas.MarkName],
) -> list[schemas.HitInfo]:
    """Convert hits to a response.

    Args:
        hits: The hits.
        start: First hit.
        end: Hit after the last; None for all.
        marks: Mark by tile id.

    Returns:
        One entry per hit.
    """
    return [
        schemas.HitInfo(
            rank=hit.rank,
            id=hit.id,
            lon=hit.lon,
            lat=hit.lat,
            score=hit.score,
            percentile=hit.percentile,
            tiles=hit.tiles,
            mark=marks.get(hit.id),
        )
        for hit in hits[start:end]
    ]


def _title(about: dict[str, Any]) -> str:
    parts = [about["text"] or "", "learned from the marks" if about["vector"] else ""]
    if about["like"]:
        parts.append(f"like {', '.join(about['like'][:3])}")
    if about["images"]:
        count = len(about["images"])
        parts.append("like an uploaded image" if count == 1 else f"like {count} uploaded images")
    excluded = [*about["not_text"], *about["not_like"], *about["not_images"]]
    if excluded:
        parts.append(f"not {', '.join(excluded[:3])}")
    return ", ".join(part for part in parts if part)


Context = Annotated[Server, Depends(_server)]
StoreName = Annotated[str | None, Query(max_length=1000)]
