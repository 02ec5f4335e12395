"""A whole planet in a folder, or nothing of it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from marsretrieval import geo
from marsretrieval.datasets.synthetic.captions import sample_pair
from marsretrieval.datasets.synthetic.ground import Rng
from marsretrieval.datasets.synthetic.planet import (
    SIZES,
    TILES,
    Feature,
    PlanetSize,
    cut_quads,
    paint,
    sample,
    scatter_features,
)
from marsretrieval.datasets.synthetic.registry import BENCHMARK, LANDFORMS
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import (
    DataError,
    MissingDependencyError,
    OutputError,
    UnknownNameError,
    UsageError,
)
from marsretrieval.io import (
    Int64,
    JsonObject,
    confined,
    from_json,
    make_folder,
    read_json,
    sha256_file,
    write_json,
)
from marsretrieval.progress import NO_PROGRESS, Progress

Grey = npt.NDArray[np.uint8]

_PAIRS_A_TAR = 200
_ROWS_A_GROUP = 100
_FILES = 2
_QUALITY = 92
_GORE = 0.1  # share of landform pictures whose edge has no data


def write_pairs(
    folder: Path, size: PlanetSize, seed: int, rng: Rng, progress: Progress = NO_PROGRESS
) -> None:
    """`000000.tar` and on: `key.jpg` beside `key.json` with both captions, all of them unique."""
    folder.mkdir(parents=True)
    seen: set[str] = set()
    with progress.start("pairs", size.pairs, "images") as bar:
        for number, start in enumerate(range(0, size.pairs, _PAIRS_A_TAR)):
            members: list[tuple[str, bytes]] = []
            for index in range(start, min(start + _PAIRS_A_TAR, size.pairs)):
                picture, terse, refined = sample_pair(rng)
                while terse in seen or refined in seen:
                    picture, terse, refined = sample_pair(rng)
                seen |= {terse, refined}
                key = f"{number:05d}{index - start:04d}"
                told = {
                    "key": key,
                    "image_url": f"synthetic://planet/{seed}/{key}.jpg",
                    "ori_caption": terse,
                    "refined_caption": refined,
                }
                members += [(f"{key}.jpg", _jpeg(picture)), (f"{key}.json", _json(told))]
                bar.advance()
            write_tar(folder / f"{number:06d}.tar", members)


def write_landforms(
    folder: Path, size: PlanetSize, rng: Rng, progress: Progress = NO_PROGRESS
) -> dict[str, int]:
    """Parquet as Hugging Face writes it; returns the images of each class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted(size.classes or LANDFORMS)
    counts = _class_sizes(len(names), size.landform_images, rng)
    labels = rng.permutation(np.repeat(np.arange(len(names)), counts))
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
        "image_id": {"dtype": "string", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("image_id", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    (folder / "data").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    with progress.start("landforms", len(labels), "images") as bar:
        for row, label in enumerate(labels):
            edge = int(rng.integers(size.landform_px[0], size.landform_px[1] + 1))
            picture, _ = sample(names[label], rng, edge)
            if rng.random() < _GORE:
                _cut_corner(picture, rng)
            key = f"synthetic-{row:05d}"
            image = {"bytes": _jpeg(picture), "path": f"{key}.jpg"}
            rows.append({"image": image, "label": int(label), "image_id": key})
            bar.advance()
    share = -(-len(rows) // _FILES)
    for part in range(_FILES):
        table = pa.Table.from_pylist(rows[part * share : (part + 1) * share], schema=schema)
        path = folder / "data" / f"train-{part:05d}-of-{_FILES:05d}.parquet"
        pq.write_table(table, path, row_group_size=_ROWS_A_GROUP)
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def write_tiles(folder: Path, west: int, south: int, quad: Grey) -> int:
    """`<quad>.tar` of the 20 x 20 tiles of a quad, from its north-west corner; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    name = geo.quad_name(west, south)
    members = list(_tiles(west, south, quad, name))
    write_tar(folder / f"{name}.tar", members)
    return len(members) // 2


def write_ground_truth(folder: Path, features: Sequence[Feature], names: Sequence[str]) -> None:
    """`<name>.csv` with lon, lat and diameter of each feature of that landform."""
    folder.mkdir(parents=True)
    for name in names:
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["lon", "lat", "diameter_km"])
            for feature in features:
                if feature.landform == name:
                    table.writerow(
                        [f"{feature.lon:.5f}", f"{feature.lat:.5f}", f"{feature.size_km:.2f}"]
                    )


def write_examples(folder: Path, size: PlanetSize, names: Sequence[str], rng: Rng) -> None:
    """`<name>/0.png` and on: pictures of the landform that are not of this planet."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(size.examples):
            picture, _ = sample(name, rng, size.tile_px)
            (folder / name / f"{index}.png").write_bytes(_png(picture))


def _tiles(west: int, south: int, quad: Grey, name: str) -> Iterator[tuple[str, bytes]]:
    edge = quad.shape[0] // TILES
    for row in range(TILES):
        for column in range(TILES):
            left = round(west + column * geo.TILE_DEG, 9)
            bottom = round(south + (TILES - 1 - row) * geo.TILE_DEG, 9)
            window = quad[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
            key = geo.tile_name(left, bottom)
            right, top = round(left + geo.TILE_DEG, 9), round(bottom + geo.TILE_DEG, 9)
            told = {
                "bounds": [left, bottom, right, top],
                "center": list(geo.tile_centre(key) or ()),
                "valid": round(float(np.count_nonzero(window)) / window.size, 6),
                "quad": name,
                "synthetic": True,
            }
            yield f"{key}.png", _png(window)
            yield f"{key}.json", _json(told)


def _class_sizes(classes: int, images: int, rng: Rng) -> npt.NDArray[np.int64]:
    """Unequal numbers that add up, the largest several times the smallest."""
    weights = rng.permutation(1 / (np.arange(classes) + 0.25 * classes + 1))
    counts: npt.NDArray[np.int64] = np.maximum(
        2, (images * weights / weights.sum()).astype(np.int64)
    )
    counts[np.argmax(counts)] += images - counts.sum()
    return counts


def _cut_corner(picture: Grey, rng: Rng) -> None:
    """Blacken what lies beyond the edge of an image strip, as map-projected products have it."""
    y, x = np.ogrid[-0.5 : 0.5 : picture.shape[0] * 1j, -0.5 : 0.5 : picture.shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    picture[x * np.cos(angle) + y * np.sin(angle) > rng.uniform(0.36, 0.46)] = 0


def _jpeg(picture: Grey) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _png(picture: Grey) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# The CRS text of the mosaic: it names an oblate Mars, though the pixels are laid out on the
# sphere (x = R lon, y = R lat). Readers have to cope with that, so it is kept.
_CRS = (
    'PROJCS["Mars_2015_Ocentric_Equirectangular_clon_0",GEOGCS["Mars (2015) / Ocentric",'
    'DATUM["Mars (2015)",SPHEROID["Mars (2015)",3396190,169.894447223612]],'
    'PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)


def quad_file_name(west: int, south: int) -> str:
    """`MurrayLab_CTX_V01_E-180_N-04_Mosaic.tif`."""
    return f"MurrayLab_CTX_V01_{geo.quad_name(west, south)}_Mosaic.tif"


def require_rasterio() -> None:
    """Raises MissingDependencyError before any work is done."""
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "rasterio", "geotiff", needed_for="writing the planet's GeoTIFFs"
        ) from error


def write_quad(path: Path, west: int, south: int, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (n, n) pixels of the quad with that south-west corner: uncompressed, no nodata tag."""
    import rasterio

    left, top = (float(edge) for edge in geo.lonlat_to_metres(west, south + geo.QUAD_DEG))
    right, bottom = (float(edge) for edge in geo.lonlat_to_metres(west + geo.QUAD_DEG, south))
    rows, columns = pixels.shape
    # In memory first: GDAL reports no error of a disk that is full when a file is closed.
    with rasterio.io.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=columns,
            height=rows,
            count=1,
            dtype="uint8",
            crs=rasterio.crs.CRS.from_wkt(_CRS),
            transform=rasterio.Affine(
                (right - left) / columns, 0, left, 0, (bottom - top) / rows, top
            ),
        ) as file:
            file.write(pixels, 1)
        memory.seek(0)
        path.write_bytes(memory.read())


_STREAM = 1  # part of every random seed; another number would change every planet

_PAIRS, _LANDFORMS = "Mars-VL-Pairs", "Mars-Landforms"
_GEO, _CTX = "Mars-Global-Geolocalization", "ctx"
_TOP = (_PAIRS, _LANDFORMS, _GEO, _CTX, "README.txt")
_RECORD = "planet.json"
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

# Streams of random numbers that have nothing in common.
_SCATTER, _PAINT, _PAIR, _CLASS, _EXAMPLE = range(5)


class PlanetCounts(JsonObject):
    """How much a planet holds."""

    pairs: Int64
    landform_images: Int64
    tiles: Int64
    features: Int64


class PlanetFile(JsonObject):
    """Size and checksum of a file of a planet."""

    bytes: Int64
    sha256: str


_Feature = TypedDict("_Feature", {"class": str, "lon": float, "lat": float, "size_km": float})


class PlanetRecord(JsonObject):
    """``planet.json``: what was planted in a planet, and its files."""

    synthetic: bool
    statement: str
    generator: str
    version: Int64
    seed: Int64
    size: str
    counts: PlanetCounts
    classes: dict[str, Int64]
    quads: list[str]
    features: list[_Feature]
    files: dict[str, PlanetFile]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in a planet's folder."""

    folder: str
    seed: int
    size: str
    version: int
    made: bool  # False: it was there before
    pairs: int
    landform_images: int
    classes: int
    quads: list[str]
    tiles: int
    features: int
    points: dict[str, int]  # of each benchmark landform
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe_planet(
    out: Path, *, seed: int = 0, size: str = "default", force: bool = False
) -> dict[str, Any]:
    """What `write_planet` would make, without making it. Raises as it would."""
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
    out: Path,
    *,
    seed: int = 0,
    size: str = "default",
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Summary:
    """Make a planet in `out`: datasets of the three tasks, GeoTIFF quads, and planet.json.

    The same seed, size and version give the same bytes, with the same libraries and kind of
    processor. Where that planet is already there nothing is done; another one is replaced only
    with `force`, and data that is no planet of ours never. planet.json comes last: without it
    there is no planet.

    Raises UnknownNameError for the size, UsageError for the seed, MissingDependencyError without
    rasterio, OutputError when something else is in the folder or it cannot be written.
    """
    parts = _size(size)
    if _status(out, seed, size, force) == "done":
        return _summary(out, _parse_record(read_json(out / _RECORD), out), made=False)
    require_rasterio()
    make_folder(out)
    with _staged(out) as folder:
        record = _fill(folder, parts, seed, size, progress)
        write_json(folder / _RECORD, record)
    return _summary(out, record, made=True)


def _size(name: str) -> PlanetSize:
    try:
        return SIZES[name]
    except KeyError:
        raise UnknownNameError("planet size", name, SIZES) from None


def _status(out: Path, seed: int, size: str, force: bool) -> str:
    """ "new", "replace" or "done". Raises OutputError when the folder is taken."""
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", remedy="Seeds are whole numbers from 0 on.")
    if not (out / _RECORD).exists():
        if (out / _STAGING / _MOVING).exists():
            return "replace"
        taken = [name for name in _TOP if (out / name).exists()]
        if taken:
            raise OutputError(
                f"{out}: holds {', '.join(taken)}, but no synthetic planet",
                remedy="Choose another folder with --out: data of others is never replaced.",
            )
        return "new"
    value = read_json(out / _RECORD)
    if not isinstance(value, dict) or value.get("synthetic") is not True:
        raise OutputError(f"{out / _RECORD}: not the record of a synthetic planet",
                          remedy="Choose another folder with --out.")  # fmt: skip
    if force:
        return "replace"
    there = _parse_record(value, out)
    wanted = {"seed": seed, "size": size, "version": _size(size).version}
    other = {key: there[key] for key in ("seed", "size", "version") if there[key] != wanted[key]}
    if other:
        found = ", ".join(f"{key} {value}" for key, value in other.items())
        asked = ", ".join(f"{key} {wanted[key]}" for key in other)
        raise OutputError(
            f"{out}: holds another synthetic planet ({found}; asked for {asked})",
            remedy="Choose another folder with --out, or replace that planet with --force.",
        )
    for name, file in there["files"].items():
        path = confined(out, name, source=out / _RECORD)
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise DataError(f"{path}: missing or changed since the planet was made",
                            remedy="Make the planet anew with --force.")  # fmt: skip
    return "done"


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A staging folder whose content is moved into `out` at the end, planet.json last."""
    staging = out / _STAGING
    try:
        if (staging / _MOVING).exists():  # killed while moving: what was moved is ours
            _remove(out, (_RECORD, *_TOP))
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        (staging / _MOVING).touch()
        _remove(out, (_RECORD, *_TOP))
        for name in (*_TOP, _RECORD):
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
    features: list[Feature] = []
    quads: list[str] = []
    tiles = 0
    (folder / _CTX).mkdir()
    with progress.start("regions", len(parts.regions), "regions") as bar:
        for number, region in enumerate(parts.regions):
            planned = scatter_features(region, _rng(seed, _SCATTER, number))
            image, drawn = paint(region, planned, parts.tile_px, _rng(seed, _PAINT, number))
            features += drawn
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
    """Never the generator that training draws its samples from, whatever the seed."""
    return np.random.default_rng([seed, _STREAM, *stream])


def find_planet(folder: Path) -> tuple[Path, PlanetRecord] | None:
    """Read the record of the planet that a folder is, or is a dataset of.

    Args:
        folder: Folder with or without a planet.

    Returns:
        Path of ``planet.json`` and what it holds; None where there is none.

    Raises:
        DataError: If it is damaged.
    """
    folder = folder.absolute()  # the working directory has a parent too
    for out in (folder, folder.parent):
        if (out / _RECORD).is_file():
            return out / _RECORD, _parse_record(read_json(out / _RECORD), out)
    return None


def _parse_record(value: object, out: Path) -> PlanetRecord:
    remedy = "Make the planet anew with --force."
    return from_json(PlanetRecord, value, source=out / _RECORD, remedy=remedy)


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
