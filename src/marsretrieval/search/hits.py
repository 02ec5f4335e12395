"""What a search found: tiles, or places where several tiles were merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import UsageError
from marsretrieval.search.index.find import known_of

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.search.scores import Background
    from marsretrieval.search.topk import Ranking

Domain = Literal[180, 360]

_DECIMALS = 9  # of a degree: 0.06 mm


@dataclass(frozen=True, slots=True)
class Hit:
    """One tile, or the best tile of a place.

    rank from 1; score: the cosine with the query; lon, lat: the centre, planetocentric degrees,
    east positive, None where unknown; quad: the quad of the CTX mosaic that it lies in; tiles:
    how many hits the place holds, None where places were not asked for; shape: the footprint,
    the centre where the extent is unknown, None without a place. z: standard deviations of the
    score above the mean of the store; percentile: percent of the store's tiles that score lower.
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

    def record(self) -> dict[str, Any]:
        """All but the shape, as a row of a table; `tiles` only of a place."""
        row = {
            "rank": self.rank,
            "score": self.score,
            "id": self.id,
            "lon": self.lon,
            "lat": self.lat,
            "quad": self.quad,
        }
        if self.tiles is not None:
            row["tiles"] = self.tiles
        row["source"] = self.source
        if self.z is not None:
            row |= {"z": self.z, "percentile": self.percentile}
        return row


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The hits of one query, best first; a sequence of `Hit`.

    shapes: the footprint of each, its centre where the extent is unknown, None without a place.
    about: what was asked, for the files' metadata. Longitudes are -180..180 or 0..360 as `domain`
    says. tiles: hits of each place, after `merge`.
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

    @classmethod
    def of(
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
        """Look up what the store knows of the rows found for one query: at most `most`, and not
        the rows `without`."""
        scores, rows = ranking.hits(query)
        kept = np.flatnonzero(~np.isin(rows, np.asarray(without, dtype=np.int64)))[:most]
        found = known_of(store).take(rows[kept])
        turned = lon_domain(domain)
        places = zip(found.lon, found.lat, found.width_deg, found.height_deg, strict=True)
        turn = geo.wrap_lon if turned == 180 else geo.lon_180_to_360
        return cls(
            scores=scores[kept],
            ids=found.ids,
            lon=_known(turn(found.lon)),
            lat=_known(found.lat),
            sources=found.sources,
            shapes=[geo.outline(*map(float, place), domain=turned) for place in places],
            about=about or {},
            domain=turned,
            z=None if background is None else _rounded(background.z(scores[kept]), 3),
            percentile=(
                None if background is None else _rounded(background.percentile(scores[kept]), 4)
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
        )

    def __iter__(self) -> Iterator[Hit]:
        return (self[number] for number in range(len(self)))

    def records(self) -> Iterator[dict[str, Any]]:
        """One mapping a hit: rank, score, id, lon, lat, quad, tiles (of places), source."""
        return (hit.record() for hit in self)

    def merge(self, deg: float) -> Hits:
        """Hits nearer to each other than `deg` degrees (great circle) as one place.

        Greedy by rank: the best hit that is left makes a place and takes all that are left within
        `deg` of its centre. So a place reaches no further than `deg` from its best tile, two best
        tiles are always further apart than that, and a field of many tiles becomes several places
        side by side instead of one long chain. Hits without a position are places by themselves.
        Of merged hits the counts of tiles are added up.
        """
        deg = float(deg)  # numpy's scalars are no numbers to JSON
        check_distance(deg)
        counts = self.tiles or [1] * len(self)
        kept, sizes = _places(self.lon, self.lat, deg)
        merged = self._pick(kept)
        tiles = [sum(counts[member] for member in members) for members in sizes]
        return Hits(
            **{**_fields(merged), "tiles": tiles, "about": {**self.about, "merge_deg": deg}}
        )

    def _pick(self, kept: Sequence[int]) -> Hits:
        lists = {
            name: [getattr(self, name)[index] for index in kept]
            for name in ("ids", "lon", "lat", "sources", "shapes", "z", "percentile")
            if getattr(self, name) is not None
        }
        return Hits(**{**_fields(self), **lists, "scores": self.scores[list(kept)]})


def check_distance(deg: float) -> None:
    """Raises UsageError for a distance that no places can have."""
    if not (np.isfinite(deg) and 0 < deg <= 180):
        raise UsageError(
            f"merging within {deg:g} degrees", remedy="Give a distance above 0, up to 180 degrees."
        )


def lon_domain(lon: int) -> Domain:
    """180 or 360. Raises UsageError for another number."""
    if lon == 180:
        return 180
    if lon == 360:
        return 360
    raise UsageError(f"longitudes to {lon}", remedy="Use 180 or 360.")


def _places(
    lon: Sequence[float | None], lat: Sequence[float | None], deg: float
) -> tuple[list[int], list[list[int]]]:
    """Which hits are the best of a place, and the members of each."""
    from scipy.spatial import cKDTree

    known = [i for i, place in enumerate(lon) if place is not None and lat[i] is not None]
    places = np.array([(lon[i], lat[i]) for i in known], dtype=np.float64).reshape(-1, 2)
    xyz = geo.unit_vectors(places[:, 0], places[:, 1])
    chord = 2 * np.sin(np.radians(deg) / 2) * (1 + 1e-12)
    tree = cKDTree(xyz) if known else None
    number_of = {index: number for number, index in enumerate(known)}
    free = np.ones(len(lon), dtype=np.bool_)
    best, members = [], []
    for index in range(len(lon)):
        if not free[index]:
            continue
        near = [index]
        if tree is not None and index in number_of:
            around = tree.query_ball_point(xyz[number_of[index]], chord)
            near = [known[each] for each in around if free[known[each]]]
        free[near] = False
        best.append(index)
        members.append(near)
    return best, members


def _fields(hits: Hits) -> dict[str, Any]:
    return {name: getattr(hits, name) for name in Hits.__slots__}


def _quad(lon: float | None, lat: float | None) -> str | None:
    """The quad at a position; None without one, and where the mosaic has no quads."""
    if lon is None or lat is None or not -88 <= lat < 88:
        return None
    return geo.quad_name(lon, lat)


def _rounded(values: npt.NDArray[np.float64], decimals: int) -> list[float]:
    return [float(value) for value in np.round(values, decimals)]


def _known(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [float(each) if np.isfinite(each) else None for each in np.round(values, _DECIMALS)]
