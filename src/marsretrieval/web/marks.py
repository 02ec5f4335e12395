"""Routes of the inventory: marks, learning, audits, the estimate and exports."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import FileResponse

from marsretrieval import geo
from marsretrieval.inventory import Answer
from marsretrieval.web import schemas
from marsretrieval.web.state import Context, describe_search, not_found

TileId = Annotated[str, Path(max_length=1000)]
router = APIRouter(
    responses={status: {"model": schemas.ErrorBody} for status in (403, 404, 409, 422, 507)}
)


@router.get("/inventory")
def get_inventory(server: Context) -> schemas.InventoryInfo:
    """Describe the open inventory, its audit and its estimate."""
    return schemas.InventoryInfo.model_validate(server.require_inventory().summary())


@router.get("/marks")
def get_marks(server: Context) -> list[schemas.MarkInfo]:
    """Return all marked tiles."""
    return [
        schemas.MarkInfo(
            id=name, lon=None if lon is None else float(geo.wrap_lon(lon)), lat=lat, mark=mark
        )
        for name, lon, lat, mark in server.require_inventory().mark_rows()
    ]


@router.put("/marks/{tile:path}")
def put_mark(body: schemas.MarkRequest, server: Context, tile: TileId) -> schemas.Totals:
    """Mark a tile. The mark is on the disk when the response is sent."""
    inventory = server.require_inventory(write=True)
    search = None if body.search is None else inventory.store.find(body.search)
    answer = Answer(
        tile,
        body.mark,
        count=body.count,
        tiles=body.tiles,
        note=body.note,
        rank=body.rank,
        score=body.score,
        page=None if body.audit is None else body.showing,
    )
    return schemas.Totals(**inventory.mark(answer, search=search, audit=body.audit))


@router.delete("/marks/{tile:path}")
def delete_mark(server: Context, tile: TileId) -> schemas.Totals:
    """Take the mark of a tile back."""
    inventory = server.require_inventory(write=True)
    return schemas.Totals(**inventory.mark(Answer(tile, "none")))


@router.post("/learn")
async def post_learn(server: Context) -> schemas.SearchResponse:
    """Learn a ranking from the marks and rank all tiles by it.

    Status 422 if there are not both tiles marked yes and tiles marked no; the message says what is
    missing.
    """
    inventory = server.require_inventory(write=True)

    def run() -> schemas.SearchResponse:
        vector = inventory.learn()
        store = inventory.store
        question = store.question(schemas.SearchBody(learned=True), server.pictures, vector)
        return describe_search(server, store, store.search(question, lambda: True))

    return await asyncio.get_running_loop().run_in_executor(server.worker, run)


@router.post("/audits")
def post_audit(body: schemas.AuditRequest, server: Context) -> schemas.AuditInfo:
    """Freeze the ranking of the inventory and begin an audit of its first tiles."""
    inventory = server.require_inventory(write=True)
    audit = inventory.start_audit(body.domain, target=body.target, seed=body.seed)
    return schemas.AuditInfo.model_validate(audit)


@router.get("/audits/{number}/page")
def get_page(server: Context, number: int) -> schemas.AuditPage:
    """Return the tiles of the open page that have no answer; none if the audit is complete.

    When all tiles of a page are marked, the next page is drawn.
    """
    tiles, audit = server.require_inventory(write=True).page(number)
    return schemas.AuditPage(
        number=number,
        tiles=[
            schemas.AuditTile(
                id=tile["id"],
                lon=None if tile["lon"] is None else float(geo.wrap_lon(tile["lon"])),
                lat=tile["lat"],
                showing=tile["page"],
            )
            for tile in tiles
        ],
        done=audit["done"],
        planned=audit["planned"],
    )


@router.post("/audits/{number}/close")
def post_close(server: Context, number: int) -> schemas.InventoryInfo:
    """Close an audit, so that its marks may be learned from."""
    inventory = server.require_inventory(write=True)
    inventory.close_audit(number)
    return schemas.InventoryInfo.model_validate(inventory.summary())


@router.get("/estimate")
def get_estimate(server: Context) -> dict[str, Any]:
    """Return the estimate with all details, as `marsretrieval inventory estimate --json` does."""
    return server.require_inventory().estimate()


@router.post("/exports")
def post_export(body: schemas.ExportRequest, server: Context) -> schemas.ExportResponse:
    """Write a file into the folder `exports` of the inventory."""
    path, rows = server.require_inventory(write=True).export(body.format)
    return schemas.ExportResponse(name=path.name, path=str(path), rows=rows)


@router.get("/exports/{name}")
def get_export(server: Context, name: str) -> Response:
    """Return an exported file."""
    path = server.require_inventory().exported(name)
    if path is None:
        raise not_found(f"no export '{name}'", "Write it first (POST /exports).")
    return FileResponse(path, filename=name, headers={"cache-control": "no-store"})
