"""The HTTP application: routes of the map and of the inventory, error responses, static files."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import (
    APIRouter,
    FastAPI,
    File,
    Header,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi import (
    Path as PathParameter,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from marsretrieval import __version__, geo
from marsretrieval.errors import MarsRetrievalError, OutputError, UsageError
from marsretrieval.inventory import Answer, InventoryError
from marsretrieval.plotting.features import features
from marsretrieval.search import row_at, rows_of
from marsretrieval.search.page.links import links_at
from marsretrieval.web import schemas
from marsretrieval.web.security import LOOPBACK, SecurityMiddleware
from marsretrieval.web.state import (
    Context,
    Server,
    StoreName,
    describe_search,
    hit_list,
    marks_of,
    not_found,
)
from marsretrieval.web.workspace import MAX_HITS, MapStore, SupersededError

API = "/api/v1"
LANDFORMS = (
    "alluvial fans", "glacier-like forms", "landslides", "pitted cones", "yardangs", "dunes",
    "gullies", "craters",
)  # fmt: skip
_SIZES = (0, 96, 160, 256, 512)
_MAX_UPLOADS = 10
_MAX_PICTURE = 32 * 2**20  # bytes
_MAX_PAGE = 500
_MAX_FOOTPRINTS = 400
_STATUS = {UsageError: 422, InventoryError: 409, OutputError: 507}  # else 500
_WEEK = "private, max-age=604800, immutable"

TileId = Annotated[str, PathParameter(max_length=1000)]


def create_app(
    server: Server, *, hosts: Sequence[str] = LOOPBACK, token: str | None = None
) -> FastAPI:
    """Create the application.

    Args:
        server: Stores, images and options.
        hosts: Host names under which the server is reached.
        token: Secret of a server that other machines reach; None on loopback.

    Returns:
        The ASGI application.
    """
    app = FastAPI(
        title="MarsRetrieval map",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
    )
    app.state.server = server
    app.add_middleware(SecurityMiddleware, hosts=hosts, token=token)
    app.add_exception_handler(MarsRetrievalError, _on_error)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.include_router(inventory_router, prefix=API)
    app.include_router(router, prefix=API)
    static = Path(str(files("marsretrieval.web").joinpath("static")))
    if (static / "index.html").is_file():
        app.mount("/static", StaticFiles(directory=static))

        @app.get("/", include_in_schema=False)
        def page() -> FileResponse:
            return FileResponse(static / "index.html", headers={"cache-control": "no-cache"})
    else:

        @app.get("/", include_in_schema=False)
        def no_page() -> Response:
            return Response(
                "The page of the map is not part of this installation. From a clone of the "
                "repository, `make venv` builds it.\n",
                HTTPStatus.NOT_IMPLEMENTED,
                media_type="text/plain",
            )

    return app


def _problem(status: int, error: str, remedy: str, code: str) -> JSONResponse:
    problem = schemas.ErrorBody(error=error, remedy=remedy, code=code)
    return JSONResponse(problem.model_dump(), status)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MarsRetrievalError)
    if isinstance(error, SupersededError):
        return _problem(HTTPStatus.CONFLICT, error.message, "", "superseded")
    status = next(
        (status for kind, status in _STATUS.items() if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    return _problem(status, error.message, error.remedy or "", type(error).__name__)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    detail: Any = error.detail
    if isinstance(detail, dict):
        return JSONResponse(detail, error.status_code)
    return _problem(error.status_code, str(detail), "", HTTPStatus(error.status_code).name.lower())


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return _problem(422, f"{where}: {first['msg']}", "See the OpenAPI description.", "invalid")


Page = Annotated[str, Header(alias="x-page", max_length=64)]
router = APIRouter(responses={422: {"model": schemas.ErrorBody}})


@router.get("/store")
def get_store(server: Context, store: StoreName = None) -> schemas.StoreInfo:
    """Describe a store."""
    map_store = server.store(store)
    inventory = server.inventory_of(map_store)
    embeddings = map_store.store.embeddings
    readable, sampled = server.images[map_store.name].sample()
    raster = map_store.raster
    return schemas.StoreInfo(
        name=map_store.name,
        path=str(map_store.store.path),
        stores=list(server.stores),
        tiles=embeddings.rows,
        positioned=map_store.positioned,
        missing=len(map_store.store.missing),
        set_hash=embeddings.set_hash,
        model=_model_state(map_store),
        raster=None
        if raster is None
        else schemas.RasterInfo(
            west=raster.west,
            north=raster.north,
            cell_lon=raster.cell_lon,
            cell_lat=raster.cell_lat,
            columns=raster.columns,
            rows=raster.rows,
        ),
        pictures=readable,
        sampled=sampled,
        inventory=None if inventory is None else inventory.name,
        read_only=server.read_only or (inventory is not None and bool(inventory.read_only)),
        read_only_reason="" if inventory is None else inventory.read_only,
        basemap=None if server.basemap is None else server.basemap_credit,
        landforms=list(LANDFORMS),
        version=__version__,
    )


def _model_state(store: MapStore) -> schemas.ModelState:
    return schemas.ModelState(
        id=store.store.model,
        state=store.model.state,
        reason=store.model.reason,
        text=store.has_text,
    )


@router.get("/events")
async def get_events(server: Context, store: StoreName = None) -> StreamingResponse:
    """Stream the state of the model, as server-sent events, until it is loaded or has failed."""
    map_store = server.store(store)

    async def events() -> AsyncIterator[str]:
        last = ""
        while True:
            state = _model_state(map_store)
            text = state.model_dump_json()
            if text != last:
                yield f"event: model\ndata: {text}\n\n"
                last = text
            if state.state != "loading":
                return
            await asyncio.sleep(0.3)

    return StreamingResponse(events(), media_type="text/event-stream")


@router.post("/pictures")
def post_pictures(
    server: Context, pictures: Annotated[list[UploadFile], File(max_length=_MAX_UPLOADS)]
) -> schemas.PicturesResponse:
    """Upload query images; they are kept in memory only."""
    images = []
    for upload in pictures:
        name = upload.filename or "image"
        data = upload.file.read(_MAX_PICTURE + 1)
        if len(data) > _MAX_PICTURE:
            raise UsageError(f"{name}: larger than {_MAX_PICTURE // 2**20} MiB")
        images.append((data, name))
    try:
        return schemas.PicturesResponse(ids=server.pictures.add(images))
    except MarsRetrievalError as error:
        raise UsageError(error.message, remedy=error.remedy) from error


@router.post("/searches", responses={409: {"model": schemas.ErrorBody}})
async def post_search(
    body: schemas.SearchBody, server: Context, page: Page = ""
) -> schemas.SearchResponse:
    """Rank all tiles. A newer search of the same page cancels an older one (status 409)."""
    number = server.newest[page] = server.newest.get(page, 0) + 1

    def is_current() -> bool:
        return server.newest.get(page) == number

    def run() -> schemas.SearchResponse:
        if not is_current():
            raise SupersededError("a newer search was requested")
        store = server.store(body.store)
        inventory = server.inventory_of(store)
        learned = None if inventory is None else inventory.learned
        prepared = store.prepare_search(body, server.pictures, learned)
        return describe_search(server, store, store.search(prepared, is_current))

    return await asyncio.get_running_loop().run_in_executor(server.worker, run)


@router.get("/searches/{key}/raster")
def get_raster(server: Context, key: str) -> Response:
    """Return the score codes of all pixels: uint8, row-major, north up, 0 where there is no tile.

    Columns and rows are those of `raster` of the store.
    """
    _, search = server.search(key)
    if search.raster is None:
        raise not_found("no tile of this store has a position")
    return Response(
        search.raster.tobytes(), media_type="application/octet-stream",
        headers={"cache-control": _WEEK},
    )  # fmt: skip


@router.get("/searches/{key}/hits")
def get_hits(
    server: Context,
    key: str,
    offset: Annotated[int, Query(ge=0, le=MAX_HITS)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 100,
    merge_deg: Annotated[float | None, Query(gt=0, le=90)] = None,
    cut: Annotated[int, Query(ge=0, le=255)] = 0,
) -> schemas.HitsPage:
    """Return a page of the exact ranking.

    With `merge_deg`, hits closer than this are one place; with `cut`, only tiles whose score code
    is at least this are listed.
    """
    store, search = server.search(key)
    most = int(search.codes.counts[max(1, cut) :].sum()) if cut else MAX_HITS
    hits = store.hits(search, min(most, MAX_HITS) if merge_deg else offset + limit + 1)
    if most < len(hits):
        hits = hits.take(range(most))
    if merge_deg is not None:
        hits = hits.merge(merge_deg)
    end = min(len(hits), offset + limit)
    return schemas.HitsPage(
        hits=hit_list(hits, offset, end, marks=marks_of(server, store)),
        offset=offset,
        more=end < min(len(hits), MAX_HITS),
    )


@router.get("/tiles/{tile:path}/image")
def get_image(server: Context, tile: str, size: int = 0, store: StoreName = None) -> Response:
    """Return the image of a tile: its longer side is `size` pixels, or unchanged for 0."""
    if size not in _SIZES:
        raise UsageError(f"size {size}", remedy=f"Use one of {', '.join(map(str, _SIZES))}.")
    map_store = server.store(store)
    image = server.images[map_store.name].load(_row(map_store, tile), size)
    if image.data is None:
        raise not_found(f"no image of {tile}: {image.reason}", "Name its folder with --images.")
    return Response(image.data, media_type=image.media_type, headers={"cache-control": _WEEK})


@router.get("/tiles/{tile:path}")
def get_tile(
    server: Context, tile: str, store: StoreName = None, search: str | None = None
) -> schemas.TileInfo:
    """Describe a tile, its neighbours, and pages about its position."""
    map_store = server.store(store)
    row = _row(map_store, tile)
    columns = map_store.tiles.take([row])
    lon, lat, width, height = (
        None if np.isnan(values[0]) else float(values[0])
        for values in (columns.lon, columns.lat, columns.width_deg, columns.height_deg)
    )
    score = None
    inventory = server.inventory_of(map_store)
    # In an audit, neither the score nor an earlier mark may influence the reader.
    is_hidden = inventory is not None and columns.ids[0] in inventory.hidden()
    if search is not None and not is_hidden:
        owner, past = server.search(search)
        if owner is map_store:
            score = float(map_store.store.embeddings.vectors([row])[0] @ past.result.query)
    return schemas.TileInfo(
        id=columns.ids[0],
        lon=None if lon is None else float(geo.wrap_lon(lon)),
        lat=lat,
        width_deg=width,
        height_deg=height,
        quad=None if lon is None or lat is None else geo.quad_name(lon, lat),
        source=columns.sources[0],
        score=score,
        mark=None if is_hidden else marks_of(server, map_store).get(columns.ids[0]),
        neighbours=map_store.neighbours(row),
        links=[]
        if lon is None or lat is None
        else [schemas.PageLink(title=link.text, url=link.href) for link in links_at(lon, lat)],
    )


def _row(store: MapStore, tile: str) -> int:
    row = store.tiles.find(tile)
    if row < 0:
        try:
            return int(rows_of(store.store.embeddings, [tile])[0])
        except UsageError as error:
            raise not_found(error.message, error.remedy or "") from error
    return int(row)


@router.get("/tiles")
def get_tiles(
    server: Context, bbox: Annotated[str, Query(max_length=100)], store: StoreName = None
) -> list[schemas.Footprint]:
    """Return the tiles in a box W,S,E,N, at most those nearest to its centre."""
    map_store = server.store(store)
    box = geo.Box.parse(bbox)
    return [
        schemas.Footprint(id=name, lon=lon, lat=lat, width_deg=width, height_deg=height)
        for name, lon, lat, width, height in map_store.tiles_in(box, _MAX_FOOTPRINTS)
    ]


@router.get("/features")
def get_features() -> list[schemas.NamedFeature]:
    """Return named features of Mars (IAU)."""
    return [
        schemas.NamedFeature(
            name=feature.name,
            kind=feature.type,
            lon=feature.lon,
            lat=feature.lat,
            size=float(np.degrees(1000 * feature.diameter_km / geo.MARS_RADIUS_M)),
        )
        for feature in features()
    ]


@router.get("/at")
def get_at(
    server: Context, lon: schemas.Lon, lat: schemas.Lat, store: StoreName = None
) -> schemas.HitInfo:
    """Return the tile that contains a position; rank and score are 0."""
    map_store = server.store(store)
    try:
        row = row_at(map_store.store.embeddings, lon, lat)
    except UsageError as error:
        raise not_found(error.message, error.remedy or "") from error
    columns = map_store.tiles.take([row])
    return schemas.HitInfo(
        rank=0, id=columns.ids[0], score=0.0,
        lon=float(geo.wrap_lon(columns.lon[0])), lat=float(columns.lat[0]),
        mark=marks_of(server, map_store).get(columns.ids[0]),
    )  # fmt: skip


@router.get("/basemap")
def get_basemap(server: Context) -> Response:
    """Return the base map: an image of -180 to 180 and 90 to -90 degrees."""
    if server.basemap is None:
        raise not_found("no base map", "Start the server with --basemap FILE.")
    if server.basemap.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
        return FileResponse(server.basemap, headers={"cache-control": _WEEK})
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(server.basemap) as image:
        image.convert("L").save(buffer, "jpeg", quality=88)
    return Response(buffer.getvalue(), media_type="image/jpeg", headers={"cache-control": _WEEK})


inventory_router = APIRouter(
    responses={status: {"model": schemas.ErrorBody} for status in (403, 404, 409, 422, 507)}
)


@inventory_router.get("/inventory")
def get_inventory(server: Context) -> schemas.InventoryInfo:
    """Describe the open inventory, its audit and its estimate."""
    return schemas.InventoryInfo.model_validate(server.require_inventory().summary())


@inventory_router.get("/marks")
def get_marks(server: Context) -> list[schemas.MarkInfo]:
    """Return all marked tiles."""
    return [
        schemas.MarkInfo(
            id=name, lon=None if lon is None else float(geo.wrap_lon(lon)), lat=lat, mark=mark
        )
        for name, lon, lat, mark in server.require_inventory().mark_rows()
    ]


@inventory_router.put("/marks/{tile:path}")
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


@inventory_router.delete("/marks/{tile:path}")
def delete_mark(server: Context, tile: TileId) -> schemas.Totals:
    """Take the mark of a tile back."""
    inventory = server.require_inventory(write=True)
    return schemas.Totals(**inventory.mark(Answer(tile, "none")))


@inventory_router.post("/learn")
async def post_learn(server: Context) -> schemas.SearchResponse:
    """Learn a ranking from the marks and rank all tiles by it.

    Status 422 if there are not both tiles marked yes and tiles marked no; the message says what is
    missing.
    """
    inventory = server.require_inventory(write=True)

    def run() -> schemas.SearchResponse:
        vector = inventory.learn()
        store = inventory.store
        prepared = store.prepare_search(schemas.SearchBody(learned=True), server.pictures, vector)
        return describe_search(server, store, store.search(prepared, lambda: True))

    return await asyncio.get_running_loop().run_in_executor(server.worker, run)


@inventory_router.post("/audits")
def post_audit(body: schemas.AuditRequest, server: Context) -> schemas.AuditInfo:
    """Freeze the ranking of the inventory and begin an audit of its first tiles."""
    inventory = server.require_inventory(write=True)
    audit = inventory.start_audit(body.domain, target=body.target, seed=body.seed)
    return schemas.AuditInfo.model_validate(audit)


@inventory_router.get("/audits/{number}/page")
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


@inventory_router.post("/audits/{number}/close")
def post_close(server: Context, number: int) -> schemas.InventoryInfo:
    """Close an audit, so that its marks may be learned from."""
    inventory = server.require_inventory(write=True)
    inventory.close_audit(number)
    return schemas.InventoryInfo.model_validate(inventory.summary())


@inventory_router.get("/estimate")
def get_estimate(server: Context) -> dict[str, Any]:
    """Return the estimate with all details, as `marsretrieval inventory estimate --json` does."""
    return server.require_inventory().estimate()


@inventory_router.post("/exports")
def post_export(body: schemas.ExportRequest, server: Context) -> schemas.ExportResponse:
    """Write a file into the folder `exports` of the inventory."""
    path, rows = server.require_inventory(write=True).export(body.format)
    return schemas.ExportResponse(name=path.name, path=str(path), rows=rows)


@inventory_router.get("/exports/{name}")
def get_export(server: Context, name: str) -> Response:
    """Return an exported file."""
    path = server.require_inventory().exported(name)
    if path is None:
        raise not_found(f"no export '{name}'", "Write it first (POST /exports).")
    return FileResponse(path, filename=name, headers={"cache-control": "no-store"})
