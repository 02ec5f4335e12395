"""Results of a search: hits, maps, files and score statistics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import (
    MarsRetrievalWarning,
    MissingDependencyError,
    TruncatedTextWarning,
    as_optional,
    as_path,
)
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.hits import KNOWN_KM, PAGE_IMAGES, Hit, Hits
from marsretrieval.search.scores import MIN_Z, Background

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame

    from marsretrieval.api.query import PreparedSearch
    from marsretrieval.datasets.ground_truth import Points
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.encoders import Encoder
    from marsretrieval.geo import Region
    from marsretrieval.plotting import PlanetMap, Style
    from marsretrieval.search.heatmap import Heatmap
    from marsretrieval.search.page import QueryImage
    from marsretrieval.search.thumbnails import TileImages

_MAX_SHOWN = 10  # hits in a notebook table
_MIN_TILES = 30  # fewer scores do not describe a distribution


class ScoredStore(Protocol):
    """A store whose rows can be scored with a query vector."""

    @property
    def embeddings(self) -> EmbeddingStore:
        """The embeddings of the tiles."""

    def scores(
        self, query: npt.ArrayLike, *, progress: Progress = NO_PROGRESS
    ) -> npt.NDArray[np.float32]:
        """Compute the cosine of every row with a query vector.

        Args:
            query: Vector of shape (dimension,).
            progress: Progress display.

        Returns:
            float32 array of shape (rows,).
        """


@dataclass(frozen=True, repr=False, eq=False)
class SearchResult:
    """Sequence of `search.Hit` in descending score order.

    Attributes:
        hits: The hits as columns.
        query: float32 query vector of shape (dimension,).
        store: The searched store.
        region: Area that contains the centres of the hits; None: the planet.
        prepared: The request; None: a page shows no example images.
    """

    hits: Hits
    query: npt.NDArray[np.float32]
    store: ScoredStore
    region: Region | None = None
    prepared: PreparedSearch | None = None

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self.hits[index]

    def __repr__(self) -> str:
        what = "hits" if self.hits.tiles is None else "places"
        best = f", best {self[0].score:.4f} {self[0].id}" if len(self) else ""
        return f"<SearchResult: {len(self):,} {what}{best}>"

    @property
    def about(self) -> Mapping[str, Any]:
        """Description of the request: store, model, text, images and options."""
        return self.hits.about

    @property
    def truncated(self) -> list[str]:
        """Texts of the query that exceed the context length of the model."""
        return list(self.about.get("truncated") or [])

    @property
    def stands_out(self) -> bool | None:
        """Whether the best score stands out in this store; None if unknown.

        A text stands out if its best score is above those of twelve meaningless texts, another
        query if its best score is at least two standard deviations above the mean.
        """
        scores = self.about.get("scores") or {}
        return scores.get("stands_out")

    def merge(self, deg: float) -> SearchResult:
        """Merge hits closer than a distance into the best of them, see `Hits.merge`.

        Args:
            deg: Distance in degrees of great circle.

        Returns:
            A result with one hit per cluster.

        Raises:
            UsageError: If the distance is invalid.
        """
        return replace(self, hits=self.hits.merge(deg))

    def against(self, catalogue: str | Path | Points, *, km: float = KNOWN_KM) -> SearchResult:
        """Compare the hits with a catalogue of known features.

        Args:
            catalogue: File of `datasets.read_points`, or the points it returns, where columns or
                a layer must be chosen.
            km: Largest distance of a known hit from a feature, in kilometres.

        Returns:
            A result whose hits, tables and files have `nearest_name`, `nearest_km` and `known`;
            the counts are in `about["against"]`.

        Raises:
            UsageError: If the distance is invalid.
            DataError: If the catalogue cannot be read.
        """
        from marsretrieval.datasets.ground_truth import Points, read_points
        from marsretrieval.search.hits import check_known_km, compare_with_catalogue

        check_known_km(km)
        points = catalogue if isinstance(catalogue, Points) else read_points(catalogue)
        if points is not catalogue:
            for note in points.notes:
                warnings.warn(note, MarsRetrievalWarning, stacklevel=2)
        return replace(self, hits=compare_with_catalogue(self.hits, points, km=km))

    def to_dataframe(self) -> pd.DataFrame:
        """Convert to a table with one row per hit, without outlines.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError("pandas", "gis", needed_for="data frames") from error
        if not len(self.hits):  # the columns of a table with hits
            from marsretrieval.search.export import to_arrow

            frame: pd.DataFrame = to_arrow(self.hits).drop_columns(["area_km2"]).to_pandas()
            return frame
        return pd.DataFrame(list(self.hits.records()))

    def to_geodataframe(self) -> GeoDataFrame:
        """Convert to a GeoDataFrame of tile footprints, CRS IAU_2015:49900.

        Returns:
            One row per hit, with the columns of the file formats.

        Raises:
            MissingDependencyError: If the extra `gis` is not installed.
        """
        from marsretrieval.search.export import to_geodataframe

        return to_geodataframe(self.hits)

    def write(
        self,
        path: str | Path,
        *,
        style: str | Style = "light",
        page_images: int = PAGE_IMAGES,
        command: str | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> list[Path]:
        """Write a file in the format of its suffix, one of `search.FORMATS`.

        Args:
            path: File to write: .csv, .geojson, .parquet, .gpkg, .fgb, .shp, .shp.zip, .png, ...,
                or .html for a page with images, map and marks.
            style: Map style, light or dark, or a `plotting.Style`.
            page_images: Number of hits with an image on a page.
            command: Command shown on a page; None: made from the request.
            progress: Progress display.

        Returns:
            Files written, including a QGIS style where the format has one.

        Raises:
            UsageError: If the suffix or the style is unknown.
            OutputError: If the file cannot be written.
        """
        from marsretrieval.search.export import check_hits_path, write_hits

        target = as_path(path, "path")
        if check_hits_path(target).suffix != ".html":
            return write_hits(self._described(), target, style=style)
        from marsretrieval.search.page import write_page

        write_page(
            self._described(),
            target,
            store=self.store.embeddings,
            tile_images=self.images,
            images=page_images,
            examples=self._examples(),
            command=command,
            progress=progress,
        )
        return [target]

    def sheet(
        self,
        path: str | Path,
        *,
        style: str | Style = "light",
        progress: Progress = NO_PROGRESS,
    ) -> list[Path]:
        """Write contact sheets: the images with rank, score and position.

        Args:
            path: File to write: .png, .jpg or .pdf. Several sheets are numbered (`hits-1.png`); a
                PDF has several pages.
            style: Colour scheme, light or dark, or a `plotting.Style`.
            progress: Progress display.

        Returns:
            Files written.

        Raises:
            UsageError: If the suffix or the style is unknown, or there are too many hits.
            OutputError: If a file cannot be written.
        """
        from marsretrieval.search.sheet import write_sheet

        summary = write_sheet(
            self.hits,
            as_path(path, "path"),
            tile_images=self.images,
            style=style,
            progress=progress,
        )
        return list(summary.paths)

    @cached_property
    def images(self) -> TileImages:
        """Thumbnails of the store's tiles, kept in memory once they are loaded."""
        from marsretrieval.search.thumbnails import TileImages

        return TileImages(self.store.embeddings)

    def to_csv(self, path: str | Path) -> list[Path]:
        """Write a CSV table with footprints as WKT.

        Args:
            path: File to write; `.csv` is appended if missing.

        Returns:
            Files written.

        Raises:
            OutputError: If the file cannot be written.
        """
        return self._write(path, ".csv")

    def to_geojson(self, path: str | Path) -> list[Path]:
        """Write GeoJSON.

        Args:
            path: File to write; `.geojson` is appended unless it ends in `.geojson` or `.json`.

        Returns:
            Files written, including the QGIS style.

        Raises:
            OutputError: If the file cannot be written.
        """
        return self._write(path, ".geojson", ".json")

    def to_parquet(self, path: str | Path) -> list[Path]:
        """Write GeoParquet.

        Args:
            path: File to write; `.parquet` is appended if missing.

        Returns:
            Files written, including the QGIS style.

        Raises:
            OutputError: If the file cannot be written.
        """
        return self._write(path, ".parquet")

    def map(self, *, style: str | Style = "light", title: str | None = None) -> PlanetMap:
        """Draw a map of the hits.

        Args:
            style: Map style, light or dark, or a `plotting.Style`.
            title: Title; None for the query.

        Returns:
            The map.
        """
        from marsretrieval.search.maps import draw_hits

        return draw_hits(self._described(), style=style, title=title)

    def heatmap(
        self,
        path: str | Path | None = None,
        *,
        cell: float | None = None,
        style: str | Style = "light",
        progress: Progress = NO_PROGRESS,
    ) -> Heatmap:
        """Rasterize the scores of all tiles of the store or region, see `search.heatmap_of`.

        Args:
            path: File to write as well: a GeoTIFF (.tif) or a map with the hits (.png, .svg, .pdf).
            cell: Cell size in degrees; None: chosen from the tile size.
            style: Map style, light or dark, or a `plotting.Style`.
            progress: Progress display.

        Returns:
            The raster.

        Raises:
            UsageError: If the suffix or the cell size is invalid.
            OutputError: If the file cannot be written.
        """
        from marsretrieval.search.heatmap import check_heatmap_path, heatmap_of

        target = as_optional(as_path, path, "path")
        if target is not None:
            check_heatmap_path(target)
        heat = heatmap_of(
            self.store.embeddings,
            self.store.scores(self.query, progress=progress),
            region=self.region,
            cell=cell,
            domain=self.hits.domain,
            min_valid=self.about.get("min_valid"),
            about=self._described().about,
        )
        if target is not None:
            heat.write(target, hits=self.hits, style=style)
        return heat

    def _write(self, path: str | Path, *suffixes: str) -> list[Path]:
        from marsretrieval.search.export import write_hits

        target = as_path(path, "path")
        if target.suffix.lower() not in suffixes:
            target = target.with_name(target.name + suffixes[0])
        return write_hits(self._described(), target)

    def _described(self) -> Hits:
        """Return the hits with hashes and extent of the store in `about`, for files and maps."""
        from marsretrieval.search.provenance import provenance
        from marsretrieval.search.tiles import searched_extent

        store = self.store.embeddings
        about = {**provenance(self.about, store), "extent": searched_extent(store, self.region)}
        return replace(self.hits, about=about)

    def _examples(self) -> list[QueryImage]:
        """Example images and tiles of the request, positive and negative."""
        from marsretrieval.search.page import QueryImage
        from marsretrieval.search.tiles import tile_names

        prepared = self.prepared
        if prepared is None:
            return []
        examples: list[QueryImage] = []
        for names, pictures, rows, is_negative in (
            ("images", prepared.images, prepared.tiles, False),
            ("not_images", prepared.not_images, prepared.not_tiles, True),
        ):
            examples += [
                QueryImage(name, picture, negative=is_negative)
                for name, picture in zip(self.about[names], pictures, strict=True)
            ]
            if rows:
                store = self.store.embeddings
                tiles = store.take(rows)
                images = self.images.load(tiles.ids, tiles.sources, store.store_names(rows))
                examples += [
                    QueryImage(name, tile.image, tile.reason, is_negative)
                    for name, tile in zip(tile_names(store, rows), images, strict=True)
                ]
        return examples

    def _repr_html_(self) -> str:
        """Render the first hits as an HTML table for notebooks."""
        rows = list(islice(self.hits.records(), _MAX_SHOWN))
        if not rows:
            return "<p>no hits</p>"
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(_format_cell(cell))}</td>' for cell in row.values())}</tr>"
            for row in rows
        )
        more = f"<p>and {len(self) - _MAX_SHOWN:,} more</p>" if len(self) > _MAX_SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def warn_truncated(prepared: PreparedSearch, encoder: Encoder, context: int | None) -> list[str]:
    """Warn about the texts of a request that exceed the context length of the model.

    Args:
        prepared: A request that has texts.
        encoder: The model that embeds them.
        context: Its context length in tokens; None if unknown.

    Returns:
        Texts, positive or negative, of which at least one prompt is truncated.
    """
    cut = [text for text, prompts in prepared.prompts() if encoder.count_truncated(prompts)]
    limit = "its context length" if context is None else f"its context length of {context} tokens"
    for text in cut:
        warnings.warn(
            f"{encoder.id} truncates texts at {limit}, so the end of this text has no "
            f"effect: '{shorten(text, 72, placeholder=' ...')}'",
            TruncatedTextWarning,
            stacklevel=5,
        )
    return cut


def summarize_scores(
    background: Background, best: float | None, meaningless: Sequence[Background] | None
) -> dict[str, Any]:
    """Summarize how far the best score of a search stands out from the store.

    Args:
        background: Scores of the query over the store.
        best: Score of the best hit; None without hits.
        meaningless: Scores of each of `MEANINGLESS` for a query of text alone; otherwise None.

    Returns:
        A JSON object. `stands_out` is None without hits and for stores of fewer than 30 tiles.
    """
    is_comparable = best is not None and background.rows >= _MIN_TILES
    meaningless_best = (
        max(other.best() for other in meaningless) if is_comparable and meaningless else None
    )
    best_z = None if best is None else float(background.z([best])[0])
    if not is_comparable or best is None or best_z is None:
        stands_out = None
    elif meaningless_best is not None:
        stands_out = best > meaningless_best
    else:
        stands_out = best_z >= MIN_Z
    sampled = len(background.scores)
    return {
        "tiles": background.rows,
        "sampled": sampled,
        "mean": round(background.mean, 7) if sampled else None,
        "std": round(background.std, 7) if sampled else None,
        "best_z": None if best_z is None else round(best_z, 3),
        "meaningless_best": None if meaningless_best is None else round(meaningless_best, 7),
        "stands_out": stands_out,
    }
