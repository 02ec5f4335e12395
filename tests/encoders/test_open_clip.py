from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marsretrieval.encoders import LoadOptions, ModelSpec, find, load
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

    grey = Image.fromarray(rng.integers(0, 256, (33, 47), dtype=np.uint8))
    return [noise(40, 40), noise(30, 90), noise(200, 20, 3), noise(1500, 1100), grey]


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


def test_preprocessing_is_picklable_and_recorded(encoder: OpenClipEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder.preprocess))
    picture = pictures()[1]
    assert torch.equal(again(picture), encoder.preprocess(picture))
    joined = encoder.collate([again(item) for item in pictures()])
    assert np.array_equal(encoder.encode_preprocessed(joined), encoder.encode_images(pictures()))
    fingerprint = encoder.fingerprint
    assert fingerprint["preprocessing"]["size"] in (32, [32, 32])
    assert len(fingerprint["weights_sha256"]) == 64
    assert fingerprint["dtype"] == "float32"


def test_cut_texts_are_counted(encoder: OpenClipEncoder) -> None:
    assert encoder.count_truncated(TEXTS) == 1
    assert encoder.count_truncated(TEXTS[:1]) == 0


def test_fingerprint_does_not_change_with_use(encoder: OpenClipEncoder) -> None:
    before = encoder.fingerprint
    encoder.encode_texts(TEXTS)
    encoder.count_truncated(TEXTS)
    assert encoder.fingerprint == before
    assert ("sha256" in before["prompts"]["tokenizer"]) == encoder.id.startswith("vit-l-16-sig")


def test_half_precision_stays_close(encoder: OpenClipEncoder) -> None:
    half = load(encoder.spec, replace(encoder.options, dtype="bfloat16"))
    cosines = [
        np.sum(encoder.encode_images(pictures()) * half.encode_images(pictures()), axis=1),
        np.sum(encoder.encode_texts(TEXTS) * half.encode_texts(TEXTS), axis=1),
    ]
    assert np.concatenate(cosines).min() > 0.99
    assert half.fingerprint["dtype"] == "bfloat16"


# Checkpoint files: of the architecture in the catalogue, narrowed under its real name.


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip.factory

    for kind, model in {**IDS, "marscope": "marscope"}.items():
        architecture = find(model).settings["architecture"]
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, tiny_config(kind))


@pytest.fixture
def marscope(narrowed: None) -> ModelSpec:
    return find("marscope")


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_training_checkpoint_of_224_px_runs_at_512(
    marscope: ModelSpec, tmp_path: Path, prefix: str
) -> None:
    import open_clip

    path = save_checkpoint("marscope", tmp_path / "ckpt.pt", prefix=prefix)
    encoder = load(marscope, LoadOptions(device="cpu", checkpoint=path))
    assert encoder.fingerprint["preprocessing"]["size"] in (512, [512, 512])
    grid = encoder.model.visual.positional_embedding  # type: ignore[attr-defined]
    assert grid.shape[0] == 1 + 16 * 16

    architecture = "ViT-L-14-quickgelu"
    model, _, preprocess = open_clip.create_model_and_transforms(
        architecture, pretrained=str(path), force_image_size=512
    )
    with torch.no_grad():
        batch = torch.stack([preprocess(picture) for picture in pictures()])
        expected = model.eval().encode_image(batch, normalize=True).numpy()
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-6


def test_a_safetensors_checkpoint_gives_the_same_vectors(
    marscope: ModelSpec, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    path = save_checkpoint("marscope", tmp_path / "ckpt.pt", prefix="")
    save_file(torch.load(path, weights_only=True)["state_dict"], tmp_path / "ckpt.safetensors")
    vectors = [
        load(marscope, LoadOptions(device="cpu", checkpoint=item)).encode_images(pictures())
        for item in (path, tmp_path / "ckpt.safetensors")
    ]
    assert np.array_equal(*vectors)


@pytest.mark.parametrize(("model", "kind"), [("clip", "marscope"), ("pe", "pe")])
def test_a_checkpoint_file_gets_the_preprocessing_of_its_model(
    narrowed: None, model: str, kind: str, tmp_path: Path
) -> None:
    """open_clip itself, given a file, takes OpenAI's for every architecture: wrong for PE-Core."""
    record = find(IDS[model])
    path = save_checkpoint(kind, tmp_path / "ckpt.pt")
    encoder = load(record, LoadOptions(device="cpu", checkpoint=path))
    fingerprint = encoder.fingerprint["preprocessing"]
    assert {key: fingerprint[key] for key in record.settings["preprocess"]} == record.settings[
        "preprocess"
    ]


def test_checkpoint_file_uses_the_tokenizer_of_its_model(
    narrowed: None, cache: Path, tmp_path: Path
) -> None:
    path = save_checkpoint("siglip", tmp_path / "ckpt.pt")
    options = LoadOptions(device="cpu", checkpoint=path, offline=True)
    with pytest.raises(ModelLoadError, match="tiny/tokenizer is not in the local cache"):
        load(IDS["siglip"], options)
    save_folder("siglip", tmp_path / "other", tokenizer=in_cache(cache, "tiny/tokenizer"))
    encoder = load(IDS["siglip"], options)
    assert encoder.fingerprint["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert encoder.encode_texts(TEXTS).shape == (3, 32)


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
        return (os.mkdir, ("owned",))


def test_pickled_objects_are_refused_and_never_run(
    marscope: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint("clip", tmp_path / "ckpt.pt", surprise=Surprise())
    with pytest.raises(ModelLoadError, match="pickled") as raised:
        load(marscope, LoadOptions(device="cpu", checkpoint=path))
    assert os.name in str(raised.value)  # what it holds
    assert "safetensors" in (raised.value.remedy or "")
    assert not (tmp_path / "owned").exists()


def test_damaged_checkpoints_are_named(marscope: ModelSpec, tmp_path: Path) -> None:
    content = save_checkpoint("clip", tmp_path / "whole.pt").read_bytes()
    damaged = {"empty.pt": b"", "cut.pt": content[: len(content) // 2], "text.pt": b"hello",
               "cut.safetensors": b"\x10\x00\x00", "weights.npz": content}  # fmt: skip
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelLoadError, match=name):
            load(marscope, LoadOptions(device="cpu", checkpoint=tmp_path / name))
    torch.save({"state_dict": {}}, tmp_path / "hollow.pt")
    with pytest.raises(ModelLoadError, match=r"hollow\.pt"):
        load(marscope, LoadOptions(device="cpu", checkpoint=tmp_path / "hollow.pt"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelLoadError, match="open_clip_config"):
        load(marscope, LoadOptions(device="cpu", checkpoint=tmp_path / "folder"))


def test_a_folder_without_weights_is_never_a_random_model(tmp_path: Path) -> None:
    folder = save_folder("clip", tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    for name in ("epoch_1.safetensors", "epoch_2.safetensors"):
        (folder / name).write_bytes(weights.read_bytes())
    weights.unlink()
    with pytest.raises(ModelLoadError, match="ambiguous"):
        load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder))
    (folder / "epoch_1.safetensors").unlink()
    assert load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder)).dimension == 24
    (folder / "epoch_2.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="no weights"):
        load(IDS["clip"], LoadOptions(device="cpu", checkpoint=folder))


# The hub, as a cache that a test fills: no network.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def in_cache(cache: Path, repository: str, commit: str = "a" * 40) -> Path:
    """Return the folder of the newest snapshot of a repository in the hub's cache."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


def fill(cache: Path, record: ModelSpec, kind: str, **changes: str) -> str:
    commit = record.revision or "a" * 40
    folder = save_folder(kind, in_cache(cache, record.repository, commit))
    config = folder / "open_clip_config.json"
    for old, new in changes.items():
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))
    return commit


def described(model: str, kind: str) -> ModelSpec:
    """Return the spec of a model with the sizes of the tiny one."""
    record = find(model)
    settings = {key: value for key, value in record.settings.items() if key != "image_size"}
    return replace(record, image_size=32, dimension=24 if kind == "clip" else 32, settings=settings)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_cached_repository_loads_offline_and_its_commit_is_recorded(
    cache: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = described(IDS[kind], kind)
    commit = fill(cache, record, kind)
    encoder = load(record, LoadOptions(device="cpu", offline=True))
    assert encoder.fingerprint["revision"] == commit
    assert encoder.encode_images(pictures()).shape[0] == len(pictures())
    assert "as in the registry" not in caplog.text


def test_the_tokenizer_may_be_in_another_repository(cache: Path) -> None:
    record = described(IDS["siglip"], "siglip")
    commit = record.revision or "a" * 40
    save_folder(
        "siglip",
        in_cache(cache, record.repository, commit),
        tokenizer=in_cache(cache, "tiny/tokenizer"),
    )
    encoder = load(record, LoadOptions(device="cpu", offline=True))
    assert encoder.encode_texts(TEXTS).shape == (3, 32)


def test_preprocessing_equals_the_published_evaluation_and_differences_are_reported(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = described(IDS["pe"], "pe")
    fill(cache, record, "pe", bilinear="bicubic")
    encoder = load(record, LoadOptions(device="cpu", offline=True))
    assert encoder.fingerprint["preprocessing"]["interpolation"] == "bilinear"
    assert "interpolation bicubic; bilinear is used" in caplog.text


def test_quickgelu_is_that_of_the_published_evaluation(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A configuration without the flag would silently give other vectors."""
    record = described("marscope", "clip")
    fill(cache, record, "clip", **{'"quick_gelu": true': '"quick_gelu": false'})
    encoder = load(record, LoadOptions(device="cpu", offline=True))
    assert any(type(module).__name__ == "QuickGELU" for module in encoder.model.modules())
    assert "quick_gelu False; True is used" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dimension": 99}, "dimension 24, not 99"),
        ({"context_length": 64}, "context_length 77, not 64"),
        ({"image_size": 336}, "image_size 32, not 336"),
    ],
)
def test_model_that_differs_from_the_registry_is_refused(
    cache: Path, change: dict[str, int], words: str
) -> None:
    record = replace(described(IDS["clip"], "clip"), **change)
    fill(cache, record, "clip")
    with pytest.raises(ModelLoadError, match=words):
        load(record, LoadOptions(device="cpu", offline=True))


def test_missing_model_error_has_a_remedy(cache: Path) -> None:
    with pytest.raises(ModelLoadError, match="not in the local cache") as raised:
        load("marscope", LoadOptions(device="cpu", offline=True))
    assert "--checkpoint" in (raised.value.remedy or "")


def test_cached_repository_without_weights_is_reported(cache: Path) -> None:
    record = described("marscope", "clip")
    commit = fill(cache, record, "clip")
    (in_place,) = cache.glob(f"*/snapshots/{commit}")
    (in_place / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="holds none of open_clip_model"):
        load(record, LoadOptions(device="cpu", offline=True))


@pytest.mark.parametrize(
    ("kind", "words", "remedy"),
    [
        ("GatedRepoError", "is gated", "hf auth login"),
        ("RepositoryNotFoundError", "not on the hub", "HF_TOKEN"),
        ("RevisionNotFoundError", "no revision c50bc0f", "--checkpoint"),
        ("HfHubHTTPError", "cannot be fetched", "Run it again"),
    ],
)
def test_hub_refusals_are_reported_with_the_remedy(
    kind: str, words: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> None:
        raise getattr(errors, kind).__new__(getattr(errors, kind), "refused")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelLoadError, match=words) as raised:
        load(IDS["clip"], LoadOptions(device="cpu"))
    assert remedy in (raised.value.remedy or "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_batch_normalization_works_in_half_precision(dtype: str) -> None:
    complete, half = (
        load("mars-nano", LoadOptions(device="cpu", dtype=name)) for name in ("float32", dtype)
    )
    assert half.fingerprint["dtype"] == dtype
    for method, items in (("encode_images", pictures()), ("encode_texts", TEXTS)):
        cosines = (getattr(complete, method)(items) * getattr(half, method)(items)).sum(axis=1)
        assert cosines.min() > 0.99, method
