"""Options shared by several commands, and their parsing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from marsretrieval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from marsretrieval.datasets.ground_truth import Points
    from marsretrieval.datasets.positions import PositionColumns
    from marsretrieval.embeddings.pipeline import DecodeIn
    from marsretrieval.encoders.base import LoadOptions, PromptPreset
    from marsretrieval.plotting import Style

_MODEL_PANEL = "The model"
MODEL_NAMES = (
    "Registry id, oc:ARCHITECTURE/PRETRAINED (open_clip), hf:REPOSITORY, timm:NAME, st:NAME, "
    "mteb:NAME or module:Class"
)

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_MODEL_PANEL,
        help="Local weights (file or folder).",
    ),
]
Prompts = Annotated[
    str,
    typer.Option(
        metavar="paper|official",
        rich_help_panel=_MODEL_PANEL,
        help="Prompt templates of the published code or of the model's authors.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        rich_help_panel=_MODEL_PANEL,
        help="Device: auto, cpu, cuda, cuda:1 (one GPU) or mps.",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="DTYPE",
        rich_help_panel=_MODEL_PANEL,
        help="Precision of the model: auto, float32, float16 or bfloat16.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1_000_000,
        rich_help_panel=_MODEL_PANEL,
        help="Images per batch (default: chosen for the device).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=4096,
        rich_help_panel=_MODEL_PANEL,
        help="Number of image decoding workers (default: number of CPUs).",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", rich_help_panel=_MODEL_PANEL, help="Load weights from local files only."
    ),
]
DecodeInOption = Annotated[
    str,
    typer.Option(
        "--decode-in",
        metavar="auto|threads|processes",
        rich_help_panel=_MODEL_PANEL,
        help="Kind of decoding workers; processes feed a fast GPU.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        rich_help_panel=_MODEL_PANEL,
        help="Run code from a model's repository (unsafe).",
    ),
]

_INTERVALS_PANEL = "Confidence intervals"
_POINTS_PANEL = "Point catalogues"

Seed = Annotated[
    int,
    typer.Option(min=0, rich_help_panel=_INTERVALS_PANEL, help="Seed of the bootstrap."),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        rich_help_panel=_INTERVALS_PANEL,
        help="Seed of bootstrap and examples (default 0); repeatable.",
    ),
]
# More resamples would not change the printed digits of a percentile, and each needs memory.
Resamples = Annotated[
    int,
    typer.Option(
        min=0,
        max=100_000,
        rich_help_panel=_INTERVALS_PANEL,
        help="Number of bootstrap resamples for 95 % intervals; 0: none.",
    ),
]
LonColumn = Annotated[
    str | None,
    typer.Option(
        "--lon-column",
        metavar="NAME",
        rich_help_panel=_POINTS_PANEL,
        help="Longitude column (default: by common names).",
    ),
]
LatColumn = Annotated[
    str | None,
    typer.Option(
        "--lat-column",
        metavar="NAME",
        rich_help_panel=_POINTS_PANEL,
        help="Latitude column (default: by common names).",
    ),
]
LonWest = Annotated[
    bool | None,
    typer.Option(
        "--lon-west/--lon-east",
        rich_help_panel=_POINTS_PANEL,
        help="Direction of positive longitudes (default: by the column's name).",
        show_default=False,
    ),
]
NameColumn = Annotated[
    str | None,
    typer.Option(
        "--name-column",
        metavar="NAME",
        rich_help_panel=_POINTS_PANEL,
        help="Column of feature names (default: by common names).",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        rich_help_panel=_POINTS_PANEL,
        help="Layer of a catalogue that has several.",
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_POINTS_PANEL,
        metavar="CATALOGUE",
        help="Mark hits near a feature of this catalogue as known.",
    ),
]
AgainstKm = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_POINTS_PANEL,
        metavar="KM",
        help="Largest distance of a known hit (default: 10).",
    ),
]
CoveredOnly = Annotated[
    bool,
    typer.Option(
        "--covered-only",
        rich_help_panel=_POINTS_PANEL,
        help="Count only points within the tiles' coverage.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Fail if an image cannot be read or embedded."),
]

DTYPES = ("auto", "float32", "float16", "bfloat16")


_ABLATION_PANEL = "Options that differ from the published protocol"

Caption = Annotated[
    str | None,
    typer.Option(
        metavar="refined|original",
        rich_help_panel=_ABLATION_PANEL,
        help="Captions of paired-image-text (default refined).",
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE",
        rich_help_panel=_ABLATION_PANEL,
        help="Published prompt templates (default 3), or a file of templates.",
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        rich_help_panel=_ABLATION_PANEL,
        help="Class names for labels (.txt, .csv, .json); - for distractors.",
    ),
]
Queries = Annotated[
    str | None,
    typer.Option(
        metavar="text|images",
        rich_help_panel=_ABLATION_PANEL,
        help="Queries of landform: class names, or every image.",
    ),
]
QueryKind = Annotated[
    str | None,
    typer.Option(
        metavar="text|images",
        rich_help_panel=_ABLATION_PANEL,
        help="Queries of landform: class names, or every image.",
    ),
]
Radius = Annotated[
    float | None,
    typer.Option(
        metavar="DEG",
        rich_help_panel=_ABLATION_PANEL,
        help="Tolerance of geolocalization in degrees (default 0.5).",
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_ABLATION_PANEL,
        help="Depth of the rankings of geolocalization (default 20,000).",
    ),
]
ImageWeight = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        rich_help_panel=_ABLATION_PANEL,
        help="Weight of images in hybrid queries (default 0.3).",
    ),
]
Examples = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_ABLATION_PANEL,
        help="Example images per landform, drawn by the seed (default all).",
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=_ABLATION_PANEL,
        help="Truncate vectors to N dimensions (Matryoshka).",
    ),
]
ConfirmDim = Annotated[
    bool,
    typer.Option(
        "--confirm-dim",
        rich_help_panel=_ABLATION_PANEL,
        help="Truncate vectors of any model with --dim.",
    ),
]


def load_options(
    *,
    device: str,
    dtype: str,
    checkpoint: Path | None,
    prompts: str,
    offline: bool,
    trust_remote_code: bool,
) -> LoadOptions:
    """Check the options of a model without loading it.

    Args:
        device: Value of --device.
        dtype: Value of --dtype.
        checkpoint: Value of --checkpoint.
        prompts: Value of --prompts.
        offline: Value of --offline.
        trust_remote_code: Value of --trust-remote-code.

    Returns:
        Options for `encoders.load`.

    Raises:
        UsageError: If the prompts or the dtype are unknown, or the checkpoint does not exist.
    """
    from marsretrieval.encoders.base import LoadOptions

    if prompts not in ("paper", "official"):
        raise UsageError(f"unknown prompts '{prompts}'", remedy="Use paper or official.")
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'", remedy=f"Use {', '.join(DTYPES)}.")
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"--checkpoint {checkpoint}: no such file or folder")
    return LoadOptions(
        device=device,
        dtype=dtype,
        checkpoint=checkpoint,
        prompts=cast("PromptPreset", prompts),
        offline=offline,
        trust_remote_code=trust_remote_code,
    )


def position_columns(
    lon: str | None,
    lat: str | None,
    west: bool | None,
    *,
    name: str | None = None,
    layer: str | None = None,
) -> PositionColumns:
    """Make the column choice of a point catalogue from the options.

    Args:
        lon: Value of --lon-column.
        lat: Value of --lat-column.
        west: True for --lon-west, False for --lon-east, None for neither.
        name: Value of --name-column.
        layer: Value of --layer.

    Returns:
        Column names, longitude direction and layer.
    """
    from marsretrieval.datasets.positions import PositionColumns

    return PositionColumns(lon, lat, west, name, layer)


@dataclass(frozen=True, slots=True)
class Known:
    """Catalogue that hits are compared with.

    Attributes:
        points: Its features.
        km: Largest distance of a known hit.
    """

    points: Points
    km: float

    def __str__(self) -> str:
        return (
            f"{self.points.source}: {len(self.points.lon):,} features, known within {self.km:g} km"
        )

    def plan(self) -> dict[str, Any]:
        """Return the catalogue as plain data for --dry-run."""
        return {**self.points.to_dict(), "file": str(self.points.source), "km": self.km}


def read_known(
    against: Path | None,
    km: float | None,
    lon: str | None,
    lat: str | None,
    west: bool | None,
    *,
    name: str | None = None,
    layer: str | None = None,
) -> Known | None:
    """Read the catalogue that hits are compared with.

    Args:
        against: Value of --against.
        km: Value of --against-km.
        lon: Value of --lon-column.
        lat: Value of --lat-column.
        west: True for --lon-west, False for --lon-east, None for neither.
        name: Value of --name-column.
        layer: Value of --layer.

    Returns:
        The catalogue; None without --against.

    Raises:
        UsageError: If the distance is invalid, or an option is given without --against.
        DataError: If the catalogue cannot be read.
    """
    if against is None:
        if any(value is not None for value in (km, lon, lat, west, name, layer)):
            raise UsageError(
                "--against-km, --lon-column, --lat-column, --lon-west, --name-column and --layer "
                "describe a catalogue",
                remedy="Add --against CATALOGUE, or leave them out.",
            )
        return None
    from marsretrieval.cli.console import say
    from marsretrieval.datasets.ground_truth import read_points
    from marsretrieval.search.hits import KNOWN_KM
    from marsretrieval.search.known import check_known_km

    check_known_km(KNOWN_KM if km is None else km)
    columns = position_columns(lon, lat, west, name=name, layer=layer)
    points = read_points(against, columns=columns)
    for note in points.notes:
        say(f"note: {note}")
    return Known(points, KNOWN_KM if km is None else km)


def parse_decode_in(name: str) -> DecodeIn:
    """Parse the value of --decode-in.

    Args:
        name: auto, threads or processes.

    Returns:
        The kind of decoding worker.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    from marsretrieval.embeddings.pipeline import DECODE_IN

    for decode_in in DECODE_IN:
        if decode_in == name:
            return decode_in
    raise UnknownNameError("kind of decoding worker", name, DECODE_IN)


_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")


def choose_style(style: str, basemap: str, files: Sequence[Path]) -> str | Style:
    """Resolve --style and --basemap.

    Args:
        style: Value of --style.
        basemap: Value of --basemap.
        files: Files that the command writes.

    Returns:
        The style; its name if both options have their defaults.

    Raises:
        UsageError: If a value is invalid, or no file is a picture.
    """
    if (style, basemap) == ("light", "viking"):  # the defaults need no plotting code
        return style
    from marsretrieval.plotting import map_style

    chosen = map_style(style, basemap)
    if not any(path.suffix.lower() in _PICTURES for path in files):
        raise UsageError(
            "--style and --basemap apply only to maps and contact sheets",
            remedy="Name a picture, such as -o map.png, or leave them out.",
        )
    return chosen
