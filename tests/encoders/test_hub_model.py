"""Repositories of the hub by name: the class and the vector that a configuration implies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from marsretrieval.encoders import LoadOptions, check_encoder, find, find_load_error, load
from marsretrieval.errors import MissingDependencyError, ModelLoadError
from tests.encoders.tiny import save_folder
from tests.encoders.tiny_transformers import ADDED, BY_TYPE, TEXTS, pictures

Folder = Callable[[str], Path]
CLASS_TOKEN = {"dinov2", "dinov2_registers", "vit"}


def unit(rows: list[torch.Tensor]) -> np.ndarray:
    return np.stack([(row / row.norm()).numpy() for row in rows])


@pytest.mark.parametrize("name", [*BY_TYPE, "siglip", "tipsv2"])
@torch.inference_mode()
def test_every_type_gives_the_vectors_of_the_library(name: str, tiny_folder: Folder) -> None:
    folder = tiny_folder(name)
    spec = find(f"hf:{folder}")
    encoder = load(spec, LoadOptions(device="cpu"))
    assert encoder.modalities == spec.modalities
    model: Any = hf.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    images = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = [images(picture.convert("RGB"), return_tensors="pt") for picture in pictures()]
    if "text" in spec.modalities:
        rows = [model.get_image_features(**item).pooler_output[0] for item in inputs]
    elif name in CLASS_TOKEN:
        rows = [model(**item).last_hidden_state[0, 0] for item in inputs]
    else:
        rows = [model(**item).pooler_output[0].flatten() for item in inputs]
    assert np.abs(encoder.encode_images(pictures()) - unit(rows)).max() < 1e-5
    assert check_encoder(encoder)["problems"] == []
    assert json.loads(json.dumps(encoder.fingerprint)) == encoder.fingerprint


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
@torch.inference_mode()
def test_siglip_texts_fill_the_context_in_lower_case(name: str, tiny_folder: Folder) -> None:
    """As in its training: the vector is that of the last position, whatever is padded."""
    folder = tiny_folder(name)
    encoder = load(f"hf:{folder}", LoadOptions(device="cpu"))
    model: Any = hf.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    rows = []
    for text in TEXTS:
        ids = [*hf.AutoTokenizer.from_pretrained(folder)(text.lower())["input_ids"]][:64]
        filled = torch.tensor([ids + [1] * (64 - len(ids))])
        rows.append(model.get_text_features(filled).pooler_output[0])
    assert np.abs(encoder.encode_texts(TEXTS) - unit(rows)).max() < 1e-5
    assert encoder.fingerprint["prompts"]["tokens"]["padded_to_context"] is True
    assert encoder.count_truncated([*TEXTS, "x" * 100]) == 1


@torch.inference_mode()
def test_tipsv2_texts_are_the_mean_of_their_tokens(tiny_folder: Folder) -> None:
    folder = tiny_folder("tipsv2")
    encoder = load("tipsv2-so400m14", LoadOptions(device="cpu", checkpoint=folder))
    model: Any = hf.Tipsv2Model.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    states = [
        model.text_model(torch.tensor([tokenizer(text.lower())["input_ids"]])).last_hidden_state[0]
        for text in TEXTS
    ]
    expected = unit([state.mean(0) for state in states])
    assert np.abs(encoder.encode_texts(TEXTS) - expected).max() < 1e-5
    white = encoder.preprocess(pictures()[0])["pixel_values"]
    assert white.min() >= 0 and white.max() <= 1  # no mean is taken away
    assert white.shape[-2:] == (42, 42)


@pytest.mark.parametrize("model", ADDED)
def test_models_of_the_registry(model: str, tiny_folder: Folder) -> None:
    options = LoadOptions(device="cpu", checkpoint=tiny_folder(ADDED[model]))
    encoder = load(model, options)
    assert encoder.modalities == find(model).modalities
    assert check_encoder(encoder)["problems"] == []
    same = load(f"hf:{options.checkpoint}", LoadOptions(device="cpu"))
    assert np.array_equal(encoder.encode_images(pictures()), same.encode_images(pictures()))


def test_a_classifier_is_left_out(tiny_folder: Folder, tmp_path: Path) -> None:
    config = hf.ViTConfig.from_pretrained(tiny_folder("vit"))
    classifier = hf.ViTForImageClassification(config)
    classifier.save_pretrained(tmp_path)
    shutil.copy(tiny_folder("vit") / "preprocessor_config.json", tmp_path)
    encoder = load(f"hf:{tmp_path}", LoadOptions(device="cpu"))
    pixels = encoder.preprocess(pictures()[0])["pixel_values"]
    with torch.inference_mode():
        state = classifier.eval().vit(pixels).last_hidden_state[0, 0]
    assert np.abs(encoder.encode_images(pictures()[:1]) - unit([state])).max() < 1e-5


def test_missing_weights_are_an_error(tiny_folder: Folder, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_folder("siglip"), tmp_path / "cut"))
    state = load_file(folder / "model.safetensors")
    del state["text_model.head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1 missing \(such as text_model\.head\.weight"):
        load(f"hf:{folder}", LoadOptions(device="cpu"))


def test_a_type_without_a_defined_vector_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(ModelLoadError, match="type qwen3_vl") as raised:
        load(f"hf:{tmp_path}", LoadOptions(device="cpu"))
    assert "st:NAME" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "has no config.json"), ("[]", "not a JSON object"), ("{", "not valid JSON|JSON")],
)
def test_a_folder_of_another_kind_is_refused(
    content: str | None, words: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    spec, options = find(f"hf:{tmp_path}"), LoadOptions(device="cpu")
    assert str(tmp_path) in str(find_load_error(spec, options))
    with pytest.raises(ModelLoadError, match=words) as raised:
        load(spec, options)
    assert str(tmp_path) in str(raised.value)


def test_open_clip_layout(tmp_path: Path) -> None:
    folder = save_folder("clip", tmp_path / "clip")
    encoder = load(f"hf:{folder}", LoadOptions(device="cpu"))
    same = load("dfn2b-clip-vit-l-14", LoadOptions(device="cpu", checkpoint=folder))
    assert np.array_equal(encoder.encode_images(pictures()), same.encode_images(pictures()))


def test_the_hub_is_asked_for_the_revision_of_the_name(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_folder("dinov2"), tmp_path / ("d" * 40))
    requests: list[tuple[str, str, bool]] = []

    def download(repository: str, **options: Any) -> str:
        requests.append((repository, options["revision"], options["local_files_only"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    encoder = load("hf:facebook/dinov2-base@v2", LoadOptions(device="cpu", offline=True))
    assert set(requests) == {("facebook/dinov2-base", "v2", True)}
    assert encoder.modalities == {"image"}
    fingerprint = encoder.fingerprint
    assert (fingerprint["id"], fingerprint["revision"]) == ("hf:facebook/dinov2-base@v2", "d" * 40)
    assert fingerprint["repository"] == "facebook/dinov2-base"
    with pytest.raises(ModelLoadError, match="is not a folder"):
        load("hf:a/b", LoadOptions(device="cpu", checkpoint=folder / "config.json"))


@pytest.mark.parametrize("layout", ["transformers", "open_clip"])
def test_tokenizer_of_sentencepiece_names_the_missing_package(
    layout: str, tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SigLIP repositories without a tokenizer.json need it."""
    folder = tmp_path / "siglip"
    if layout == "open_clip":
        save_folder("siglip", folder)
    else:
        shutil.copytree(tiny_folder("siglip"), folder)

    def refuse(*_: object, **__: object) -> None:
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library but ...")

    monkeypatch.setattr(hf.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(MissingDependencyError, match="needs sentencepiece") as raised:
        load(f"hf:{folder}", LoadOptions(device="cpu"))
    assert "marsretrieval[models]" in str(raised.value)
