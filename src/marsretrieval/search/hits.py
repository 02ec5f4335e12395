"""Search hits: single tiles or clusters of merged tiles, compared with a catalogue of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import UsageError, as_float
from marsretrieval.search.index.find import known_of
from marsretrieval.text import verb

if TYPE_CHECKING:
    from marsretrieval.datasets.ground_truth import Points
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.search.scores import Background
    from marsretrieval.search.topk import Ranking


Domain = Literal[180, 360]

KNOWN_KM = 10.0  # a tile of 0.2 degrees reaches at most 8.4 km from its centre
PAGE_IMAGES = 500  # hits with an image on a page, unless set
NEAREST_FIELDS = ("nearest_name", "nearest_km", "known")
_DECIMALS = 9  # of degrees; 1e-9 degrees are 0.06 mm

_MAX_KM = np.pi * geo.MARS_RADIUS_M / 1000
_KM_DECIMALS = 3
_MAX_NAME = 28


@dataclass(frozen=True, slots=True)
class Hit:
    """One tile, or the best tile of a cluster.

    Attributes:
        rank: Rank, from 1.
        score: Cosine similarity to the query.
        id: Tile id.
        lon: Longitude of the centre, planetocentric degrees, east positive; None if unknown.
        lat: Latitude of the centre, planetocentric degrees; None if unknown.
        quad: CTX mosaic quad that contains the centre; None if unknown.
        source: Source file of the tile.
        tiles: Number of hits in the cluster; None if hits were not merged.
        shape: Footprint; the centre if the extent is unknown, None if the position is unknown.
        z: Standard deviations of the score above the store's mean.
        percentile: Percent of the store's tiles with a lower score.
        nearest_name: Name of the nearest feature of a catalogue; None if not compared.
        nearest_km: Great-circle distance of that feature from the centre.
        known: Whether that feature is near enough to be the same; None if not compared.
        store: Name of the store that holds the tile; None if one store was searched.
    """

    rank: int
    score: float
    id: str
    lon: float | None
    lat: float | None
    quad: str | None
    source: str
    tiles: int | None
    shape: geo.Shape | None
    z: float | None = None
    percentile: float | None = None
    nearest_name: str | None = None
    nearest_km: float | None = None
    known: bool | None = None
    store: str | None = None

    @property
    def name(self) -> str:
        """The id, or ``STORE:ID`` if several stores were searched."""
        return self.id if self.store is None else f"{self.store}:{self.id}"

    def record(self) -> dict[str, Any]:
        """Return the fields that are set as a table row, without shape and nearest feature."""
        row: dict[str, Any] = {"rank": self.rank, "score": self.score, "id": self.id}
        if self.store is not None:
            row["store"] = self.store
        row |= {"lon": self.lon, "lat": self.lat, "quad": self.quad}
        if self.tiles is not None:
            row["tiles"] = self.tiles
        row["source"] = self.source
        if self.z is not None:
            row |= {"z": self.z, "percentile": self.percentile}
        return row

    def nearest(self) -> dict[str, Any]:
        """Return the comparison with a catalogue as fields of a table row."""
        return {name: getattr(self, name) for name in NEAREST_FIELDS}


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The hits of one query in descending score order; a sequence of `Hit`.

    Attributes:
        scores: float32 array of shape (n,).
        ids: Tile ids.
        lon: Longitudes of the centres in degrees, within `domain`; None if unknown.
        lat: Latitudes of the centres in degrees; None if unknown.
        sources: Source files of the tiles.
        shapes: Footprints; the centre if the extent is unknown, None if the position is unknown.
        about: Description of the query, written to the metadata of output files.
        domain: Longitude range: 180 for -180 to 180, 360 for 0 to 360.
        tiles: Number of hits per cluster after `merge`; None before.
        z: Standard deviations of the scores above the store's mean, if computed.
        percentile: Percent of the store's tiles with a lower score, if computed.
        members: Footprints of the hits of each cluster after `merge`; None before.
        nearest_name: Names of the nearest features of a catalogue, if compared with one
            (`compare_with_catalogue`); None for hits without a position.
        nearest_km: Distances of these features in kilometres.
        known: Whether these features are near enough to be the same.
        stores: Names of the stores that hold the tiles; None if one store was searched.
    """

    scores: npt.NDArray[np.float32]
    ids: list[str]
    lon: list[float | None]
    lat: list[float | None]
    sources: list[str]
    shapes: list[geo.Shape | None]
    about: Mapping[str, Any] = field(default_factory=dict)
    domain: Domain = 180
    tiles: list[int] | None = None
    z: list[float] | None = None
    percentile: list[float] | None = None
    members: list[list[geo.Shape | None]] | None = None
    nearest_name: list[str | None] | None = None
    nearest_km: list[float | None] | None = None
    known: list[bool | None] | None = None
    stores: list[str] | None = None

    @classmethod
    def from_ranking(
        cls,
        store: EmbeddingStore,
        ranking: Ranking,
        *,
        query: int = 0,
        domain: int = 180,
        about: Mapping[str, Any] | None = None,
        without: Sequence[int] = (),
        most: int | None = None,
        background: Background | None = None,
    ) -> Hits:
        """Look up ids, positions and sources of the ranked rows of one query.

        Args:
            store: The store that was searched.
            ranking: Result of `exact_topk`.
            query: Index of the query in the ranking.
            domain: Longitude range of the hits, 180 or 360.
            about: Description of the query for the metadata of output files.
            without: Rows to leave out.
            most: Maximum number of hits; None for all.
            background: Score distribution of the query over the store, for `z` and `percentile`.

        Returns:
            The hits in the order of the ranking.

        Raises:
            UsageError: If `domain` is neither 180 nor 360.
            StoreError: If the store or its index is damaged.
        """
        scores, rows = ranking.hits(query)
        selected = np.flatnonzero(~np.isin(rows, np.asarray(without, dtype=np.int64)))[:most]
        columns = known_of(store).take(rows[selected])
        lon_range = lon_domain(domain)
        boxes = zip(columns.lon, columns.lat, columns.width_deg, columns.height_deg, strict=True)
        wrap = geo.wrap_lon if lon_range == 180 else geo.lon_180_to_360
        return cls(
            scores=scores[selected],
            ids=columns.ids,
            lon=_finite_or_none(wrap(columns.lon)),
            lat=_finite_or_none(columns.lat),
            sources=columns.sources,
            shapes=[geo.outline(*map(float, values), domain=lon_range) for values in boxes],
            about=about or {},
            domain=lon_range,
            stores=store.store_names(rows[selected]),
            z=None if background is None else _round_to_list(background.z(scores[selected]), 3),
            percentile=(
                None
                if background is None
                else _round_to_list(background.percentile(scores[selected]), 4)
            ),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        return Hit(
            rank=number + 1,
            score=round(float(self.scores[number]), 7),
            id=self.ids[number],
            lon=self.lon[number],
            lat=self.lat[number],
            quad=_quad(self.lon[number], self.lat[number]),
            source=self.sources[number],
            tiles=None if self.tiles is None else self.tiles[number],
            shape=self.shapes[number],
            z=None if self.z is None else self.z[number],
            percentile=None if self.percentile is None else self.percentile[number],
            nearest_name=None if self.nearest_name is None else self.nearest_name[number],
            nearest_km=None if self.nearest_km is None else self.nearest_km[number],
            known=None if self.known is None else self.known[number],
            store=None if self.stores is None else self.stores[number],
        )

    def __iter__(self) -> Iterator[Hit]:
        return (self[number] for number in range(len(self)))

    def records(self) -> Iterator[dict[str, Any]]:
        """Iterate over the hits as table rows, see `Hit.record`."""
        if self.known is None:
            return (hit.record() for hit in self)
        return ({**hit.record(), **hit.nearest()} for hit in self)

    def merge(self, deg: float) -> Hits:
        """Merge hits within `deg` degrees of a better hit into one cluster.

        Greedy by rank: the best remaining hit starts a cluster and takes all remaining hits within
        `deg` of its centre. A cluster therefore extends at most `deg` from its best tile, two best
        tiles are more than `deg` apart, and a large field of tiles becomes several clusters instead
        of one long chain. Hits without a position form clusters of one. Merging merged hits adds up
        their tile counts.

        Args:
            deg: Great-circle distance in degrees, above 0 and up to 180.

        Returns:
            One hit per cluster, in descending score order, with `tiles` set.

        Raises:
            UsageError: If `deg` is out of range.
        """
        deg = as_float(deg, "deg")  # JSON cannot serialize numpy scalars
        check_distance(deg)
        counts = self.tiles or [1] * len(self)
        best, clusters = _clusters(self.lon, self.lat, deg)
        merged = self.take(best)
        tiles = [sum(counts[member] for member in members) for members in clusters]
        shapes = self.members or [[shape] for shape in self.shapes]
        outlines = [[s for member in members for s in shapes[member]] for members in clusters]
        about = {**self.about, "merge_deg": deg}
        if merged.known is not None and "against" in about:
            about["against"] = {**about["against"], **count_known(merged.known)}
        return Hits(**{**_fields(merged), "tiles": tiles, "members": outlines, "about": about})

    def take(self, indices: Sequence[int]) -> Hits:
        """Select hits.

        Args:
            indices: Their numbers from 0, in the order of the result.

        Returns:
            The selected hits.
        """
        lists = {
            name: [getattr(self, name)[index] for index in indices]
            for name in (
                "ids",
                "lon",
                "lat",
                "sources",
                "shapes",
                "z",
                "percentile",
                "members",
                "stores",
                *NEAREST_FIELDS,
            )
            if getattr(self, name) is not None
        }
        return Hits(**{**_fields(self), **lists, "scores": self.scores[list(indices)]})


def check_distance(deg: float) -> None:
    """Check a merge distance.

    Args:
        deg: Great-circle distance in degrees.

    Raises:
        UsageError: If it is not above 0 and at most 180.
    """
    if not (np.isfinite(deg) and 0 < deg <= 180):
        raise UsageError(
            f"merging within {deg:g} degrees", remedy="Give a distance above 0, up to 180 degrees."
        )


def format_position(lon: float | None, lat: float | None) -> str:
    """Format a position with the letters of the hemispheres.

    Args:
        lon: Longitude in degrees, from 0 to 360 or from -180 to 180.
        lat: Latitude in degrees.

    Returns:
        Such as `137.4° E, 4.6° S`, with up to five decimals (0.6 m); empty if unknown.
    """
    if lon is None or lat is None:
        return ""
    east, north = "W" if lon < 0 else "E", "S" if lat < 0 else "N"
    return f"{round(abs(lon), 5):.9g}° {east}, {round(abs(lat), 5):.9g}° {north}"


def count_known(known: Sequence[bool | None]) -> dict[str, int]:
    """Count the hits near a feature of a catalogue.

    Args:
        known: Whether the nearest feature is near enough; None for hits without a position.

    Returns:
        Numbers of known and new hits and of those without a position.
    """
    values = list(known)
    return {
        "known": values.count(True),
        "new": values.count(False),
        "without_position": values.count(None),
    }


def lon_domain(lon: int) -> Domain:
    """Check a longitude range.

    Args:
        lon: 180 for -180 to 180 degrees, 360 for 0 to 360.

    Returns:
        The same number.

    Raises:
        UsageError: If it is neither 180 nor 360.
    """
    if lon == 180:
        return 180
    if lon == 360:
        return 360
    raise UsageError(f"longitudes to {lon}", remedy="Use 180 or 360.")


def _clusters(
    lon: Sequence[float | None], lat: Sequence[float | None], deg: float
) -> tuple[list[int], list[list[int]]]:
    """Return the indices of the clusters' best hits and the member indices of each cluster."""
    from scipy.spatial import cKDTree

    located = [i for i, value in enumerate(lon) if value is not None and lat[i] is not None]
    positions = np.array([(lon[i], lat[i]) for i in located], dtype=np.float64).reshape(-1, 2)
    xyz = geo.unit_vectors(positions[:, 0], positions[:, 1])
    chord = 2 * np.sin(np.radians(deg) / 2) * (1 + 1e-12)
    tree = cKDTree(xyz) if located else None
    number_of = {index: number for number, index in enumerate(located)}
    unassigned = np.ones(len(lon), dtype=np.bool_)
    best, members = [], []
    for index in range(len(lon)):
        if not unassigned[index]:
            continue
        near = [index]
        if tree is not None and index in number_of:
            around = tree.query_ball_point(xyz[number_of[index]], chord)
            near = [located[neighbour] for neighbour in around if unassigned[located[neighbour]]]
        unassigned[near] = False
        best.append(index)
        members.append(near)
    return best, members


def _fields(hits: Hits) -> dict[str, Any]:
    return {name: getattr(hits, name) for name in Hits.__slots__}


def _quad(lon: float | None, lat: float | None) -> str | None:
    """Return the CTX quad of a position; None if unknown or outside the mosaic's quads."""
    if lon is None or lat is None or not -88 <= lat < 88:
        return None
    return geo.quad_name(lon, lat)


def _round_to_list(values: npt.NDArray[np.float64], decimals: int) -> list[float]:
    return [float(value) for value in np.round(values, decimals)]


def _finite_or_none(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in np.round(values, _DECIMALS)]


def compare_with_catalogue(hits: Hits, catalogue: Points, *, km: float = KNOWN_KM) -> Hits:
    """Find the nearest feature of a catalogue for each hit.

    Distances are great circles on the sphere of Mars (radius 3,396.19 km) from the centre of the
    hit's tile; of two features at the same distance, the first of the catalogue is the nearest.

    Args:
        hits: Hits, merged or not.
        catalogue: Known features.
        km: Largest distance of a known hit in kilometres.

    Returns:
        The hits with `nearest_name`, `nearest_km` and `known`, None for hits without a position,
        and the counts in `about["against"]`.

    Raises:
        UsageError: If the distance is invalid.
    """
    check_known_km(km)
    from scipy.spatial import cKDTree

    lon = np.array([np.nan if value is None else value for value in hits.lon], np.float64)
    lat = np.array([np.nan if value is None else value for value in hits.lat], np.float64)
    located = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
    names: list[str | None] = [None] * len(hits)
    distances: list[float | None] = [None] * len(hits)
    known: list[bool | None] = [None] * len(hits)
    if located.size:
        tree = cKDTree(geo.unit_vectors(catalogue.lon, catalogue.lat))
        chord, _ = tree.query(geo.unit_vectors(lon[located], lat[located]))
        # Candidates within rounding of the least chord, so that ties go to the first feature.
        near = tree.query_ball_point(
            geo.unit_vectors(lon[located], lat[located]), chord + 1e-12, return_sorted=True
        )
        feature = np.array([numbers[0] for numbers in near], np.int64)
        degrees = geo.great_circle_deg(
            lon[located], lat[located], catalogue.lon[feature], catalogue.lat[feature]
        )
        kilometres = np.radians(degrees) * geo.MARS_RADIUS_M / 1000
        for index, number, distance in zip(
            located.tolist(), feature.tolist(), kilometres.tolist(), strict=True
        ):
            names[index] = catalogue.names[number] if catalogue.names else str(number + 1)
            distances[index] = round(distance, _KM_DECIMALS)
            known[index] = bool(distance <= km)
    against = {
        **catalogue.to_dict(),
        "file": None if catalogue.source is None else str(catalogue.source),
        "km": float(km),
        **count_known(known),
    }
    return replace(
        hits,
        nearest_name=names,
        nearest_km=distances,
        known=known,
        about={**hits.about, "against": against},
    )


def check_known_km(km: float) -> None:
    """Check the largest distance of a known hit.

    Args:
        km: Distance in kilometres.

    Raises:
        UsageError: If it is not above 0 and at most half the circumference of Mars.
    """
    km = as_float(km, "km")
    if not (np.isfinite(km) and 0 < km <= _MAX_KM):
        raise UsageError(
            f"known hits within {km:g} km", remedy="Give a distance above 0, such as 10 km."
        )


def describe_nearest(hit: Hit) -> str:
    """Describe the nearest known feature of a hit for a terminal.

    Args:
        hit: A hit compared with a catalogue, or not.

    Returns:
        "known", the distance and the feature; empty if not compared.
    """
    if hit.nearest_km is None or hit.nearest_name is None:
        return ""
    name = hit.nearest_name
    name = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 3] + "..."
    return f"  {'known' if hit.known else 'new':<5} {hit.nearest_km:8,.1f} km from {name}"


def describe_known(hits: Hits) -> str:
    """Describe how many hits are known.

    Args:
        hits: Hits compared with a catalogue.

    Returns:
        One line; empty if not compared.
    """
    against: dict[str, Any] | None = hits.about.get("against")
    if against is None:
        return ""
    what = "hits" if hits.tiles is None else "places"
    is_known = verb(against["known"], "is", "are")
    line = (
        f"{against['known']:,} of {len(hits):,} {what} {is_known} known "
        f"(within {against['km']:g} km of {against['file'] or 'the catalogue'}), "
        f"{against['new']:,} new"
    )
    if against["without_position"]:
        line += f", {against['without_position']:,} without a position"
    return line
