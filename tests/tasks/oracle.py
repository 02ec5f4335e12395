"""An encoder with perfect answers, and datasets of flat grey images that encode them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from marsretrieval import geo
from marsretrieval.encoders import LoadOptions, ModelSpec
from marsretrieval.errors import ModelLoadError

__all__ = [
    "NAMES",
    "OracleEncoder",
    "class_folders",
    "grey_png",
    "oracle_spec",
    "pairs_tar",
    "tiles_folder",
]

# The grey level of an image is 8 times the place of its landform's name here.
NAMES = ("plains", "pitted_cones", "landslides", "yardangs", "alluvial_fans", "glacier-like_form")


def _level(image: Image.Image) -> int:
    return round(float(np.asarray(image.convert("L")).mean()) / 8)


class OracleEncoder:
    """Encoder of images by grey level and of texts by the level of the name that they contain."""

    id = "oracle"
    dimension = 64
    fingerprint: Mapping[str, Any] = {"id": "oracle", "weights_sha256": "none"}

    def __init__(self, *, text: bool = True) -> None:
        self.modalities = frozenset({"image", "text"} if text else {"image"})

    @property
    def preprocess(self) -> Callable[[Image.Image], int]:
        return _level

    def encode_preprocessed(self, features: Sequence[int]) -> np.ndarray:
        return np.eye(self.dimension, dtype=np.float32)[list(features)]

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_preprocessed([_level(image) for image in images])

    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> np.ndarray:
        return self.encode_preprocessed([_named(text) for text in texts])

    def count_truncated(self, texts: Sequence[str], *, role: str = "query") -> int | None:
        return 0


def _named(text: str) -> int:
    plain = text.replace("-", " ").replace("_", " ")
    for number, name in enumerate(NAMES):
        if name.replace("-", " ").replace("_", " ") in plain:
            return number
    last = plain.split()[-1]
    return int(last) if last.isdigit() else 63


def grey_png(level: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size), 8 * level).save(buffer, "PNG")
    return buffer.getvalue()


def class_folders(folder: Path, counts: Mapping[str, int]) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{name}-{number}.png").write_bytes(grey_png(NAMES.index(name)))
    return folder


def _write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def pairs_tar(folder: Path, count: int = 20) -> Path:
    """Write pairs whose caption ends in the level of the image."""
    members: dict[str, bytes] = {}
    for level in range(count):
        members[f"{level:04d}.png"] = grey_png(level)
        caption = {"ori_caption": "x", "refined_caption": f"flat terrain number {level}"}
        members[f"{level:04d}.json"] = json.dumps(caption).encode()
    _write_tar(folder / "Mars-VL-Pairs" / "000000.tar", members)
    return folder


def tiles_folder(folder: Path, *, quad: tuple[int, int] = (176, -4)) -> Path:
    """Write one quad of 400 tiles, some of each landform, with their centres as ground truth."""
    rng = np.random.default_rng(3)
    root = folder / "Mars-Global-Geolocalization"
    members: dict[str, bytes] = {}
    truth: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES[1:]}
    for row in range(20):
        for column in range(20):
            lon, lat = quad[0] + 0.2 * column, quad[1] + 0.2 * row
            level = int(rng.integers(1, len(NAMES))) if rng.random() < 0.05 else 0
            stem = geo.tile_name(lon, lat)
            members[f"{stem}.png"] = grey_png(level)
            bounds = [lon, lat, lon + 0.2, lat + 0.2]
            position = {"bounds": bounds, "center": [lon + 0.1, lat + 0.1]}
            members[f"{stem}.json"] = json.dumps(position).encode()
            if level:
                truth[NAMES[level]].append((lon + 0.1, lat + 0.1))
    _write_tar(root / "tiles" / "000000.tar", members)
    for index, (name, points) in enumerate(truth.items(), 1):
        (root / "ground_truth").mkdir(exist_ok=True)
        lines = ["lon,lat", *(f"{lon:.4f},{lat:.4f}" for lon, lat in points)]
        (root / "ground_truth" / f"{name}.csv").write_text("\n".join(lines) + "\n")
        examples = root / "image_queries" / name
        examples.mkdir(parents=True)
        for number in range(2):
            (examples / f"{number}.png").write_bytes(grey_png(index))
    return folder


def oracle(spec: ModelSpec, options: LoadOptions) -> OracleEncoder:
    return OracleEncoder()


def broken(spec: ModelSpec, options: LoadOptions) -> OracleEncoder:
    raise ModelLoadError("weights are gone")


class Exploding(OracleEncoder):
    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> np.ndarray:
        raise RuntimeError("a kernel was lost")


def exploding(spec: ModelSpec, options: LoadOptions) -> OracleEncoder:
    return Exploding()


def oracle_spec(loader: str = "oracle", **changes: object) -> ModelSpec:
    """Return a model spec; its loader is a function here: oracle, broken or exploding."""
    fields: dict[str, object] = {
        "id": loader, "name": loader, "family": "test", "loader": f"{__name__}:{loader}",
        "repository": "nowhere", "revision": None, "image_size": None, "dimension": 64,
        "parameters": None, "licence": "none", "paper": "", "code": "", "tried": "",
    }  # fmt: skip
    return ModelSpec(**{**fields, **changes})  # type: ignore[arg-type]
