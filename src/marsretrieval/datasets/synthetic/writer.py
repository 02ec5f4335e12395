"""Write a generated planet into a folder, completely or not at all."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marsretrieval import geo
from marsretrieval.datasets.records import (
    PLANET_FILE,
    PlanetRecord,
    parse_planet,
)
from marsretrieval.datasets.synthetic.dataset_files import (
    quad_file_name,
    require_rasterio,
    write_examples,
    write_ground_truth,
    write_landforms,
    write_pairs,
    write_quad,
    write_tiles,
)
from marsretrieval.datasets.synthetic.planet import (
    SIZES,
    TILES,
    PlanetSize,
    PlantedFeature,
    cut_quads,
    paint,
    scatter_features,
)
from marsretrieval.datasets.synthetic.registry import BENCHMARK, LANDFORMS
from marsretrieval.errors import (
    DataError,
    OutputError,
    UnknownNameError,
    UsageError,
)
from marsretrieval.io import make_folder, read_json, sha256_file, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import confined

_STREAM = 1  # part of every random seed; another number would change every planet
_PAIRS, _LANDFORMS = "Mars-VL-Pairs", "Mars-Landforms"
_GEO, _CTX = "Mars-Global-Geolocalization", "ctx"
_TOP = (_PAIRS, _LANDFORMS, _GEO, _CTX, "README.txt")
_STAGING = ".synthetic-planet.partial"
_MOVING = "moving"  # in the staging folder while its parts are moved into place
_STATEMENT = (
    "Everything here is synthetic: made by a program from a seed, not observed by any spacecraft. "
    "Positions, pictures and captions say nothing about Mars."
)
_README = f"""SYNTHETIC DATA

{_STATEMENT}

Made by `marsretrieval data synth` with seed {{seed}}, size {{size}}, generator version {{version}},
in the layouts of the real datasets, so that everything that reads those can be tried on it:

{_PAIRS}/            pictures with captions (WebDataset)
{_LANDFORMS}/           pictures with classes (Parquet)
{_GEO}/   tiles, ground truth, example images
{_CTX}/                      quads like those of the CTX mosaic (GeoTIFF)
planet.json               every feature that was planted, and the checksum of every file
"""
# Independent streams of random numbers.
_SCATTER, _PAINT, _PAIR, _CLASS, _EXAMPLE = range(5)


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a planet's folder.

    Attributes:
        folder: The folder.
        seed: Seed of the planet.
        size: Name of the planet size.
        version: Version of the content.
        made: False if the planet existed before.
        pairs: Number of images with captions.
        landform_images: Number of images with classes.
        classes: Number of classes.
        quads: Names of the quads.
        tiles: Number of tiles.
        features: Number of features.
        points: Number of features by benchmark landform.
        bytes: Total size of the files.
    """

    folder: str
    seed: int
    size: str
    version: int
    made: bool
    pairs: int
    landform_images: int
    classes: int
    quads: list[str]
    tiles: int
    features: int
    points: dict[str, int]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain data for JSON."""
        return asdict(self)


def describe_planet(
    out: Path, *, seed: int = 0, size: str = "default", force: bool = False
) -> dict[str, Any]:
    """Describe what `write_planet` would make, without making it.

    Args:
        out: Output folder.
        seed: Seed of the planet.
        size: Name of the planet size.
        force: Replace another planet in the folder.

    Returns:
        Folder, parameters, status ("new", "replace" or "done") and numbers of items.

    Raises:
        UnknownNameError: If `size` is unknown.
        UsageError: If `seed` is negative.
        OutputError: If the folder holds other data.
    """
    parts, status = _size(size), _status(out, seed, size, force)
    quads = [geo.quad_name(*quad) for region in parts.regions for quad in region.quads]
    return {
        "folder": str(out),
        "seed": seed,
        "size": size,
        "version": parts.version,
        "status": status,
        "pairs": parts.pairs,
        "landform_images": parts.landform_images,
        "classes": len(parts.classes or LANDFORMS),
        "quads": quads,
        "tiles": len(quads) * TILES**2,
        "tile_px": parts.tile_px,
    }


def write_planet(
    out: str | Path,
    *,
    seed: int = 0,
    size: str = "default",
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Summary:
    """Generate a planet: datasets of the three tasks, GeoTIFF quads, and planet.json.

    The same seed, size and version give the same bytes, with the same libraries and type of
    processor. If that planet exists in the folder, nothing is done. Another planet is replaced only
    with `force`, and other data is never replaced. planet.json is written last and marks a planet
    as complete.

    Args:
        out: Output folder.
        seed: Seed of the planet.
        size: Name of the planet size.
        force: Replace another planet in the folder.
        progress: Progress display.

    Returns:
        Summary of the planet.

    Raises:
        UnknownNameError: If `size` is unknown.
        UsageError: If `seed` is negative.
        MissingDependencyError: If rasterio is not installed.
        OutputError: If the folder holds other data or cannot be written.
    """
    out = Path(out)
    parts = _size(size)
    if _status(out, seed, size, force) == "done":
        return _summary(out, parse_planet(read_json(out / PLANET_FILE), out), made=False)
    require_rasterio()
    make_folder(out)
    with _staged(out) as folder:
        record = _fill(folder, parts, seed, size, progress)
        write_json(folder / PLANET_FILE, record)
    return _summary(out, record, made=True)


def list_foreign(out: Path) -> list[str]:
    """List the visible contents of a folder that are not part of a synthetic planet.

    Args:
        out: The folder, which need not exist.

    Returns:
        Names in order.
    """
    if not out.is_dir():
        return []
    own = {*_TOP, PLANET_FILE}
    names = (path.name for path in out.iterdir() if not path.name.startswith("."))
    return sorted(name for name in names if name not in own)


def _size(name: str) -> PlanetSize:
    try:
        return SIZES[name]
    except KeyError:
        raise UnknownNameError("planet size", name, SIZES) from None


def _status(out: Path, seed: int, size: str, force: bool) -> str:
    """Return "new", "replace" or "done".

    Raises:
        OutputError: If the folder holds other data.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", remedy="Use a seed of 0 or more.")
    if not (out / PLANET_FILE).exists():
        if (out / _STAGING / _MOVING).exists():
            return "replace"
        taken = [name for name in _TOP if (out / name).exists()]
        if taken:
            raise OutputError(
                f"{out}: holds {', '.join(taken)}, but no synthetic planet",
                remedy="Choose another folder with --out: existing data are not replaced.",
            )
        return "new"
    value = read_json(out / PLANET_FILE)
    if not isinstance(value, dict) or value.get("synthetic") is not True:
        raise OutputError(f"{out / PLANET_FILE}: not the record of a synthetic planet",
                          remedy="Choose another folder with --out.")  # fmt: skip
    if force:
        return "replace"
    record = parse_planet(value, out)
    requested = {"seed": seed, "size": size, "version": _size(size).version}
    differing = {
        key: record[key] for key in ("seed", "size", "version") if record[key] != requested[key]
    }
    if differing:
        actual_text = ", ".join(f"{key} {value}" for key, value in differing.items())
        requested_text = ", ".join(f"{key} {requested[key]}" for key in differing)
        raise OutputError(
            f"{out}: holds another synthetic planet ({actual_text}; asked for {requested_text})",
            remedy="Choose another folder with --out, or replace that planet with --force.",
        )
    for name, file in record["files"].items():
        path = confined(out, name, source=out / PLANET_FILE)
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise DataError(f"{path}: missing or changed since the planet was made",
                            remedy="Create the planet again with --force.")  # fmt: skip
    return "done"


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Staging folder whose content is moved into `out` at the end, planet.json last."""
    staging = out / _STAGING
    try:
        if (staging / _MOVING).exists():  # killed while moving: the moved parts are this command's
            _remove(out, (PLANET_FILE, *_TOP))
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        (staging / _MOVING).touch()
        _remove(out, (PLANET_FILE, *_TOP))
        for name in (*_TOP, PLANET_FILE):
            (staging / name).replace(out / name)
        shutil.rmtree(staging)
    except OSError as error:
        raise OutputError(
            f"{out}: the planet cannot be written ({error.strerror or error})",
            remedy="Check that the folder is yours and has free space, or choose another.",
        ) from error


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _fill(
    folder: Path, parts: PlanetSize, seed: int, size: str, progress: Progress
) -> PlanetRecord:
    write_pairs(folder / _PAIRS, parts, seed, _rng(seed, _PAIR), progress)
    classes = write_landforms(folder / _LANDFORMS, parts, _rng(seed, _CLASS), progress)
    features: list[PlantedFeature] = []
    quads: list[str] = []
    tiles = 0
    (folder / _CTX).mkdir()
    with progress.start("regions", len(parts.regions), "regions") as bar:
        for number, region in enumerate(parts.regions):
            planned = scatter_features(region, _rng(seed, _SCATTER, number))
            image, rendered = paint(region, planned, parts.tile_px, _rng(seed, _PAINT, number))
            features += rendered
            for west, south, pixels in cut_quads(region, image):
                quads.append(geo.quad_name(west, south))
                write_quad(folder / _CTX / quad_file_name(west, south), west, south, pixels)
                tiles += write_tiles(folder / _GEO / "tiles", west, south, pixels)
            bar.advance()
    write_ground_truth(folder / _GEO / "ground_truth", features, BENCHMARK)
    write_examples(folder / _GEO / "image_queries", parts, BENCHMARK, _rng(seed, _EXAMPLE))
    readme = _README.format(seed=seed, size=size, version=parts.version)
    (folder / "README.txt").write_text(readme, encoding="utf-8")
    return {
        "synthetic": True,
        "statement": _STATEMENT,
        "generator": "marsretrieval data synth",
        "version": parts.version,
        "seed": seed,
        "size": size,
        "counts": {
            "pairs": parts.pairs,
            "landform_images": sum(classes.values()),
            "tiles": tiles,
            "features": len(features),
        },
        "classes": classes,
        "quads": quads,
        "features": [
            {
                "class": feature.landform,
                "lon": round(feature.lon, 5),
                "lat": round(feature.lat, 5),
                "size_km": round(feature.size_km, 2),
            }
            for feature in features
        ],
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }


def _rng(seed: int, *stream: int) -> np.random.Generator:
    """Create a random generator that differs from those used in training, whatever the seed."""
    return np.random.default_rng([seed, _STREAM, *stream])


def _summary(out: Path, record: PlanetRecord, *, made: bool) -> Summary:
    counts = record["counts"]
    planted = Counter(feature["class"] for feature in record["features"])
    return Summary(
        folder=str(out),
        seed=record["seed"],
        size=record["size"],
        version=record["version"],
        made=made,
        pairs=counts["pairs"],
        landform_images=counts["landform_images"],
        classes=len(record["classes"]),
        quads=record["quads"],
        tiles=counts["tiles"],
        features=counts["features"],
        points={name: planted[name] for name in BENCHMARK},
        bytes=sum(file["bytes"] for file in record["files"].values()),
    )
