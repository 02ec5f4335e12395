from __future__ import annotations

import re
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


def test_every_model_of_the_catalogue_is_found_by_its_names() -> None:
    ids = [record.id for record in all_records()]
    assert len(ids) >= 18
    assert ids == sorted(ids)
    for record in all_records():
        assert find(record.id) is record
        assert find(record.name.upper()) is record
        assert find(record.id.replace("-", "_")) is record
        if not record.id.startswith("mars-nano"):
            assert find(record.repository) is record


def test_an_unknown_model_gets_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="pe-core") as raised:
        find("pe-core-l14")
    assert "pe-core-l-14-336" in str(raised.value)
    with pytest.raises(UnknownNameError, match="Did you mean dfn2b-clip-vit-l-14"):
        find("DFN2B")


GOOD = {
    "name": "'x'", "family": "'open_clip'", "loader": "'a.b:load'", "repository": "'a/b'",
    "dimension": "8", "licence": "'mit'", "paper": "''", "code": "''", "tried": "'nothing'",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dimension", "'8'"),
        ("dimension", "-1"),
        ("image_size", "true"),
        ("revision", "'main'"),
        ("loader", "'a.b'"),
        ("modalities", "['text']"),
        ("gated", "'no'"),
        ("settings", "3"),
        ("name", "''"),
    ],
)
def test_a_value_of_another_kind_is_named_by_file_and_key(
    key: str, value: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{name} = {text}\n" for name, text in GOOD.items()))
    assert read_record(path).id == "mine"
    path.write_text("".join(f"{name} = {text}\n" for name, text in {**GOOD, key: value}.items()))
    with pytest.raises(DataError, match=rf"mine\.toml: {key} is") as raised:
        read_record(path)
    assert "must be" in (raised.value.remedy or "")


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


class Raising(Long):
    def encode_images(self, images: list) -> list:
        raise RuntimeError("no device")


class Mute(Long):
    def encode_texts(self, texts: list) -> list:
        raise RuntimeError("no tokenizer")


class Picky(Long):
    """Knows the texts of its task only."""

    def encode_texts(self, texts: list) -> list:
        return [{"dunes": [1.0, 2.0, 3.0]}[text] for text in texts]


class Narrow(Long):
    def encode_texts(self, texts: list) -> list:
        return [[1.0, 2.0] for _ in texts]


class Ragged:
    def encode_images(self, images: list) -> list:
        return [["a"]]


class Boasting(Long):
    dimension = 4


class Secretive(Long):
    fingerprint = {"weights": object()}  # noqa: RUF012


class Helped(Long):
    """`preprocess` for its own use, as a wrapped CLIP has it."""

    def preprocess(self, image: Image.Image) -> float:
        return image.width / 2


class Apart(Long):
    """Preprocessing that workers can do."""

    def preprocess(self, image: Image.Image) -> float:
        return image.width / 2

    def encode_preprocessed(self, features: list) -> list:
        return [[3.0, 4.0, each] for each in features]


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


def test_an_option_that_it_does_not_take_is_not_dropped_in_silence(tmp_path: Path) -> None:
    for options in (
        LoadOptions(checkpoint=tmp_path),
        LoadOptions(dtype="float16"),
        LoadOptions(prompts="official"),
    ):
        with pytest.raises(UsageError, match="does not take --"):
            load(here("Long"), options)
    assert load(here("Long"), LoadOptions(device="cpu", offline=True)).dimension == 3


@pytest.mark.parametrize("name", ["make", "made", "Tensors"])
def test_a_function_an_object_and_tensors_will_do(name: str) -> None:
    assert find(here(name)).modalities == {"image", "text"}
    encoder = load(here(name))
    vectors = encoder.encode_images([Image.new("RGB", (7, 7))])
    assert vectors.dtype == np.float32 and vectors.shape == (1, 3)


def test_a_class_may_know_the_texts_of_its_task_only() -> None:
    assert load(here("Picky")).encode_texts(["dunes"]).shape == (1, 3)


def test_nothing_gives_no_vectors() -> None:
    encoder = load(here("Long"))
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 3)


def test_a_class_with_both_halves_of_preprocessing_keeps_them() -> None:
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


def test_two_versions_of_a_class_have_two_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    prints = []
    for name, extra in (("first", ""), ("second", "# changed\n")):
        (tmp_path / f"{name}_version.py").write_text(PACKAGE + extra)
        prints.append(load(f"{name}_version:Grey").fingerprint["source_sha256"])
    assert prints[0] != prints[1]
    (tmp_path / "weights.bin").write_bytes(b"1")
    options = LoadOptions(checkpoint=tmp_path / "weights.bin")
    before = load(here("Choosy"), options).fingerprint
    (tmp_path / "weights.bin").write_bytes(b"2")
    assert load(here("Choosy"), options).fingerprint != before


def test_a_class_without_a_text_side_says_so() -> None:
    record = find(here("Blind"))
    assert record.modalities == {"image"}
    with pytest.raises(ModalityError):
        load(record).encode_texts(["dunes"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Wrong", "shape"),
        ("Nan", "not finite"),
        ("Failing", r"no weights, at test_registry\.py"),
        ("Raising", r"encode_images failed .*no device, at test_registry\.py"),
        ("Mute", r"encode_texts failed .*no tokenizer"),
        ("Narrow", r"encode_texts gave an array of shape \(1, 2\)"),
        ("Ragged", "no array"),
        ("Boasting", "says dimension 4, and gives 3"),
        ("Secretive", "fingerprint cannot be written as JSON"),
        ("make_nothing", "made a str, which has no encode_images"),
    ],
)
def test_what_is_wrong_with_a_class_is_said(name: str, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words):
        load(here(name))


def test_a_module_that_fails_at_import_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "half_written.py").write_text("def (:\n")
    with pytest.raises(UsageError, match="SyntaxError"):
        find("half_written:Class")


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


class Vain:
    pass


def make():
    return Grey()


def make_on(device):
    raise RuntimeError("made before it was asked for")


def records():
    from dataclasses import replace
    from marsretrieval.encoders.catalogue import records
    return [replace(records()[0], id="listed-one")]


def strings():
    return ["grey"]
'''


def test_an_installed_package_adds_a_model_and_a_broken_one_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "grey_mars.py").write_text(PACKAGE)
    info = tmp_path / "grey_mars-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grey-mars\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[marsretrieval.encoders]\n"
        "grey = grey_mars:Grey\n"
        "made = grey_mars:make\n"
        "asked = grey_mars:make_on\n"
        "listed = grey_mars:records\n"
        "broken = no_such_module:Thing\n"
        "strange = grey_mars:strings\n"
        "vain = grey_mars:Vain\n"
        "marscope = grey_mars:Grey\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from PIL import Image\n"
        "from marsretrieval.encoders import find, load\n"
        "assert find('mars-nano') and find('listed-one') and find('asked')\n"
        "assert find('marscope').family == 'open_clip'\n"
        "for name in ('grey', 'made'):\n"
        "    print(load(name).encode_images([Image.new('RGB', (8, 8))]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["(1, 2)", "(1, 2)"]
    warnings = done.stderr.splitlines()
    assert len(warnings) == 4
    for name, words in {
        "broken": "no_such_module",
        "marscope": "is there already",
        "strange": "gives a str where a ModelRecord is expected",
        "vain": "no encode_images",
    }.items():
        assert any(f"plugin '{name}'" in line and words in line for line in warnings), name


def test_a_missing_library_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from marsretrieval.encoders import load\n"
        "load('mars-nano')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "loading mars-nano needs torch" in done.stderr
    assert "marsretrieval[models]" in done.stderr


# What docs/MODELS.md shows.


def blocks(language: str) -> list[str]:
    page = Path(__file__).parents[2] / "docs" / "MODELS.md"
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_record_in_the_docs_is_one(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("toml") if "repository" in block]
    (tmp_path / "vit-b-16-siglip.toml").write_text(text)
    record = read_record(tmp_path / "vit-b-16-siglip.toml")
    assert record.id == record.name.lower()


def test_the_class_in_the_docs_is_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (text,) = [block for block in blocks("python") if "encode_images" in block]
    (tmp_path / "my_model.py").write_text(text)
    encoder = load("my_model:Brightness")
    assert encoder.modalities == {"image", "text"}
    light, dark = encoder.encode_images(
        [Image.new("RGB", (9, 9), each) for each in ("white", "black")]
    )
    bright = encoder.encode_texts(["bright ice"])[0]
    assert light @ bright > dark @ bright
