"""User-defined classes, functions and objects as encoders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marsretrieval.encoders import Encoder, LoadOptions, find, load
from marsretrieval.errors import (
    ModalityError,
    ModelLoadError,
    UsageError,
)
from tests.fakes import FakeEncoder


class Long:
    """Encoder of images and texts with vectors of any length."""

    def encode_images(self, images: list) -> list:
        return [[3.0, 4.0, float(image.width)] for image in images]

    def encode_texts(self, texts: list) -> list:
        return [[1.0, 2.0, float(len(text))] for text in texts]


class Told(Long):
    def __init__(self, device: str) -> None:
        self.where = device


class Blind(Long):
    modalities = frozenset({"image"})


class Wrong:
    def encode_images(self, images: list) -> np.ndarray:
        return np.zeros((1, 2, 3))


class Nan:
    def encode_images(self, images: list) -> np.ndarray:
        return np.full((len(images), 3), np.nan)


class Failing:
    def __init__(self) -> None:
        raise RuntimeError("no weights")

    def encode_images(self, images: list) -> None: ...


class Choosy(Long):
    def __init__(self, device: str, checkpoint: Path | None = None) -> None:
        self.told = (device, checkpoint)


class Raising(Long):
    def encode_images(self, images: list) -> list:
        raise RuntimeError("no device")


class Mute(Long):
    def encode_texts(self, texts: list) -> list:
        raise RuntimeError("no tokenizer")


class Picky(Long):
    """Encoder that supports only the texts of its task."""

    def encode_texts(self, texts: list) -> list:
        return [{"dunes": [1.0, 2.0, 3.0]}[text] for text in texts]


class Narrow(Long):
    def encode_texts(self, texts: list) -> list:
        return [[1.0, 2.0] for _ in texts]


class Ragged:
    def encode_images(self, images: list) -> list:
        return [["a"]]


class Complex:
    def encode_images(self, images: list) -> np.ndarray:
        return np.ones((len(images), 3), complex)


class Boasting(Long):
    dimension = 4


class Secretive(Long):
    fingerprint = {"weights": object()}  # noqa: RUF012


class Helped(Long):
    """Encoder with `preprocess` for internal use, like a wrapped CLIP."""

    def preprocess(self, image: Image.Image) -> float:
        return image.width / 2


class Apart(Long):
    """Encoder whose preprocessing can run in workers."""

    def preprocess(self, image: Image.Image) -> float:
        return image.width / 2

    def encode_preprocessed(self, features: list) -> list:
        return [[3.0, 4.0, feature] for feature in features]


class Tensors(Long):
    def encode_images(self, images: list) -> object:
        import torch

        return torch.ones(len(images), 3, dtype=torch.bfloat16, requires_grad=True)


def make(device: str) -> Long:
    return Long()


def make_nothing(device: str) -> str:
    return device


made = Long()


def here(name: str) -> str:
    return f"{__name__}:{name}"


def test_custom_class_becomes_an_encoder() -> None:
    record = find(here("Long"))
    assert record.modalities == {"image", "text"}
    encoder = load(record)
    assert isinstance(encoder, Encoder)
    vectors = encoder.encode_images([Image.new("RGB", (7, 7)), Image.new("RGB", (9, 9))])
    assert vectors.dtype == np.float32 and vectors.shape == (2, 3) and encoder.dimension == 3
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(np.linalg.norm(encoder.encode_texts(["dunes"]), axis=1), 1)


def test_class_receives_the_options_that_it_declares(tmp_path: Path) -> None:
    encoder = load(here("Choosy"), LoadOptions(device="cpu", checkpoint=tmp_path))
    assert encoder._inner.told == ("cpu", tmp_path)  # type: ignore[attr-defined]


def test_class_receives_a_valid_torch_device() -> None:
    import torch

    encoder = load(here("Choosy"))
    device, _ = encoder._inner.told  # type: ignore[attr-defined]
    assert torch.device(device).type in ("cpu", "cuda", "mps")


def test_unsupported_option_is_an_error(tmp_path: Path) -> None:
    for options in (
        LoadOptions(checkpoint=tmp_path),
        LoadOptions(dtype="float16"),
        LoadOptions(prompts="official"),
    ):
        with pytest.raises(UsageError, match="does not accept --"):
            load(here("Long"), options)
    assert load(here("Long"), LoadOptions(device="cpu", offline=True)).dimension == 3


@pytest.mark.parametrize("name", ["make", "made", "Tensors"])
def test_functions_objects_and_tensors_are_accepted(name: str) -> None:
    assert find(here(name)).modalities == {"image", "text"}
    encoder = load(here(name))
    vectors = encoder.encode_images([Image.new("RGB", (7, 7))])
    assert vectors.dtype == np.float32 and vectors.shape == (1, 3)


def test_class_may_support_only_known_texts() -> None:
    assert load(here("Picky")).encode_texts(["dunes"]).shape == (1, 3)


def test_empty_input_gives_no_vectors() -> None:
    encoder = load(here("Long"))
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 3)


def test_class_with_both_preprocessing_steps_uses_them() -> None:
    encoder = load("tests.fakes:FakeEncoder")
    picture = Image.new("RGB", (20, 30), (200, 10, 30))
    features = [encoder.preprocess(picture)]
    assert np.array_equal(encoder.encode_preprocessed(features), encoder.encode_images([picture]))
    assert encoder.fingerprint["weights_sha256"] == FakeEncoder().fingerprint["weights_sha256"]
    assert load(here("Apart")).preprocess(picture) == 10


def test_a_class_with_preprocess_alone_prepares_its_images_itself() -> None:
    encoder = load(here("Helped"))
    picture = Image.new("RGB", (20, 30))
    assert encoder.preprocess(picture) is picture
    vectors = encoder.encode_preprocessed([encoder.preprocess(picture)])
    assert np.array_equal(vectors, encoder.encode_images([picture]))


GREY = """
class Grey:
    def encode_images(self, images):
        return [[image.width, image.height] for image in images]
"""


def test_two_versions_of_a_class_have_two_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    prints = []
    for name, extra in (("first", ""), ("second", "# changed\n")):
        (tmp_path / f"{name}_version.py").write_text(GREY + extra)
        prints.append(load(f"{name}_version:Grey").fingerprint["source_sha256"])
    assert prints[0] != prints[1]
    (tmp_path / "weights.bin").write_bytes(b"1")
    options = LoadOptions(checkpoint=tmp_path / "weights.bin")
    before = load(here("Choosy"), options).fingerprint
    (tmp_path / "weights.bin").write_bytes(b"2")
    assert load(here("Choosy"), options).fingerprint != before


def test_class_without_text_encoder_is_reported() -> None:
    record = find(here("Blind"))
    assert record.modalities == {"image"}
    with pytest.raises(ModalityError):
        load(record).encode_texts(["dunes"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Wrong", "shape"),
        ("Nan", "not finite"),
        ("Failing", r"no weights, at test_plugin\.py"),
        ("Raising", r"encode_images failed .*no device, at test_plugin\.py"),
        ("Mute", r"encode_texts failed .*no tokenizer"),
        ("Narrow", r"encode_texts returned an array of shape \(1, 2\)"),
        ("Ragged", "not an array"),
        ("Complex", "complex numbers"),
        ("Boasting", "declares dimension 4 but returns 3"),
        ("Secretive", "fingerprint cannot be written as JSON"),
        ("make_nothing", "made a str, which has no encode_images"),
    ],
)
def test_errors_of_a_class_are_named(name: str, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words):
        load(here(name))


def test_failing_import_gives_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "half_written.py").write_text("def (:\n")
    with pytest.raises(UsageError, match="SyntaxError"):
        find("half_written:Class")


@pytest.mark.parametrize("target", ["no.such:Class", "math:sqrt", "json:Nothing"])
def test_non_encoder_is_a_usage_error(target: str) -> None:
    with pytest.raises(UsageError, match=target):
        find(target)


def test_requested_device_is_used_or_reported() -> None:
    def of(target: type, device: str) -> str:
        return load(find(f"{__name__}:{target.__name__}"), LoadOptions(device=device)).device  # type: ignore[attr-defined,no-any-return]

    assert of(Told, "cuda:7") == "cuda:7"
    assert of(Long, "cpu") == "cpu"
    Told.device = property(lambda self: "mps")  # type: ignore[attr-defined]
    try:
        assert of(Told, "cuda:7") == "mps"
    finally:
        del Told.device  # type: ignore[attr-defined]
