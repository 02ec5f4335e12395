from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marsretrieval.encoders import LoadOptions, ModelRecord, find, load
from marsretrieval.encoders.open_clip import OpenClipEncoder
from marsretrieval.errors import ModelLoadError
from tests.encoders.tiny import ARCHITECTURES, save_checkpoint, save_folder, tiny_config

IDS = {
    "clip": "dfn2b-clip-vit-l-14",
    "siglip": "vit-l-16-siglip-384",
    "siglip2": "vit-l-16-siglip2-512",
    "pe": "pe-core-l-14-336",
}
TEXTS = [
    "dunes",
    "a satellite photo of glacier-like forms.",
    "a long ridge of layered rock " * 20,
]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert("RGB")

    return [noise(40, 40), noise(30, 90), noise(200, 20, 3), noise(1500, 1100)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = save_folder(request.param, tmp_path_factory.mktemp("m") / request.param)
    return load(IDS[request.param], LoadOptions(device="cpu", checkpoint=folder))


def test_vectors_are_unit_float32_of_the_right_width(encoder: OpenClipEncoder) -> None:
    width = 24 if encoder.id.startswith("dfn") else 32
    for vectors in (encoder.encode_images(pictures()), encoder.encode_texts(TEXTS)):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == width == encoder.dimension
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, width)


def test_a_batch_equals_one_by_one(encoder: OpenClipEncoder) -> None:
    together = encoder.encode_images(pictures())
    alone = [encoder.encode_images([picture])[0] for picture in pictures()]
    assert np.abs(together - alone).max() < 1e-5
    words = [encoder.encode_texts([text])[0] for text in TEXTS]
    assert np.abs(encoder.encode_texts(TEXTS) - words).max() < 1e-5


def test_vectors_are_those_of_open_clip_itself(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    import open_clip

    name = f"local-dir:{encoder.options.checkpoint}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    with torch.no_grad():
        batch = torch.stack([preprocess(picture) for picture in pictures()])
        images = model.eval().encode_image(batch, normalize=True).numpy()
        texts = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    assert np.abs(encoder.encode_images(pictures()) - images).max() < 1e-6
    assert np.abs(encoder.encode_texts(TEXTS) - texts).max() < 1e-6


def test_preprocessing_is_picklable_and_on_record(encoder: OpenClipEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder.preprocess))
    picture = pictures()[1]
    assert torch.equal(again(picture), encoder.preprocess(picture))
    told = encoder.fingerprint
    assert told["preprocessing"]["size"] in (32, [32, 32])
    assert len(told["weights_sha256"]) == 64
    assert told["dtype"] == "float32"


def test_cut_texts_are_counted(encoder: OpenClipEncoder) -> None:
    assert encoder.count_truncated(TEXTS) == 1
    assert encoder.count_truncated(TEXTS[:1]) == 0


def test_half_precision_stays_close(tmp_path: Path) -> None:
    folder = save_folder("clip", tmp_path / "clip")
    full = load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder))
    half = load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder, dtype="bfloat16"))
    cosines = np.sum(full.encode_images(pictures()) * half.encode_images(pictures()), axis=1)
    assert (cosines > 0.99).all()
    assert half.fingerprint["dtype"] == "bfloat16"


# MarScope: a training checkpoint of ViT-L-14-quickgelu, trained at 224 px, run at 512.


@pytest.fixture
def marscope(monkeypatch: pytest.MonkeyPatch) -> ModelRecord:
    """The record of marscope over a narrowed architecture under its real name."""
    import open_clip.factory

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-L-14-quickgelu", tiny_config("clip"))
    record = find("marscope")
    return replace(record, settings={**record.settings, "image_size": 64})


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_training_checkpoint_loads_and_its_positions_are_resized(
    marscope: ModelRecord, tmp_path: Path, prefix: str
) -> None:
    path = save_checkpoint("clip", tmp_path / "ckpt.pt", prefix=prefix)
    encoder = load(marscope, LoadOptions(device="cpu", checkpoint=path))
    assert encoder.fingerprint["preprocessing"]["size"] in (64, [64, 64])
    assert encoder.encode_images(pictures()).shape == (4, 24)
    grid = encoder.model.visual.positional_embedding  # type: ignore[attr-defined]
    assert grid.shape[0] == 1 + 8 * 8


def test_a_safetensors_checkpoint_gives_the_same_vectors(
    marscope: ModelRecord, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    path = save_checkpoint("clip", tmp_path / "ckpt.pt", prefix="")
    save_file(torch.load(path, weights_only=True)["state_dict"], tmp_path / "ckpt.safetensors")
    vectors = [
        load(marscope, LoadOptions(device="cpu", checkpoint=each)).encode_images(pictures())
        for each in (path, tmp_path / "ckpt.safetensors")
    ]
    assert np.array_equal(*vectors)


def _drop(state: dict) -> None:
    del state["visual.proj"]


def _add(state: dict) -> None:
    state["visual.extra"] = torch.zeros(3)


def _reshape(state: dict) -> None:
    state["visual.proj"] = torch.zeros(5, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [(_drop, "visual.proj"), (_add, "visual.extra"), (_reshape, "size mismatch")],
)
def test_weights_that_do_not_fit_are_an_error_that_names_them(change, words, tmp_path) -> None:
    folder = save_folder("clip", tmp_path / "clip", change=change)
    with pytest.raises(ModelLoadError, match=words) as raised:
        load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder))
    assert raised.value.remedy


class Surprise:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("owned"),))


def test_pickled_objects_are_refused_and_never_run(
    marscope: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint("clip", tmp_path / "ckpt.pt", surprise=Surprise())
    with pytest.raises(ModelLoadError, match="pickled") as raised:
        load(marscope, LoadOptions(device="cpu", checkpoint=path))
    assert "safetensors" in (raised.value.remedy or "")
    assert not (tmp_path / "owned").exists()


def test_damaged_checkpoints_are_named(marscope: ModelRecord, tmp_path: Path) -> None:
    whole = save_checkpoint("clip", tmp_path / "whole.pt").read_bytes()
    damaged = {"empty.pt": b"", "cut.pt": whole[: len(whole) // 2], "text.pt": b"hello",
               "cut.safetensors": b"\x10\x00\x00"}  # fmt: skip
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelLoadError, match=name):
            load(marscope, LoadOptions(device="cpu", checkpoint=tmp_path / name))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelLoadError, match="open_clip_config"):
        load(marscope, LoadOptions(device="cpu", checkpoint=tmp_path / "folder"))


def test_a_folder_without_weights_is_never_a_random_model(tmp_path: Path) -> None:
    folder = save_folder("clip", tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="clip"):
        load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder))


# The hub, as a cache that a test fills: no network.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill(cache: Path, record: ModelRecord, kind: str, **changes: object) -> str:
    commit = "a" * 40
    repository = cache / f"models--{record.repository.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    folder = save_folder(kind, repository / "snapshots" / commit)
    config = folder / "open_clip_config.json"
    for old, new in changes.items():
        config.write_text(config.read_text().replace(old, str(new)))
    return commit


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_cached_repository_loads_offline_and_its_commit_is_recorded(
    cache: Path, kind: str
) -> None:
    record = find(IDS[kind])
    commit = fill(cache, record, kind)
    encoder = load(record, LoadOptions(device="cpu", offline=True))
    assert encoder.fingerprint["revision"] == commit
    assert encoder.encode_images(pictures()).shape[0] == 4


def test_other_preprocessing_than_is_known_is_refused(cache: Path) -> None:
    record = find(IDS["pe"])
    fill(cache, record, "pe", bilinear="bicubic")
    with pytest.raises(ModelLoadError, match="interpolation bicubic where bilinear is known"):
        load(record, LoadOptions(device="cpu", offline=True))


def test_a_model_that_is_not_there_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ModelLoadError, match="not in the local cache") as raised:
        load("marscope", LoadOptions(device="cpu", offline=True))
    assert "--checkpoint" in (raised.value.remedy or "")
