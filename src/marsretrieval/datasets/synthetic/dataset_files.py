"""Write generated images, captions and tiles in the file formats of the real datasets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.synthetic.ground import Rng
from marsretrieval.datasets.synthetic.planet import TILES, PlanetSize, PlantedFeature
from marsretrieval.datasets.synthetic.registry import LANDFORMS
from marsretrieval.datasets.synthetic.scene import Attributes, draw_image, sample
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import MissingDependencyError
from marsretrieval.progress import NO_PROGRESS, Progress

Grey = npt.NDArray[np.uint8]
_PAIRS_PER_TAR = 200
_ROWS_PER_GROUP = 100
_FILES = 2
_QUALITY = 92
_GORE = 0.1  # share of landform images whose edge has no data
# CRS text of the mosaic: it names an oblate Mars, although the pixels are laid out on the sphere
# (x = R lon, y = R lat). It is reproduced because readers have to handle it.
_CRS = (
    'PROJCS["Mars_2015_Ocentric_Equirectangular_clon_0",GEOGCS["Mars (2015) / Ocentric",'
    'DATUM["Mars (2015)",SPHEROID["Mars (2015)",3396190,169.894447223612]],'
    'PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)
_NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "more than twenty",
)  # fmt: skip
_COMPASS = (
    "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest",
)  # fmt: skip
_AXES = ("north-south", "northeast-southwest", "east-west", "northwest-southeast")
_NEAR_THE_MIDDLE = 0.1  # tiles
_ODD_TONE = 0.1
_ASPECTS = (1.0, 1.0, 1.0, 1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)
# Colours of the darkest and the brightest grey: rust, ochre, butterscotch, false blue.
_TINTS = (
    ((28, 10, 6), (246, 178, 130)),
    ((30, 16, 8), (240, 196, 148)),
    ((40, 20, 10), (255, 214, 160)),
    ((8, 12, 28), (196, 214, 240)),
)
_COLOUR = 0.2


def write_pairs(
    folder: Path, size: PlanetSize, seed: int, rng: Rng, progress: Progress = NO_PROGRESS
) -> None:
    """Write images with captions as WebDataset tars, `000000.tar` and on.

    A sample is `key.jpg` and `key.json` with two captions. All captions are unique.

    Args:
        folder: New folder for the tars.
        size: Amount of data.
        seed: Seed of the planet, for the image URLs.
        rng: Random generator.
        progress: Progress display.
    """
    folder.mkdir(parents=True)
    captions: set[str] = set()
    with progress.start("pairs", size.pairs, "images") as bar:
        for number, start in enumerate(range(0, size.pairs, _PAIRS_PER_TAR)):
            members: list[tuple[str, bytes]] = []
            for index in range(start, min(start + _PAIRS_PER_TAR, size.pairs)):
                image, terse, refined = sample_pair(rng)
                while terse in captions or refined in captions:
                    image, terse, refined = sample_pair(rng)
                captions |= {terse, refined}
                key = f"{number:05d}{index - start:04d}"
                annotation = {
                    "key": key,
                    "image_url": f"synthetic://planet/{seed}/{key}.jpg",
                    "ori_caption": terse,
                    "refined_caption": refined,
                }
                members += [(f"{key}.jpg", _jpeg(image)), (f"{key}.json", _json(annotation))]
                bar.advance()
            write_tar(folder / f"{number:06d}.tar", members)


def write_landforms(
    folder: Path, size: PlanetSize, rng: Rng, progress: Progress = NO_PROGRESS
) -> dict[str, int]:
    """Write images with classes as Parquet files in the layout of Hugging Face.

    Args:
        folder: New folder for `data/`.
        size: Amount of data.
        rng: Random generator.
        progress: Progress display.

    Returns:
        Number of images by class.
    """
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
            pixels, _ = sample(names[label], rng, edge)
            if rng.random() < _GORE:
                _cut_corner(pixels, rng)
            key = f"synthetic-{row:05d}"
            image = {"bytes": _jpeg(pixels), "path": f"{key}.jpg"}
            rows.append({"image": image, "label": int(label), "image_id": key})
            bar.advance()
    share = -(-len(rows) // _FILES)
    for part in range(_FILES):
        table = pa.Table.from_pylist(rows[part * share : (part + 1) * share], schema=schema)
        path = folder / "data" / f"train-{part:05d}-of-{_FILES:05d}.parquet"
        pq.write_table(table, path, row_group_size=_ROWS_PER_GROUP)
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def write_tiles(folder: Path, west: int, south: int, quad: Grey) -> int:
    """Write the 20 x 20 tiles of a quad to `<quad>.tar`, from its north-west corner.

    Args:
        folder: Folder for the tar.
        west: Longitude of the quad's south-west corner in degrees.
        south: Latitude of that corner.
        quad: Pixels of the quad.

    Returns:
        Number of tiles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = geo.quad_name(west, south)
    members = list(_tiles(west, south, quad, name))
    write_tar(folder / f"{name}.tar", members)
    return len(members) // 2


def write_quad(path: Path, west: int, south: int, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a quad as an uncompressed GeoTIFF without a nodata tag.

    Args:
        path: File to write.
        west: Longitude of the south-west corner in degrees.
        south: Latitude of the south-west corner in degrees.
        pixels: Array of shape (n, n).
    """
    import rasterio

    x_min, y_max = (float(edge) for edge in geo.lonlat_to_metres(west, south + geo.QUAD_DEG))
    x_max, y_min = (float(edge) for edge in geo.lonlat_to_metres(west + geo.QUAD_DEG, south))
    rows, columns = pixels.shape
    # In memory first: GDAL does not report a full disk when it closes a file.
    with rasterio.io.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=columns,
            height=rows,
            count=1,
            dtype="uint8",
            crs=rasterio.crs.CRS.from_wkt(_CRS),
            transform=rasterio.Affine(
                (x_max - x_min) / columns, 0, x_min, 0, (y_min - y_max) / rows, y_max
            ),
        ) as file:
            file.write(pixels, 1)
        memory.seek(0)
        path.write_bytes(memory.read())


def quad_file_name(west: int, south: int) -> str:
    """Return the file name of a quad, such as `MurrayLab_CTX_V01_E-180_N-04_Mosaic.tif`.

    Args:
        west: Longitude of the south-west corner in degrees.
        south: Latitude of the south-west corner in degrees.

    Returns:
        The file name.
    """
    return f"MurrayLab_CTX_V01_{geo.quad_name(west, south)}_Mosaic.tif"


def require_rasterio() -> None:
    """Check that rasterio is installed before any work is done.

    Raises:
        MissingDependencyError: If it is not.
    """
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "rasterio", "geotiff", needed_for="writing the planet's GeoTIFFs"
        ) from error


def write_ground_truth(
    folder: Path, features: Sequence[PlantedFeature], names: Sequence[str]
) -> None:
    """Write `<name>.csv` with longitude, latitude and diameter of each feature of a landform.

    Args:
        folder: New folder for the files.
        features: Features of the planet.
        names: Landforms to write.
    """
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
    """Write example images of landforms, `<name>/0.png` and on, that are not cut from the planet.

    Args:
        folder: Folder for the images.
        size: Amount of data.
        names: Landforms to write.
        rng: Random generator.
    """
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(size.examples):
            image, _ = sample(name, rng, size.tile_px)
            (folder / name / f"{index}.png").write_bytes(_png(image))


def _tiles(west: int, south: int, quad: Grey, name: str) -> Iterator[tuple[str, bytes]]:
    edge = quad.shape[0] // TILES
    for row in range(TILES):
        for column in range(TILES):
            tile_west = round(west + column * geo.TILE_DEG, 9)
            tile_south = round(south + (TILES - 1 - row) * geo.TILE_DEG, 9)
            window = quad[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
            key = geo.tile_name(tile_west, tile_south)
            tile_east, tile_north = (
                round(tile_west + geo.TILE_DEG, 9),
                round(tile_south + geo.TILE_DEG, 9),
            )
            annotation = {
                "bounds": [tile_west, tile_south, tile_east, tile_north],
                "center": list(geo.tile_centre(key) or ()),
                "valid": round(float(np.count_nonzero(window)) / window.size, 6),
                "quad": name,
                "synthetic": True,
            }
            yield f"{key}.png", _png(window)
            yield f"{key}.json", _json(annotation)


def _class_sizes(classes: int, images: int, rng: Rng) -> npt.NDArray[np.int64]:
    """Draw unequal class sizes with a given sum, the largest several times the smallest."""
    weights = rng.permutation(1 / (np.arange(classes) + 0.25 * classes + 1))
    counts: npt.NDArray[np.int64] = np.maximum(
        2, (images * weights / weights.sum()).astype(np.int64)
    )
    counts[np.argmax(counts)] += images - counts.sum()
    return counts


def _cut_corner(image: Grey, rng: Rng) -> None:
    """Blacken the area beyond the edge of an image strip, as in map-projected products."""
    y, x = np.ogrid[-0.5 : 0.5 : image.shape[0] * 1j, -0.5 : 0.5 : image.shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    image[x * np.cos(angle) + y * np.sin(angle) > rng.uniform(0.36, 0.46)] = 0


def _jpeg(image: Grey) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _png(image: Grey) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def describe(attributes: Attributes, rng: Rng) -> tuple[str, str]:
    """Write captions for an image.

    Args:
        attributes: What the image shows.
        rng: Random generator; the wording varies.

    Returns:
        Terse and refined caption.
    """
    landform = LANDFORMS[attributes.landform]
    number = _NUMBERS[min(attributes.count, len(_NUMBERS) - 1)] if attributes.count else "several"
    subject = landform.one if attributes.count == 1 else landform.many.format(n=number)
    phrases = [
        phrase
        for phrase in (
            _describe_bearing(attributes),
            _describe_extent(attributes),
            _describe_position(attributes),
        )
        if phrase
    ]
    return _terse_caption(attributes, subject, phrases, rng), _refined_caption(
        attributes, subject, phrases, landform.signs, rng
    )


def _terse_caption(attributes: Attributes, subject: str, phrases: list[str], rng: Rng) -> str:
    chosen = [phrase for phrase in (attributes.detail, *phrases) if rng.random() < 0.75]
    joint = " on " if rng.random() < 0.5 else ", "
    return joint.join([subject, ", ".join([_describe_ground(attributes), *chosen])])


def _refined_caption(
    attributes: Attributes, subject: str, phrases: list[str], signs: tuple[str, ...], rng: Rng
) -> str:
    comma = "" if attributes.detail.startswith("with") else ","
    ground = _describe_ground(attributes)
    description = f"{subject}{comma} {attributes.detail}, on {ground}, {', '.join(phrases)}"
    sign = str(rng.choice(signs))
    if rng.random() < 0.5:
        opening = rng.choice(["An orbital image of", "Seen from orbit:", "The picture shows"])
        return f"{opening} {description}. {_capital(sign)}."
    return f"{_capital(description)}; {sign}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _describe_ground(attributes: Attributes) -> str:
    if abs(attributes.tone) < _ODD_TONE:
        return attributes.setting
    return f"{'bright' if attributes.tone > 0 else 'dark'} {attributes.setting}"


def _describe_position(attributes: Attributes) -> str:
    if attributes.offset is None:
        return ""
    east, south = attributes.offset
    row = "" if abs(south) < _NEAR_THE_MIDDLE else "lower" if south > 0 else "upper"
    column = "" if abs(east) < _NEAR_THE_MIDDLE else "right" if east > 0 else "left"
    if row and column:
        return f"in the {row} {column}"
    if row or column:
        return f"in the {row or column} part"
    return "in the middle"


def _describe_bearing(attributes: Attributes) -> str:
    if attributes.bearing is None:
        return ""
    octant = round(attributes.bearing / 45)
    if attributes.flows:
        return f"pointing {_COMPASS[octant % 8]}"
    return f"trending {_AXES[octant % 4]}"


def _describe_extent(attributes: Attributes) -> str:
    if attributes.size_km is None:
        return "all across the scene"
    return f"about {attributes.size_km:.1f} km across"


def sample_pair(rng: Rng) -> tuple[npt.NDArray[np.uint8], str, str]:
    """Draw an image of a random landform, with captions.

    Args:
        rng: Random generator.

    Returns:
        Image as a uint8 array of shape (rows, columns) in grey or (rows, columns, 3) in colour,
        terse caption, refined caption.
    """
    names = tuple(LANDFORMS)
    landform = LANDFORMS[names[rng.integers(len(names))]]
    short = int(rng.integers(64, 129))
    aspect = _ASPECTS[rng.integers(len(_ASPECTS))]
    long = round(short * max(aspect, 1 / aspect))
    shape = (short, long) if aspect >= 1 else (long, short)
    grey, attributes = draw_image(landform, rng, shape)
    terse, refined = describe(attributes, rng)
    if rng.random() >= _COLOUR:
        return grey, terse, refined
    dark, bright = (np.array(colour) for colour in _TINTS[rng.integers(len(_TINTS))])
    ramp = dark + (bright - dark) * np.linspace(0, 1, 256)[:, None]
    return np.rint(ramp).astype(np.uint8)[grey], terse, refined
