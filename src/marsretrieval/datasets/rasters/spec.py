"""Options of tiles of own rasters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from marsretrieval.datasets.ctx import FORMATS
from marsretrieval.datasets.rasters.stretch import METHODS
from marsretrieval.errors import UsageError
from marsretrieval.io import sha256_json

_VERSION = 1  # raised whenever the same options would give other pixels, ids or positions
_SIZES = (16, 4096)
_MAX_TILE_PX = 100_000
_DELTAS = (0.0001, 30.0)


@dataclass(frozen=True)
class RasterSpec:
    """Options of the tiles of a raster. Equal options and files give equal tiles.

    At most one of `tile_px`, `tile_m` and `delta` is set; without any, `tile_px` is `size`.

    Attributes:
        tile_px: Height and width of a tile in pixels of the raster.
        tile_m: Height and width of a tile on the ground in metres, at the centre of the raster.
        delta: Height and width of a tile in degrees, on a grid of longitudes and latitudes.
        size: Height and width of an image in pixels.
        format: Image format, `png` or `jpeg`.
        overlap: Share of a tile that it has in common with the next one, 0 to 0.9.
        stretch: Method of `compute_stretch`; None: by the type of the raster.
        min_valid: Smallest share of valid pixels. Tiles without any valid pixel are always skipped.
        bands: Numbers of one or three bands; None: see `open_raster`.
        nodata: No-data value; None: as each file states.

    Raises:
        UsageError: If a value is out of range, or two tile sizes are given.
    """

    tile_px: int | None = None
    tile_m: float | None = None
    delta: float | None = None
    size: int = 512
    format: str = "png"
    overlap: float = 0.0
    stretch: str | None = None
    min_valid: float = 0.0
    bands: tuple[int, ...] | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        options = (("--tile-px", self.tile_px), ("--tile-m", self.tile_m), ("--delta", self.delta))
        names = [name for name, value in options if value is not None]
        if len(names) > 1:
            raise UsageError(
                f"{' and '.join(names)}: two sizes of one tile", remedy="Use one of them."
            )
        if not _SIZES[0] <= self.size <= _SIZES[1]:
            raise UsageError(f"--size {self.size}: not within {_SIZES[0]}..{_SIZES[1]} pixels")
        if self.tile_px is not None and not _SIZES[0] <= self.tile_px <= _MAX_TILE_PX:
            raise UsageError(
                f"--tile-px {self.tile_px}: not within {_SIZES[0]}..{_MAX_TILE_PX:,} pixels"
            )
        if self.tile_m is not None and not (math.isfinite(self.tile_m) and self.tile_m > 0):
            raise UsageError(
                f"--tile-m {self.tile_m}: not a length in metres", remedy="Give a positive number."
            )
        if self.delta is not None and not _DELTAS[0] <= self.delta <= _DELTAS[1]:
            raise UsageError(f"--delta {self.delta}: not within {_DELTAS[0]:g}..{_DELTAS[1]:g}")
        if self.format not in FORMATS:
            raise UsageError(
                f"--format {self.format}: unknown", remedy=f"Use {' or '.join(FORMATS)}."
            )
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(
                f"--overlap {self.overlap}: not a share within 0..0.9",
                remedy="Give a decimal number, such as 0.25.",
            )
        if not 0 <= self.min_valid <= 1:
            raise UsageError(
                f"--min-valid {self.min_valid}: not a share within 0..1",
                remedy="Give a decimal number, such as 0.5.",
            )
        if self.stretch is not None and self.stretch not in METHODS:
            raise UsageError(
                f"--stretch {self.stretch}: unknown", remedy=f"Use {', '.join(METHODS)}."
            )
        if self.bands is not None and (
            len(self.bands) not in (1, 3) or any(band < 1 for band in self.bands)
        ):
            raise UsageError(
                f"--bands {','.join(map(str, self.bands))}: not one or three band numbers",
                remedy="Use --bands 1 (grey) or --bands 3,2,1 (red, green, blue); 1 is the first.",
            )

    @property
    def native_px(self) -> int | None:
        """Tile size in pixels of the raster; None with `tile_m` or `delta`."""
        if self.tile_m is not None or self.delta is not None:
            return None
        return self.tile_px if self.tile_px is not None else self.size

    @cached_property
    def hash(self) -> str:
        """Hash of all options."""
        return sha256_json(self.to_dict())

    @property
    def extension(self) -> str:
        """File name extension of the images."""
        return "jpg" if self.format == "jpeg" else "png"

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain data for JSON."""
        nodata: Any = self.nodata
        if nodata is not None and not math.isfinite(nodata):
            nodata = str(nodata)
        return {
            "version": _VERSION,
            "tile_px": self.native_px,
            "tile_m": self.tile_m,
            "delta": self.delta,
            "size": self.size,
            "format": self.format,
            "overlap": self.overlap,
            "stretch": self.stretch,
            "min_valid": self.min_valid,
            "bands": None if self.bands is None else list(self.bands),
            "nodata": nodata,
        }


def parse_bands(text: str) -> tuple[int, ...]:
    """Parse a list of band numbers, such as "1" or "3,2,1".

    Args:
        text: The list.

    Returns:
        The numbers.

    Raises:
        UsageError: If a part is not a number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--bands {text}: not a list of band numbers",
            remedy="Use --bands 1 (grey) or --bands 3,2,1 (red, green, blue).",
        ) from error
