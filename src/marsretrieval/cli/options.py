"""Options shared by several commands, in groups, and their parsing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from marsretrieval.cli.console import say
from marsretrieval.errors import UnknownNameError, UsageError
from marsretrieval.text import pluralize, suggest_path

if TYPE_CHECKING:
    from marsretrieval.api import Store
    from marsretrieval.datasets.ground_truth import Points
    from marsretrieval.datasets.positions import PositionColumns
    from marsretrieval.embeddings.pipeline import DecodeIn
    from marsretrieval.encoders.base import LoadOptions, PromptPreset
    from marsretrieval.plotting import Style

MODEL_NAMES = (
    "Registry id, oc:ARCHITECTURE/PRETRAINED (open_clip), hf:REPOSITORY, timm:NAME, st:NAME, "
    "mteb:NAME or module:Class"
)
DTYPES = ("auto", "float32", "float16", "bfloat16")
_GPU = re.compile(r"(cuda|mps)(:\d+)?")
_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")

# Options of one section of the help.
_model = partial(typer.Option, rich_help_panel="The model")
_intervals = partial(typer.Option, rich_help_panel="Confidence intervals")
_points = partial(typer.Option, rich_help_panel="Point catalogues")
_ablation = partial(typer.Option, rich_help_panel="Options that differ from the published protocol")


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each group of options in a command's parameters by its single options.

    Args:
        command: Function whose parameters may be dataclasses with one option per field.

    Returns:
        The function with the fields as parameters, for typer; it makes the groups from them.
    """
    types = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        group = types[parameter.name]
        if not is_dataclass(group):
            parameters.append((parameter.name, parameter.default, group))
            continue
        groups[parameter.name] = group
        field_types = get_type_hints(group, include_extras=True)
        for field in fields(group):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append((field.name, default, field_types[field.name]))

    @wraps(command)
    def expanded(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    expanded.__annotations__ = {name: kind for name, _, kind in parameters} | {"return": None}
    expanded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for name, default, kind in parameters
        ]
    )
    return expanded


def check_output_files(value: Any) -> Any:
    """Refuse, before the work, files that cannot be written: callback of options of output files.

    Args:
        value: A path, a list of paths or None; `-` is stdout.

    Returns:
        `value`.

    Raises:
        OutputError: If a file cannot be written.
    """
    from marsretrieval.io import check_output

    for path in value if isinstance(value, list | tuple) else [value]:
        if path is not None and str(path) != "-":
            check_output(Path(path))
    return value


def check_output_folder(value: Path | None) -> Path | None:
    """Refuse, before the work, a folder that cannot be made: callback of options of output folders.

    Args:
        value: A path or None.

    Returns:
        `value`.

    Raises:
        OutputError: If it is a file, or cannot be made.
    """
    from marsretrieval.io import check_output_folder as check

    if value is not None:
        check(value)
    return value


Checkpoint = Annotated[Path | None, _model(help="Local weights (file or folder).")]
Device = Annotated[
    str, _model(metavar="DEVICE", help="Device: auto, cpu, cuda, cuda:1 (one GPU) or mps.")
]
Offline = Annotated[bool, _model("--offline", help="Load weights from local files only.")]
TrustRemoteCode = Annotated[
    bool, _model("--trust-remote-code", help="Run code from a model's repository (unsafe).")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """Options of a model that is named on the command line."""

    checkpoint: Checkpoint = None
    prompts: Annotated[
        str,
        _model(
            metavar="paper|official",
            help="Prompt templates of the published code or of the model's authors.",
        ),
    ] = "paper"
    device: Device = "auto"
    dtype: Annotated[
        str,
        _model(metavar="DTYPE", help="Precision of the model: auto, float32, float16 or bfloat16."),
    ] = "auto"
    offline: Offline = False
    trust_remote_code: TrustRemoteCode = False

    def load_options(self, *, check_device: bool = True, dry_run: bool = False) -> LoadOptions:
        """Check the options without loading the model.

        Args:
            check_device: Whether the device must be one of this machine.
            dry_run: Accept GPUs without checking that this machine has them, with a note.

        Returns:
            Options for `encoders.load`.

        Raises:
            UsageError: If the prompts, the dtype or the device are unknown, or the checkpoint does
                not exist.
        """
        from marsretrieval.encoders import torch_imports
        from marsretrieval.encoders.base import LoadOptions

        if self.prompts not in ("paper", "official"):
            raise UsageError(f"unknown prompts '{self.prompts}'", remedy="Use paper or official.")
        if self.dtype not in DTYPES:
            raise UsageError(f"unknown dtype '{self.dtype}'", remedy=f"Use {', '.join(DTYPES)}.")
        _check_checkpoint(self.checkpoint)
        if dry_run and _GPU.fullmatch(self.device):  # plans for other machines, without torch
            say(f"note: --dry-run does not check that there is a device '{self.device}'")
        elif check_device:
            torch_imports.check_device(self.device)
        return LoadOptions(
            device=self.device,
            dtype=self.dtype,
            checkpoint=self.checkpoint,
            prompts=cast("PromptPreset", self.prompts),
            offline=self.offline,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """Options of the batches and of image decoding."""

    batch_size: Annotated[
        int | None,
        _model(min=1, max=1_000_000, help="Images per batch (default: chosen for the device)."),
    ] = None
    workers: Annotated[
        int | None,
        _model(min=0, max=4096, help="Number of image decoding workers (default: number of CPUs)."),
    ] = None
    decode_in: Annotated[
        str,
        _model(
            "--decode-in",
            metavar="auto|threads|processes",
            help="Kind of image decoding workers; processes suit a fast GPU.",
        ),
    ] = "auto"

    def parse_decode_in(self) -> DecodeIn:
        """Parse --decode-in.

        Returns:
            The kind of decoding worker.

        Raises:
            UnknownNameError: If there is no such kind.
        """
        from marsretrieval.embeddings.pipeline import DECODE_IN

        for kind in DECODE_IN:
            if kind == self.decode_in:
                return kind
        raise UnknownNameError("kind of decoding worker", self.decode_in, DECODE_IN)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreModelOptions:
    """Options of the model that made a store."""

    model: Annotated[
        str | None,
        _model(
            "--model",
            "-m",
            metavar="MODEL",
            help="Model of the store if not in the registry: hf:NAME, oc:NAME, module:Class.",
        ),
    ] = None
    checkpoint: Checkpoint = None
    trust: Annotated[
        bool,
        _model("--trust", help="Load any class and checkpoint that the store names (unsafe)."),
    ] = False
    device: Device = "auto"
    offline: Offline = False
    trust_remote_code: TrustRemoteCode = False

    def values(self) -> dict[str, Any]:
        """Return the options as arguments of `open_store`.

        Raises:
            UsageError: If the checkpoint does not exist.
        """
        _check_checkpoint(self.checkpoint)
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def open_store(self, folders: Path | Sequence[Path]) -> Store:
        """Open a store, or several as one; print a line when its model is loaded.

        Args:
            folders: Folders of stores.

        Returns:
            The store.

        Raises:
            UsageError: If the checkpoint does not exist.
            StoreError: If a store is missing or damaged.
        """
        from marsretrieval.api import open_store

        return open_store(folders, **self.values(), report=say)

    def report_unused(self) -> list[str]:
        """Print a note on the options that have no effect because no model is loaded.

        Returns:
            These options.
        """
        values = {
            "--model": self.model is not None,
            "--checkpoint": self.checkpoint is not None,
            "--device": self.device != "auto",
        }
        flags = [flag for flag, is_set in values.items() if is_set]
        if flags:
            say(f"note: {', '.join(flags)} ignored: the query needs no model")
        return flags


def _check_checkpoint(path: Path | None) -> None:
    if path is not None and not path.exists():
        raise UsageError(f"--checkpoint {path}: no such file or folder", remedy=suggest_path(path))


Seed = Annotated[int, _intervals(min=0, help="Seed of the bootstrap.")]
Seeds = Annotated[
    list[int] | None,
    _intervals(
        "--seed",
        metavar="N",
        min=0,
        help="Seed of bootstrap and examples (default: 0); repeatable.",
    ),
]
# More resamples would not change the printed digits of a percentile, and each needs memory.
Resamples = Annotated[
    int,
    _intervals(
        min=0, max=100_000, help="Number of bootstrap resamples for 95 % intervals; 0: none."
    ),
]
CoveredOnly = Annotated[
    bool, _points("--covered-only", help="Count only points within the tiles' coverage.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Fail if an image cannot be read or embedded."),
]
Caption = Annotated[
    str | None,
    _ablation(metavar="refined|original", help="Captions of paired-image-text (default: refined)."),
]
Templates = Annotated[
    str | None,
    _ablation(
        metavar="N|FILE", help="Published prompt templates (default: 3), or a file of templates."
    ),
]
ClassNames = Annotated[
    Path | None,
    _ablation(
        "--class-names",
        metavar="FILE",
        help="Class names for labels (.txt, .csv, .json); - for distractors.",
    ),
]
QueryKind = Annotated[
    str | None,
    _ablation(metavar="text|images", help="Queries of landform: class names, or every image."),
]
Radius = Annotated[
    float | None,
    _ablation(metavar="DEG", help="Tolerance of geolocalization in degrees (default: 0.5)."),
]
Depth = Annotated[
    int | None,
    _ablation(metavar="N", help="Depth of the rankings of geolocalization (default: 20,000)."),
]
ImageWeight = Annotated[
    float | None, _ablation(metavar="W", help="Weight of images in hybrid queries (default: 0.3).")
]
Examples = Annotated[
    int | None,
    _ablation(metavar="N", help="Example images per landform, drawn by the seed (default: all)."),
]
Dim = Annotated[
    int | None, _ablation(metavar="N", help="Truncate vectors to N dimensions (Matryoshka).")
]
ConfirmDim = Annotated[
    bool, _ablation("--confirm-dim", help="Allow --dim for models not trained for it.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionOptions:
    """Options of the columns of a point catalogue."""

    lon_column: Annotated[
        str | None,
        _points(
            "--lon-column", metavar="NAME", help="Longitude column (default: by common names)."
        ),
    ] = None
    lat_column: Annotated[
        str | None,
        _points("--lat-column", metavar="NAME", help="Latitude column (default: by common names)."),
    ] = None
    lon_west: Annotated[
        bool | None,
        _points(
            "--lon-west/--lon-east",
            help="Direction of positive longitudes (default: by the column's name).",
            show_default=False,
        ),
    ] = None
    layer: Annotated[
        str | None,
        _points("--layer", metavar="NAME", help="Layer of a catalogue that has several."),
    ] = None

    def columns(self, name: str | None = None) -> PositionColumns:
        """Return the choice of columns.

        Args:
            name: Column of feature names; None: by common names.

        Returns:
            Column names, longitude direction and layer.
        """
        from marsretrieval.datasets.positions import PositionColumns

        return PositionColumns(self.lon_column, self.lat_column, self.lon_west, name, self.layer)

    def flags(self) -> list[str]:
        """Return the options that are set."""
        values = {
            "--lon-column": self.lon_column,
            "--lat-column": self.lat_column,
            "--lon-west/--lon-east": self.lon_west,
            "--layer": self.layer,
        }
        return [flag for flag, value in values.items() if value is not None]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Catalogue that hits are compared with.

    Attributes:
        points: Its features.
        km: Largest distance of a hit from its feature.
    """

    points: Points
    km: float

    def __str__(self) -> str:
        features = pluralize(len(self.points.lon), "feature")
        return f"{self.points.source}: {features}, known within {self.km:g} km"

    def plan(self) -> dict[str, Any]:
        """Return the catalogue as plain data for --dry-run."""
        return {**self.points.to_dict(), "file": str(self.points.source), "km": self.km}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueOptions:
    """Options of the catalogue that hits are compared with, except its columns."""

    against: Annotated[
        Path | None,
        _points(metavar="CATALOGUE", help="Mark hits near a feature of this catalogue as known."),
    ] = None
    against_km: Annotated[
        float | None, _points(metavar="KM", help="Largest distance of a known hit (default: 10).")
    ] = None
    name_column: Annotated[
        str | None,
        _points(
            "--name-column",
            metavar="NAME",
            help="Column of feature names (default: by common names).",
        ),
    ] = None

    def read(self, positions: PositionOptions) -> Catalogue | None:
        """Read the catalogue.

        Args:
            positions: Its columns.

        Returns:
            The catalogue; None without --against.

        Raises:
            UsageError: If the distance is invalid, or an option is given without --against.
            DataError: If the catalogue cannot be read.
        """
        if self.against is None:
            others = {"--against-km": self.against_km, "--name-column": self.name_column}
            flags = [flag for flag, value in others.items() if value is not None]
            if flags := flags + positions.flags():
                raise UsageError(
                    f"{', '.join(flags)}: describes a catalogue",
                    remedy="Add --against CATALOGUE, or leave it out.",
                )
            return None
        from marsretrieval.datasets.ground_truth import read_points
        from marsretrieval.search.hits import KNOWN_KM, check_known_km

        km = KNOWN_KM if self.against_km is None else self.against_km
        check_known_km(km)
        points = read_points(self.against, columns=positions.columns(self.name_column))
        for note in points.notes:
            say(f"note: {note}")
        return Catalogue(points, km)


def choose_style(style: str, basemap: str, files: Sequence[Path], *, is_given: bool) -> str | Style:
    """Resolve --style and --basemap.

    Args:
        style: Value of --style.
        basemap: Value of --basemap.
        files: Files that the command writes.
        is_given: Whether one of the options is on the command line.

    Returns:
        The style; its name if both options have their defaults.

    Raises:
        UsageError: If a value is invalid, or no file is a picture.
    """
    is_default = (style, basemap) == ("light", "viking")
    if is_default and not is_given:  # the defaults need no plotting code
        return style
    from marsretrieval.plotting import map_style

    chosen = map_style(style, basemap)
    if not any(path.suffix.lower() in _PICTURES for path in files):
        raise UsageError(
            "--style and --basemap apply only to maps and contact sheets",
            remedy="Name a picture, such as -o map.png, or leave them out.",
        )
    return chosen
