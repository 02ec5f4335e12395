"""What a search found, and what one does with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import TruncatedTextWarning
from marsretrieval.geo import Region
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import Heatmap, Hit, Hits, check_heatmap_path, heatmap_of, write_hits
from marsretrieval.search.scores import MIN_Z, Background

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.api.query import Question
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.encoders import Encoder
    from marsretrieval.plotting import PlanetMap

_MAX_SHOWN = 10


class ScoredStore(Protocol):
    """A store whose rows can be scored with a query vector."""

    @property
    def embeddings(self) -> EmbeddingStore:
        """The embeddings of the tiles."""

    def scores(
        self, query: npt.ArrayLike, *, progress: Progress = NO_PROGRESS
    ) -> npt.NDArray[np.float32]:
        """Compute the cosine of every row with a query vector."""


@dataclass(frozen=True, repr=False, eq=False)
class SearchResult:
    """Hits, best first: a sequence of `search.Hit`.

    query: (dimension,) the vector that was searched for; region: where.
    """

    hits: Hits
    query: npt.NDArray[np.float32]
    store: ScoredStore
    region: Region | None = None

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
        """What was asked: store, model, text, images, ..."""
        return self.hits.about

    @property
    def truncated(self) -> list[str]:
        """Texts of the query that are longer than the model reads."""
        return list(self.about.get("truncated") or [])

    @property
    def stands_out(self) -> bool | None:
        """Whether the best score stands out in this store; None where unknown.

        A text stands out if its best score is above those of twelve meaningless texts, another
        query if its best score is at least two standard deviations above the mean.
        """
        scores = self.about.get("scores") or {}
        return scores.get("stands_out")

    def merge(self, deg: float) -> SearchResult:
        """Hits within `deg` degrees of a better one as one place with it: `Hits.merge`."""
        return replace(self, hits=self.hits.merge(deg))

    def to_geodataframe(self) -> GeoDataFrame:
        """Footprints and columns, CRS IAU_2015:49900. Needs the extra `gis`."""
        from marsretrieval.search.export import to_geodataframe

        return to_geodataframe(self.hits)

    def write(self, path: str | Path, *, style: str = "light") -> list[Path]:
        """Write a file as its name says (`search.FORMATS`: .csv, .geojson, .parquet, .gpkg, .fgb,
        .shp, .shp.zip, .png, ...). Returns what was written, the style for QGIS included."""
        return write_hits(self.hits, Path(path), style=style)

    def to_csv(self, path: str | Path) -> list[Path]:
        """Write a table with outlines as WKT; the name gets `.csv` where it lacks it. Returns what
        was written."""
        return self._write(path, ".csv")

    def to_geojson(self, path: str | Path) -> list[Path]:
        """Write GeoJSON; the name gets `.geojson` where it has neither this nor `.json`. Returns
        what was written, the style for QGIS included."""
        return self._write(path, ".geojson", ".json")

    def to_parquet(self, path: str | Path) -> list[Path]:
        """Write GeoParquet; the name gets `.parquet` where it lacks it. Returns what was written,
        the style for QGIS included."""
        return self._write(path, ".parquet")

    def map(self, *, style: str = "light", title: str | None = None) -> PlanetMap:
        """A map of the hits."""
        from marsretrieval.search.maps import draw_hits

        return draw_hits(self.hits, style=style, title=title)

    def heatmap(
        self,
        path: str | Path | None = None,
        *,
        cell: float | None = None,
        style: str = "light",
        progress: Progress = NO_PROGRESS,
    ) -> Heatmap:
        """The score of every tile of the store (or of the region), not of the hits alone, as a
        raster: `search.heatmap_of`. With `path` it is written as well, a GeoTIFF (.tif) or a map
        with the hits on it (.png, .svg, .pdf)."""
        if path is not None:
            check_heatmap_path(Path(path))
        heat = heatmap_of(
            self.store.embeddings,
            self.store.scores(self.query, progress=progress),
            region=self.region,
            cell=cell,
            domain=self.hits.domain,
            min_valid=self.about.get("min_valid"),
            about=self.about,
        )
        if path is not None:
            heat.write(Path(path), hits=self.hits, style=style)
        return heat

    def _write(self, path: str | Path, *suffixes: str) -> list[Path]:
        target = Path(path)
        if target.suffix.lower() not in suffixes:
            target = target.with_name(target.name + suffixes[0])
        return write_hits(self.hits, target)

    def _repr_html_(self) -> str:
        """The first hits as a table, for notebooks."""
        rows = [hit.record() for hit in self[:_MAX_SHOWN]]
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


_MIN_TILES = 30  # below, no distribution


def warn_truncated(question: Question, encoder: Encoder, context: int | None) -> list[str]:
    """Find the texts of a question that the model does not read to their end, and warn.

    Args:
        question: A search that has texts.
        encoder: The model that embeds them.
        context: Its context length in tokens, where known.

    Returns:
        The texts, wanted or not, of which at least one prompt is cut.
    """
    cut = [text for text, prompts in question.prompts() if encoder.count_truncated(prompts)]
    limit = "its context length" if context is None else f"its context length of {context} tokens"
    for text in cut:
        warnings.warn(
            f"{encoder.id} reads a text up to {limit} only, so the end of this one has no "
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
        meaningless: For a query of text alone, the same of each of `MEANINGLESS`; otherwise None.

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
