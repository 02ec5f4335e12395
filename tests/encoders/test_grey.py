"""Encoders that accept grey images: tensors and stores of the same bytes as from RGB."""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from marsretrieval.datasets import open_images
from marsretrieval.embeddings import Target, build_store, build_stores, open_store
from marsretrieval.encoders import LoadOptions, load
from marsretrieval.encoders.open_clip import OpenClipEncoder, OpenClipPreprocess
from tests.encoders.tiny import ARCHITECTURES, save_folder
from tests.fakes import FakeEncoder, thumbnail

IDS = {
    "clip": "dfn2b-clip-vit-l-14",
    "siglip": "vit-l-16-siglip-384",
    "siglip2": "vit-l-16-siglip2-512",
    "pe": "pe-core-l-14-336",
}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SIDES = [(512, 512), (224, 224), (90, 90), (300, 170), (33, 470), (1, 7), (1200, 900)]


def grey_images() -> list[Image.Image]:
    """Create noise and ramps of full range, so that resampling overshoot is clipped."""
    rng = np.random.default_rng(0)
    images = []
    for width, height in SIDES:
        images.append(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
        ramp = np.linspace(0, 255, width * height).reshape(height, width)
        images.append(Image.fromarray(ramp.astype(np.uint8)))
    return images


@pytest.mark.parametrize(
    ("resize_mode", "interpolation", "size"),
    itertools.product(
        ("shortest", "longest", "squash"),
        ("bicubic", "bilinear"),
        (64, 224, 336, 384, (96, 160)),
    ),
)
def test_tensors_from_grey_equal_those_from_rgb(
    resize_mode: str, interpolation: str, size: Any
) -> None:
    settings = {
        "size": size, "mean": MEAN, "std": STD, "interpolation": interpolation,
        "resize_mode": resize_mode, "fill_color": 127,
    }  # fmt: skip
    preprocess = OpenClipPreprocess(settings)  # makes torchvision importable
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    assert preprocess.accepts_grey
    for image in grey_images():
        tensor = preprocess(image)
        assert tensor.shape[0] == 3 and tensor.dtype == torch.float32 and tensor.is_contiguous()
        assert torch.equal(tensor, preprocess(image.convert("RGB")))
        assert torch.equal(tensor, transform(image.convert("RGB")))


def test_padding_with_a_colour_needs_rgb() -> None:
    settings = {"size": 64, "resize_mode": "longest", "fill_color": (10, 20, 30)}
    assert not OpenClipPreprocess(settings).accepts_grey


@pytest.fixture(scope="module", params=ARCHITECTURES)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = save_folder(request.param, tmp_path_factory.mktemp("m") / request.param)
    return load(IDS[request.param], LoadOptions(device="cpu", checkpoint=folder))


def test_every_open_clip_architecture_accepts_grey(encoder: OpenClipEncoder) -> None:
    sent = pickle.loads(pickle.dumps(encoder.preprocess))
    assert encoder.preprocess.accepts_grey is sent.accepts_grey is True
    for image in grey_images():
        assert torch.equal(sent(image), encoder.preprocess(image.convert("RGB")))


def write_images(folder: Path) -> Path:
    """Write grey, colour, transparent, deep and bilevel images, and an invalid file."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number, side in enumerate((16, 32, 70, 128)):
        pixels = rng.integers(0, 256, (side, side + number, 3), dtype=np.uint8)
        grey = Image.fromarray(pixels[..., 0])
        grey.save(folder / f"grey-{number}.png")
        grey.save(folder / f"jpeg-{number}.jpg")
        grey.convert("1").save(folder / f"bilevel-{number}.png")
        grey.convert("LA").save(folder / f"alpha-{number}.png")
        grey.save(folder / f"transparent-{number}.png", transparency=int(pixels[0, 0, 0]))
        Image.fromarray(pixels).save(folder / f"colour-{number}.png")
        Image.fromarray(pixels[..., 1].astype(np.uint16) * 200).save(folder / f"deep-{number}.png")
    (folder / "none.png").write_bytes(b"no image")
    return folder


def content(store: Path) -> dict[str, bytes]:
    """Read the files of a store without its entries and manifest, which hold times."""
    files = {path.name: path.read_bytes() for path in store.rglob("*.arrow")}
    assert files
    return files


def test_stores_are_the_same_bytes(encoder: OpenClipEncoder, tmp_path: Path, monkeypatch) -> None:
    source = open_images(write_images(tmp_path / "images"))
    build_store(encoder, source, tmp_path / "grey", batch_size=4)
    monkeypatch.setattr(encoder.preprocess, "accepts_grey", False)
    build_store(encoder, source, tmp_path / "rgb", batch_size=4)
    assert content(tmp_path / "grey") == content(tmp_path / "rgb")
    one, other = open_store(tmp_path / "grey"), open_store(tmp_path / "rgb")
    assert one.rows == 28 and len(one.skipped) == 1
    assert one.load()[0] == other.load()[0] and one.set_hash == other.set_hash
    assert [item.reason for item in one.skipped] == [item.reason for item in other.skipped]


class Watching:
    """Preprocessing that keeps the modes of its images."""

    def __init__(self, accepts_grey: Any = None) -> None:
        self.modes: set[str] = set()
        if accepts_grey is not None:
            self.accepts_grey = accepts_grey

    def __call__(self, image: Image.Image) -> Any:
        self.modes.add(image.mode)
        return thumbnail(image)


def watched(preprocess: Callable[[Image.Image], Any], seed: int) -> FakeEncoder:
    class Watched(FakeEncoder):
        @property
        def preprocess(self) -> Any:
            return preprocess

    return Watched(seed=seed)


def test_grey_is_passed_only_to_models_that_declare_it(tmp_path: Path) -> None:
    source = open_images(write_images(tmp_path / "images"))
    functions = [Watching(), Watching(True), Watching(False), Watching("yes")]
    targets = [
        Target(watched(function, seed), tmp_path / str(seed))
        for seed, function in enumerate(functions)
    ]
    build_stores(targets, source, workers=1)
    modes = [function.modes for function in functions]
    assert modes == [{"RGB"}, {"L", "RGB"}, {"RGB"}, {"RGB"}]
    alone = Watching()
    build_store(watched(alone, 1), source, tmp_path / "alone", workers=1)
    assert alone.modes == {"RGB"}
    assert content(tmp_path / "1") == content(tmp_path / "alone")


def test_custom_class_always_gets_rgb(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "grey_levels.py").write_text(
        "import numpy as np\n"
        "class Preprocess:\n"
        "    accepts_grey = True\n"
        "    def __call__(self, image):\n"
        "        return np.array([image.mode == 'RGB', image.mode == 'L', 0.5])\n"
        "class Model:\n"
        "    preprocess = Preprocess()\n"
        "    def encode_preprocessed(self, features):\n"
        "        return np.stack(features)\n"
        "    def encode_images(self, images):\n"
        "        return np.stack([self.preprocess(image) for image in images])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    source = open_images(write_images(tmp_path / "images"))
    build_store(load("grey_levels:Model"), source, tmp_path / "store", dtype="float32")
    vectors = open_store(tmp_path / "store").load()[1]
    assert (vectors[:, 0] > 0.8).all() and (vectors[:, 1] == 0).all()


def test_png_tiles_of_one_channel_stay_so_until_the_tensor(tmp_path: Path, monkeypatch) -> None:
    """The shared `mars-nano` through the pipeline: its transform receives mode L."""
    model = load("mars-nano", LoadOptions(device="cpu"))
    inner, modes = model.preprocess, []

    class Spy:
        accepts_grey = inner.accepts_grey

        def __call__(self, image: Image.Image) -> Any:
            modes.append(image.mode)
            return inner(image)

    monkeypatch.setattr(model, "_preprocess", Spy())
    buffer = io.BytesIO()
    grey_images()[0].save(buffer, "PNG")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "tile.png").write_bytes(buffer.getvalue())
    build_store(model, open_images(tmp_path / "images"), tmp_path / "store", batch_size=1)
    assert "L" in modes
    expected = model.encode_preprocessed([inner(grey_images()[0].convert("RGB"))])
    stored = open_store(tmp_path / "store").load()[1]
    assert np.array_equal(stored, expected.astype(np.float16))
