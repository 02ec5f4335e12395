"""Groups of options of the search command, and the checks that need no store."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.options import (
    check_output_files,
    choose_style,
)
from marsretrieval.errors import UsageError

if TYPE_CHECKING:
    from marsretrieval.plotting import Style

_query = partial(typer.Option, rich_help_panel="What to look for")
_selection = partial(typer.Option, rich_help_panel="Which tiles, how many")
_output = partial(typer.Option, rich_help_panel="Files")

Paths = list[Path] | None
Words = list[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """Options of the query vector."""

    text: Annotated[
        Words, _query(metavar="TEXT", help="Text query; repeat to average several texts.")
    ] = None
    raw: Annotated[
        bool,
        _query("--no-templates", "--raw", help="Encode texts without the three prompt templates."),
    ] = False
    image: Annotated[Paths, _query(metavar="FILE", help="Example image; repeatable.")] = None
    like: Annotated[
        Words,
        _query(
            "--similar-to",
            "--like",
            metavar="TILE",
            help="Id of an example tile, or STORE:ID; repeatable.",
        ),
    ] = None
    like_at: Annotated[
        Words,
        _query(
            "--similar-to-location",
            "--like-at",
            metavar="LON,LAT",
            help="Position of an example tile of the store; repeatable.",
        ),
    ] = None
    mix: Annotated[
        float,
        _query(
            "--image-weight",
            "--mix",
            min=0,
            max=1,
            help="Weight of the example images in a text+image query.",
        ),
    ] = 0.3
    not_text: Annotated[
        Words,
        _query("--negative-text", "--not-text", metavar="TEXT", help="Negative text; repeatable."),
    ] = None
    not_image: Annotated[
        Paths,
        _query(
            "--negative-image",
            "--not-image",
            metavar="FILE",
            help="Negative example image; repeatable.",
        ),
    ] = None
    not_like: Annotated[
        Words,
        _query(
            "--negative",
            "--not-like",
            metavar="TILE",
            help="Id of a negative example tile; repeatable.",
        ),
    ] = None
    not_weight: Annotated[
        float,
        _query(
            "--negative-weight",
            "--not-weight",
            min=0,
            max=1,
            help="Weight of the negative examples relative to the query.",
        ),
    ] = 0.25
    vector: Annotated[
        Path | None,
        _query(metavar="FILE", help="Query vector (.npy) instead of a text or examples."),
    ] = None

    def check(self, flags: Set[str]) -> None:
        """Refuse weights and --no-templates for queries that they do not affect.

        Args:
            flags: Options given on the command line.

        Raises:
            UsageError: If an option has no effect.
        """
        has_example = bool(self.image or self.like or self.like_at)
        has_negative = bool(self.not_text or self.not_image or self.not_like)
        for flag, applies, needs in (
            ("--image-weight", bool(self.text) and has_example, "a text and an example"),
            ("--negative-weight", has_negative, "a negative text, image or tile"),
            ("--no-templates", bool(self.text or self.not_text), "a text"),
            ("--keep-examples", bool(self.like or self.like_at or self.not_like), "a tile"),
        ):
            if flag in flags and not applies:
                raise UsageError(
                    f"{flag} requires {needs} in the query",
                    remedy="Add it, or leave it out.",
                )

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `Store.question`.

        Raises:
            UsageError: If a position of --similar-to-location is invalid.
        """
        from marsretrieval.search.tiles import parse_lonlat

        return {
            "text": self.text,
            "images": self.image or (),
            "like": self.like or (),
            "like_at": [parse_lonlat(position) for position in self.like_at or ()],
            "not_text": self.not_text or (),
            "not_images": self.not_image or (),
            "not_like": self.not_like or (),
            "raw": self.raw,
            "mix": self.mix,
            "not_weight": self.not_weight,
            "vector": self.vector,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionOptions:
    """Options of the tiles that are searched, and of the number of hits."""

    bbox: Annotated[
        str | None,
        _selection(metavar="W,S,E,N", help="Search only tiles centred in this box (degrees east)."),
    ] = None
    region: Annotated[
        Path | None,
        _selection(metavar="FILE", help="Search only tiles centred in the polygons of a file."),
    ] = None
    region_layer: Annotated[
        str | None, _selection(metavar="NAME", help="Layer of a --region file that has several.")
    ] = None
    count: Annotated[
        int | None,
        _selection(
            "--count", "-k", min=1, help="Number of hits (default: 500, or all with --min-score)."
        ),
    ] = None
    min_score: Annotated[float | None, _selection(help="Minimum cosine similarity of a hit.")] = (
        None
    )
    min_valid: Annotated[
        float | None,
        _selection(
            metavar="SHARE",
            min=0,
            max=1,
            help="Minimum share of valid pixels; 0 keeps empty tiles.",
        ),
    ] = None
    keep_examples: Annotated[
        bool, _selection("--keep-examples", help="Include the example tiles in the hits.")
    ] = False
    merge_deg: Annotated[
        float | None, _selection(metavar="DEG", help="Merge hits closer than DEG degrees.")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `Store.question`."""
        return {
            "bbox": self.bbox,
            "region": self.region,
            "region_layer": self.region_layer,
            "k": self.count,
            "min_score": self.min_score,
            "min_valid": self.min_valid,
            "keep_examples": self.keep_examples,
        }

    def check(self) -> None:
        """Check the options that the query does not check.

        Raises:
            UsageError: If the distance of --merge-deg is invalid.
        """
        if self.merge_deg is not None:
            from marsretrieval.search.hits import check_distance

            check_distance(self.merge_deg)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Options of the files that a search writes."""

    out: Annotated[
        Paths,
        _output(
            "--out",
            "-o",
            metavar="FILE",
            callback=check_output_files,
            help="Output file: .csv, .geojson, .parquet, .gpkg, .fgb, .shp, .shp.zip, a page with "
            "images: .html, or a map: .png, .svg, .pdf; repeatable.",
        ),
    ] = None
    page_images: Annotated[
        int | None,
        _output(metavar="N", min=0, help="Number of hits with an image in .html (default: 500)."),
    ] = None
    sheet: Annotated[
        Paths,
        _output(
            metavar="FILE",
            callback=check_output_files,
            help="Contact sheets of the images: .png, .jpg or .pdf; repeatable.",
        ),
    ] = None
    heatmap: Annotated[
        Paths,
        _output(
            metavar="FILE",
            callback=check_output_files,
            help="Scores of all tiles as GeoTIFF (.tif) or map (.png); repeatable.",
        ),
    ] = None
    heatmap_cell: Annotated[
        float | None,
        _output(metavar="DEG", help="Pixel size of the heat map (default: from the tiles)."),
    ] = None
    style: Annotated[str, _output(metavar="light|dark", help="Map style.")] = "light"
    basemap: Annotated[
        str,
        _output(
            metavar="viking|none|FILE", help="Image below wide maps: -180..180, 90..-90 degrees."
        ),
    ] = "viking"
    lon: Annotated[
        int, _output(metavar="180|360", help="Longitude range: 180 for -180..180, 360 for 0..360.")
    ] = 180

    @property
    def files(self) -> list[Path]:
        """All files, without their accompanying files."""
        return [*(self.out or ()), *(self.heatmap or ()), *(self.sheet or ())]

    @property
    def pages(self) -> list[Path]:
        """HTML pages among the files."""
        return [path for path in self.out or () if path.suffix.lower() == ".html"]

    @property
    def images_per_page(self) -> int:
        """Number of hits with an image in a page."""
        from marsretrieval.search.hits import PAGE_IMAGES

        return PAGE_IMAGES if self.page_images is None else self.page_images

    def check(self, flags: Set[str]) -> str | Style:
        """Check names and formats of the files, and the options that need a file.

        Args:
            flags: Options given on the command line.

        Returns:
            Style of maps and contact sheets.

        Raises:
            UsageError: If a format is unknown, a file is named twice, or an option has no file.
            OutputError: If a file cannot be written.
        """
        if self.out:
            from marsretrieval.search.export import check_hits_path

            for path in self.out:
                check_hits_path(path)
        if self.heatmap:
            from marsretrieval.search.heatmap import check_heatmap_path

            for path in self.heatmap:
                check_heatmap_path(path)
        if self.sheet:
            from marsretrieval.search.sheet import check_sheet_path

            for path in self.sheet:
                check_sheet_path(path)
        if self.page_images is not None and not self.pages:
            raise UsageError(
                "--page-images requires -o FILE.html", remedy="Add it, or leave the option out."
            )
        if self.heatmap_cell is not None and not self.heatmap:
            raise UsageError(
                "--heatmap-cell requires --heatmap", remedy="Add it, or leave the option out."
            )
        files = self.files
        for path in files:
            if files.count(path) > 1:
                raise UsageError(f"{path}: named twice", remedy="Give the files different names.")
        return choose_style(
            self.style, self.basemap, files, is_given=bool(flags & {"--style", "--basemap"})
        )
