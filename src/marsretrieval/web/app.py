"""The HTTP application: routes, error responses and static files."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    File,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from marsretrieval import __version__, geo
from marsretrieval.datasets import MAX_BYTES, decode_rgb
from marsretrieval.errors import MarsRetrievalError, UsageError
from marsretrieval.plotting.features import features
from marsretrieval.search import Hits, row_at, rows_of
from marsretrieval.search.page.links import links_at
from marsretrieval.web import schemas
from marsretrieval.web.images import MapImages
from marsretrieval.web.security import LOOPBACK, SecurityMiddleware
from marsretrieval.web.workspace import (
    MAX_HITS,
    MapStore,
    Pictures,
    Search,
    SupersededError,
    command_line,
)

API = "/api/v1"
LANDFORMS = (
    "alluvial fans", "glacier-like forms", "landslides", "pitted cones", "yardangs", "dunes",
    "gullies", "craters",
)  # fmt: skip
_SIZES = (0, 96, 160, 256, 512)
_MAX_UPLOADS = 10
_MAX_PAGE = 500
_MAX_FOOTPRINTS = 400
_WEEK = "private, max-age=604800, immutable"


@dataclass(slots=True)
class Server:
    """What the routes use.

    Attributes:
        stores: Stores by name, the first one is shown at start.
        images: Images of the tiles, by store name.
        basemap: Image of the whole planet, -180 to 180 and 90 to -90; None without one.
        basemap_credit: Credit line of the base map.
        read_only: Whether marks and exports are refused.
        pictures: Uploaded query images.
        worker: Runs one search at a time.
        newest: Number of the newest search by page.
    """

    stores: dict[str, MapStore]
    images: dict[str, MapImages]
    basemap: Path | None = None
    basemap_credit: str = ""
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


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _problem(status: int, error: str, remedy: str, code: str) -> JSONResponse:
    problem = schemas.Problem(error=error, remedy=remedy, code=code)
    return JSONResponse(problem.model_dump(), status)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MarsRetrievalError)
    if isinstance(error, SupersededError):
        return _problem(HTTPStatus.CONFLICT, error.message, "", "superseded")
    status = 422 if isinstance(error, UsageError) else HTTPStatus.INTERNAL_SERVER_ERROR
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


Context = Annotated[Server, Depends(_server)]
Page = Annotated[str, Header(alias="x-page", max_length=64)]
StoreName = Annotated[str | None, Query(max_length=1000)]
router = APIRouter(responses={422: {"model": schemas.Problem}})


@router.get("/store")
def get_store(server: Context, store: StoreName = None) -> schemas.StoreInfo:
    """Describe a store."""
    shown = server.store(store)
    embeddings = shown.store.embeddings
    readable, sampled = server.images[shown.name].sample()
    raster = shown.raster
    return schemas.StoreInfo(
        name=shown.name,
        path=str(shown.store.path),
        stores=list(server.stores),
        tiles=embeddings.rows,
        positioned=shown.positioned,
        missing=len(shown.store.missing),
        set_hash=embeddings.set_hash,
        model=_model_state(shown),
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
        inventory=None,
        read_only=server.read_only,
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
    shown = server.store(store)

    async def events() -> AsyncIterator[str]:
        last = ""
        while True:
            state = _model_state(shown)
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
    ids = []
    for upload in pictures:
        name = upload.filename or "image"
        data = upload.file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{name}: larger than {MAX_BYTES // 2**20} MiB")
        try:
            ids.append(server.pictures.add(decode_rgb(data, name)))
        except MarsRetrievalError as error:
            raise UsageError(error.message, remedy=error.remedy) from error
    return schemas.PicturesResponse(ids=ids)


@router.post("/searches", responses={409: {"model": schemas.Problem}})
async def post_search(
    body: schemas.SearchRequest, server: Context, page: Page = ""
) -> schemas.SearchResponse:
    """Rank all tiles. A newer search of the same page cancels an older one (status 409)."""
    number = server.newest[page] = server.newest.get(page, 0) + 1

    def is_current() -> bool:
        return server.newest.get(page) == number

    def run() -> schemas.SearchResponse:
        if not is_current():
            raise SupersededError("a newer search was requested")
        store = server.store(body.store)
        question = store.question(body, server.pictures.to_dict())
        return _describe_search(store, store.search(question, is_current))

    return await asyncio.get_running_loop().run_in_executor(server.worker, run)


def _describe_search(store: MapStore, search: Search) -> schemas.SearchResponse:
    about = dict(search.result.about)
    notes = []
    if truncated := about.get("truncated"):
        notes.append(
            f"{len(truncated)} of the texts exceed the context length of the model and were cut"
        )
    if without_data := about.get("without_data"):
        notes.append(f"{without_data:,} tiles without data were left out")
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
        hits=hit_list(search.result.hits),
        stands_out=search.result.stands_out,
        notes=notes,
        ms=search.ms,
    )


def hit_list(hits: Hits, start: int = 0, end: int | None = None) -> list[schemas.HitInfo]:
    """Convert hits to a response.

    Args:
        hits: The hits.
        start: First hit.
        end: Hit after the last; None for all.

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
        )
        for hit in hits[start:end]
    ]


def _title(about: dict[str, Any]) -> str:
    parts = [about["text"] or ""]
    if about["like"]:
        parts.append(f"like {', '.join(about['like'][:3])}")
    if about["images"]:
        count = len(about["images"])
        parts.append("like an uploaded image" if count == 1 else f"like {count} uploaded images")
    excluded = [*about["not_text"], *about["not_like"], *about["not_images"]]
    if excluded:
        parts.append(f"not {', '.join(excluded[:3])}")
    return ", ".join(part for part in parts if part)


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
        hits=hit_list(hits, offset, end), offset=offset, more=end < min(len(hits), MAX_HITS)
    )


@router.get("/tiles/{tile:path}/image")
def get_image(server: Context, tile: str, size: int = 0, store: StoreName = None) -> Response:
    """Return the image of a tile: its longer side is `size` pixels, or unchanged for 0."""
    if size not in _SIZES:
        raise UsageError(f"size {size}", remedy=f"Use one of {', '.join(map(str, _SIZES))}.")
    shown = server.store(store)
    image = server.images[shown.name].load(_row(shown, tile), size)
    if image.data is None:
        raise not_found(f"no image of {tile}: {image.reason}", "Name its folder with --images.")
    return Response(image.data, media_type=image.media_type, headers={"cache-control": _WEEK})


@router.get("/tiles/{tile:path}")
def get_tile(
    server: Context, tile: str, store: StoreName = None, search: str | None = None
) -> schemas.TileInfo:
    """Describe a tile, its neighbours, and pages about its position."""
    shown = server.store(store)
    row = _row(shown, tile)
    columns = shown.tiles.take([row])
    lon, lat, width, height = (
        None if np.isnan(values[0]) else float(values[0])
        for values in (columns.lon, columns.lat, columns.width_deg, columns.height_deg)
    )
    score = None
    if search is not None:
        owner, past = server.search(search)
        if owner is shown:
            score = float(shown.store.embeddings.vectors([row])[0] @ past.result.query)
    return schemas.TileInfo(
        id=columns.ids[0],
        lon=None if lon is None else float(geo.wrap_lon(lon)),
        lat=lat,
        width_deg=width,
        height_deg=height,
        quad=None if lon is None or lat is None else geo.quad_name(lon, lat),
        source=columns.sources[0],
        score=score,
        mark=None,
        neighbours=shown.neighbours(row),
        links=[]
        if lon is None or lat is None
        else [schemas.Link(title=link.text, url=link.href) for link in links_at(lon, lat)],
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
    shown = server.store(store)
    box = geo.Box.parse(bbox)
    return [
        schemas.Footprint(id=name, lon=lon, lat=lat, width_deg=width, height_deg=height)
        for name, lon, lat, width, height in shown.tiles_in(box, _MAX_FOOTPRINTS)
    ]


@router.get("/features")
def get_features() -> list[schemas.Feature]:
    """Return named features of Mars (IAU)."""
    return [
        schemas.Feature(
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
    shown = server.store(store)
    try:
        row = row_at(shown.store.embeddings, lon, lat)
    except UsageError as error:
        raise not_found(error.message, error.remedy or "") from error
    columns = shown.tiles.take([row])
    return schemas.HitInfo(
        rank=0, id=columns.ids[0], score=0.0,
        lon=float(geo.wrap_lon(columns.lon[0])), lat=float(columns.lat[0]),
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
