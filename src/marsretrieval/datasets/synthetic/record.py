"""Record of a synthetic planet: the file ``planet.json`` in its folder."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import TypedDict

from marsretrieval.io import Int64, JsonObject, from_json, read_json

PLANET_FILE = "planet.json"


class PlanetCounts(JsonObject):
    """Numbers of items of a planet."""

    pairs: Int64
    landform_images: Int64
    tiles: Int64
    features: Int64


class PlanetFile(JsonObject):
    """Size and checksum of a file."""

    bytes: Int64
    sha256: str


_Feature = TypedDict("_Feature", {"class": str, "lon": float, "lat": float, "size_km": float})


class PlanetRecord(JsonObject):
    """Content of ``planet.json``: parameters, features and files of a planet."""

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


def find_planet(folder: str | Path) -> tuple[Path, PlanetRecord] | None:
    """Find the planet that a folder holds or belongs to.

    Args:
        folder: Folder of a planet or of one of its datasets, or any other folder.

    Returns:
        Path of ``planet.json`` and its content; None if there is no planet.

    Raises:
        DataError: If the file is damaged.
    """
    folder = Path(folder).absolute()  # the working directory has a parent too
    for out in (folder, folder.parent):
        if (out / PLANET_FILE).is_file():
            return out / PLANET_FILE, parse_record(read_json(out / PLANET_FILE), out)
    return None


def parse_record(value: object, out: Path) -> PlanetRecord:
    """Check the content of a planet's record.

    Args:
        value: Content of the file.
        out: Folder of the planet.

    Returns:
        The record.

    Raises:
        DataError: If a key is missing or invalid.
    """
    remedy = "Create the planet again with --force."
    return from_json(PlanetRecord, value, source=out / PLANET_FILE, remedy=remedy)
