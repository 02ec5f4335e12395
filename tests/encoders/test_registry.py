from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marsretrieval.encoders import Encoder, LoadOptions, all_records, find, load
from marsretrieval.encoders.catalogue import read_record
from marsretrieval.errors import (
    DataError,
    ModalityError,
    ModelLoadError,
    UnknownNameError,
    UsageError,
)
from tests.fakes import FakeEncoder


def test_every_model_of_the_catalogue_is_found_by_its_id_and_name() -> None:
    assert len(all_records()) >= 7
    for record in all_records():
        assert find(record.id) is record
        assert find(record.name.upper()) is record


def test_an_unknown_model_gets_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="pe-core") as raised:
        find("pe-core-l14")
    assert "pe-core-l-14-336" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'x'\nnonsense = 1", "unknown key nonsense"),
        ("name = 'x'", "is missing"),
        ("name = ", "TOML"),
    ],
)
def test_a_wrong_record_is_named_by_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(DataError, match=words) as raised:
        read_record(tmp_path / "mine.toml")
    assert "mine.toml" in str(raised.value)


def test_listing_models_imports_no_torch() -> None:
    code = (
        "import sys, marsretrieval.encoders as e\n"
        "assert e.all_records()\n"
        "print([m for m in ('torch', 'transformers', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# A class of one's own.


class Long:
    """Images and texts, vectors of any length."""

    def encode_images(self, images: list) -> list:
        return [[3.0, 4.0, float(image.width)] for image in images]

    def encode_texts(self, texts: list) -> list:
        return [[1.0, 2.0, float(len(text))] for text in texts]


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


def here(name: str) -> str:
    return f"{__name__}:{name}"


def test_a_class_of_ones_own_becomes_an_encoder() -> None:
    record = find(here("Long"))
    assert record.modalities == {"image", "text"}
    encoder = load(record)
    assert isinstance(encoder, Encoder)
    vectors = encoder.encode_images([Image.new("RGB", (7, 7)), Image.new("RGB", (9, 9))])
    assert vectors.dtype == np.float32 and vectors.shape == (2, 3) and encoder.dimension == 3
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(np.linalg.norm(encoder.encode_texts(["dunes"]), axis=1), 1)


def test_a_class_is_offered_the_options_that_it_names(tmp_path: Path) -> None:
    encoder = load(here("Choosy"), LoadOptions(device="cpu", checkpoint=tmp_path))
    assert encoder._inner.told == ("cpu", tmp_path)  # type: ignore[attr-defined]


def test_a_class_with_preprocess_keeps_it() -> None:
    encoder = load("tests.fakes:FakeEncoder")
    picture = Image.new("RGB", (20, 30), (200, 10, 30))
    features = [encoder.preprocess(picture)]
    assert np.array_equal(encoder.encode_preprocessed(features), encoder.encode_images([picture]))
    assert encoder.fingerprint["weights_sha256"] == FakeEncoder().fingerprint["weights_sha256"]


def test_a_class_without_a_text_side_says_so() -> None:
    record = find(here("Blind"))
    assert record.modalities == {"image"}
    with pytest.raises(ModalityError):
        load(record).encode_texts(["dunes"])


@pytest.mark.parametrize(
    ("name", "words"), [("Wrong", "shape"), ("Nan", "not finite"), ("Failing", "no weights")]
)
def test_what_is_wrong_with_a_class_is_said(name: str, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words):
        load(here(name))


@pytest.mark.parametrize("target", ["no.such:Class", "math:sqrt", "json:Nothing"])
def test_what_is_no_encoder_is_wrong_use(target: str) -> None:
    with pytest.raises(UsageError, match=target):
        find(target)


PACKAGE = '''
class Grey:
    """Mean and spread of the grey levels."""

    def encode_images(self, images):
        import numpy as np
        rows = [np.asarray(image.convert("L"), float) for image in images]
        return [[row.mean() + 1, row.std() + 1] for row in rows]
'''


def test_an_installed_package_adds_a_model_and_a_broken_one_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "grey_mars.py").write_text(PACKAGE)
    info = tmp_path / "grey_mars-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grey-mars\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[marsretrieval.encoders]\ngrey = grey_mars:Grey\nbroken = no_such_module:Thing\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from PIL import Image\n"
        "from marsretrieval.encoders import find, load\n"
        "assert find('mars-nano')\n"
        "print(load('grey').encode_images([Image.new('RGB', (8, 8))]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 2)"
    assert "plugin 'broken'" in done.stderr
