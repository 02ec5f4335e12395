"""Types of the requests and responses of the HTTP API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Lon = Annotated[float, Field(ge=-360, le=360)]
Lat = Annotated[float, Field(ge=-90, le=90)]
Share = Annotated[float, Field(ge=0, le=1)]
Texts = Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=20)]
Ids = Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=200)]
MarkName = Literal["yes", "no", "unsure"]


class Request(BaseModel):
    """Base of the request bodies: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid")


class SearchBody(Request):
    """A query; see `SearchQuery` for the meaning of the parts.

    Attributes:
        text: Texts; their vectors are averaged.
        like: Ids of example tiles.
        like_at: Positions (lon, lat) in example tiles.
        pictures: Ids of uploaded images.
        not_text: Texts to search away from.
        not_like: Ids of tiles to search away from.
        not_pictures: Ids of uploaded images to search away from.
        raw: Send texts without the prompt templates.
        mix: Weight of images and tiles in a query that also has a text.
        not_weight: Weight of the negative examples.
        learned: Rank by what was learned from the marks of the inventory.
        bbox: West, south, east, north in degrees.
        region: GeoJSON geometry, feature or collection of polygons.
        store: Name of the store; the first one by default.
    """

    text: Texts = []
    like: Ids = []
    like_at: Annotated[list[tuple[Lon, Lat]], Field(max_length=200)] = []
    pictures: Ids = []
    not_text: Texts = []
    not_like: Ids = []
    not_pictures: Ids = []
    raw: bool = False
    mix: Share | None = None
    not_weight: Share | None = None
    learned: bool = False
    bbox: tuple[Lon, Lat, Lon, Lat] | None = None
    region: dict[str, Any] | None = None
    store: str | None = None


class MarkRequest(Request):
    """A mark of one tile.

    Attributes:
        mark: The decision.
        count: Number of features on the tile, if counted.
        tiles: Positive tiles of the tile's place, itself included, if counted.
        note: Free text.
        audit: Number of the audit that presented the tile.
        showing: `showing` of the tile in the page of the audit.
        search: Key of the search that found the tile; recorded with rank and score while the server
            keeps this search.
        rank: Rank of the tile in that search.
        score: Score of the tile in that search.
    """

    mark: MarkName
    count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    tiles: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    note: Annotated[str, Field(max_length=2000)] | None = None
    audit: int | None = None
    showing: int | None = None
    search: str | None = None
    rank: Annotated[int, Field(ge=1)] | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None


class AuditRequest(Request):
    """The start of an audit.

    Attributes:
        domain: Number of tiles at the top of the ranking of the inventory that the audit covers.
        target: Half-width of the interval, relative to the estimate, at which it may stop.
        seed: Seed of the random draws.
    """

    domain: Annotated[int, Field(ge=1)]
    target: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 0


class ExportRequest(Request):
    """An export of the inventory.

    Attributes:
        format: Name of the file to write.
    """

    format: str


class ErrorBody(BaseModel):
    """An error.

    Attributes:
        error: What is wrong.
        remedy: What to do; empty if nothing.
        code: A word for programs.
    """

    error: str
    remedy: str = ""
    code: str


class RasterInfo(BaseModel):
    """The raster of all tiles; see `web.raster.TileRaster`."""

    west: float
    north: float
    cell_lon: float
    cell_lat: float
    columns: int
    rows: int


class ModelState(BaseModel):
    """Whether texts and images can be searched for.

    Attributes:
        id: Id of the model that made the store.
        state: `none` if the model may not or cannot be loaded.
        reason: Why it is not ready.
        text: Whether the model has a text encoder.
    """

    id: str
    state: Literal["loading", "ready", "none"]
    reason: str = ""
    text: bool


class StoreInfo(BaseModel):
    """A store.

    Attributes:
        name: Name in requests.
        path: Folder.
        stores: Names of all stores of this server.
        tiles: Number of tiles.
        positioned: Number of tiles with a position.
        missing: Number of planned shards that are not finished.
        set_hash: Hash of the set of tiles.
        model: State of the model.
        raster: The raster of all tiles; None if no tile has a position.
        pictures: Of a sample of tiles, how many images can be read.
        sampled: Size of that sample.
        inventory: Name of the open inventory; None without one.
        read_only: Whether marks are refused.
        read_only_reason: Why marks are refused; empty without an inventory or a reason.
        basemap: Credit line of the base map; None without one.
        landforms: Example queries.
        version: Version of this package.
    """

    name: str
    path: str
    stores: list[str]
    tiles: int
    positioned: int
    missing: int
    set_hash: str
    model: ModelState
    raster: RasterInfo | None
    pictures: int
    sampled: int
    inventory: str | None
    read_only: bool
    read_only_reason: str
    basemap: str | None
    landforms: list[str]
    version: str


class HitInfo(BaseModel):
    """A tile in a ranking.

    Attributes:
        rank: Rank, from 1.
        id: Id of the tile.
        lon: Longitude of the centre in degrees, -180 to 180; None if unknown.
        lat: Latitude of the centre in degrees; None if unknown.
        score: Cosine similarity to the query.
        percentile: Percent of the tiles with a lower score.
        tiles: Number of hits that were merged into this place.
        mark: Mark of the tile in the inventory.
    """

    rank: int
    id: str
    lon: float | None
    lat: float | None
    score: float
    percentile: float | None = None
    tiles: int | None = None
    mark: MarkName | None = None


class SearchResponse(BaseModel):
    """A finished search.

    Attributes:
        key: Name of the search in other requests.
        about: Description of the query.
        title: The query in a few words.
        cli: Command that runs the same search.
        counts: Number of tiles per score code, see `web.raster.ScoreCodes`.
        edges: Lowest score per code; None for unused codes.
        bound: Largest error of a score in the raster.
        total: Number of tiles that were ranked.
        hits: The first hits.
        stands_out: Whether the best score stands out; None if unknown.
        notes: Remarks, such as texts that were truncated.
        ms: Milliseconds per step.
    """

    key: str
    about: dict[str, Any]
    title: str
    cli: str
    counts: list[int]
    edges: list[float | None]
    bound: float
    total: int
    hits: list[HitInfo]
    stands_out: bool | None
    notes: list[str]
    ms: dict[str, float]


class HitsPage(BaseModel):
    """A page of exact hits.

    Attributes:
        hits: Hits from `offset` on.
        offset: Number of hits before this page.
        more: Whether further hits exist.
    """

    hits: list[HitInfo]
    offset: int
    more: bool


class PageLink(BaseModel):
    """A page about a position."""

    title: str
    url: str


class TileInfo(BaseModel):
    """One tile.

    Attributes:
        id: Id of the tile.
        lon: Longitude of the centre in degrees; None if unknown.
        lat: Latitude of the centre in degrees; None if unknown.
        width_deg: Extent in longitude; None if unknown.
        height_deg: Extent in latitude; None if unknown.
        quad: CTX mosaic quad; None if unknown.
        source: File or archive member.
        score: Score in the search that was named; None without one.
        mark: Mark in the inventory.
        neighbours: Ids of the tiles around it in rows from the north west, None for gaps.
        links: Pages about the position.
    """

    id: str
    lon: float | None
    lat: float | None
    width_deg: float | None
    height_deg: float | None
    quad: str | None
    source: str
    score: float | None
    mark: MarkName | None
    neighbours: list[list[str | None]]
    links: list[PageLink]


class Footprint(BaseModel):
    """The place of a tile on the map, in degrees."""

    id: str
    lon: float
    lat: float
    width_deg: float
    height_deg: float


class NamedFeature(BaseModel):
    """A named feature of Mars; `size` is its diameter in degrees of a great circle."""

    name: str
    kind: str
    lon: float
    lat: float
    size: float


class MarkInfo(BaseModel):
    """The mark of a tile and its position in degrees."""

    id: str
    lon: float | None
    lat: float | None
    mark: MarkName


class Totals(BaseModel):
    """Numbers of tiles by their mark."""

    yes: int
    no: int
    unsure: int


class AuditInfo(BaseModel):
    """An open audit.

    Attributes:
        number: Number of the audit, from 1.
        domain: Tiles of the ranking that it covers.
        done: Tiles that have been answered.
        planned: Tiles that it will show, predicted from the answers so far.
        target: Half-width of the interval, relative to the estimate, at which it is complete.
        complete: Whether it needs no more answers.
    """

    number: int
    domain: int
    done: int
    planned: int
    target: float
    complete: bool


class AuditTile(BaseModel):
    """A tile of an audit's page, without score and rank.

    Attributes:
        id: Id of the tile.
        lon: Longitude of the centre in degrees; None if unknown.
        lat: Latitude of the centre in degrees; None if unknown.
        showing: Identifies this presentation of the tile in its mark; a tile may come twice.
        rank: Always 0.
        score: Always None.
    """

    id: str
    lon: float | None
    lat: float | None
    showing: int
    rank: Literal[0] = 0
    score: None = None


class AuditPage(BaseModel):
    """Tiles to mark in an audit.

    Attributes:
        number: Number of the audit.
        tiles: Tiles in mixed order; empty if the audit is complete.
        done: As of `AuditInfo`.
        planned: As of `AuditInfo`.
    """

    number: int
    tiles: list[AuditTile]
    done: int
    planned: int


class IntervalInfo(BaseModel):
    """An estimate with its 95 % interval."""

    estimate: float | None
    low: float | None
    high: float | None


class ElsewhereInfo(BaseModel):
    """Positive tiles outside the domain of an audit: at most `high`."""

    high: float | None


class EstimateInfo(BaseModel):
    """How many tiles and places there are; `GET /estimate` has all details.

    Attributes:
        tiles: Positive tiles.
        places: Positive tiles that touch count as one place.
        recall: Share of the positive tiles that are confirmed.
        elsewhere: Positive tiles outside the domain.
        domain: Tiles that the estimate is about.
        audited: Tiles of the random sample.
        sentence: The estimate in a sentence.
        half_width: Half-width of the interval of `tiles`, relative to the estimate.
    """

    tiles: IntervalInfo
    places: IntervalInfo
    recall: IntervalInfo
    elsewhere: ElsewhereInfo
    domain: int | None
    audited: int
    sentence: str
    half_width: float | None


class InventoryInfo(BaseModel):
    """The open inventory.

    Attributes:
        name: Name of its folder without the suffix.
        path: Its folder.
        landform: What is looked for.
        marked: Marked tiles.
        held_back: Marks of the open audit, from which nothing is learned until it is closed.
        learned: Whether a ranking has been learned.
        audit: The open audit; None if there is none.
        estimate: The estimate from all files of the inventory.
        read_only: Why marks are refused; empty if they are not.
    """

    name: str
    path: str
    landform: str
    marked: Totals
    held_back: int
    learned: bool
    audit: AuditInfo | None
    estimate: EstimateInfo
    read_only: str


class ExportResponse(BaseModel):
    """A written file: its name in `GET /exports/{name}`, its path on the server, its rows."""

    name: str
    path: str
    rows: int


class PicturesResponse(BaseModel):
    """Ids of uploaded images, in their order."""

    ids: list[str]
