"""Models of timm by name, on timm's own tiny architectures with random weights."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marsretrieval.encoders import LoadOptions, find, find_load_error, load
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import ModalityError, ModelLoadError
from tests.encoders.tiny_transformers import pictures

ensure_torchvision()
import timm  # noqa: E402

NAMES = ("test_vit.r160_in1k", "test_convnext.r160_in1k", "test_resnet.r160_in1k")


def random_model(name: str, **arguments: Any) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(name, pretrained=False, **arguments).eval()


def reference(name: str, model: torch.nn.Module) -> np.ndarray:
    """What timm's own documentation does: features without a classifier."""
    model.reset_classifier(0)
    config = timm.data.resolve_model_data_config(timm.create_model(name))
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        rows = [model(transform(picture.convert("RGB"))[None])[0] for picture in pictures()]
    return np.stack([(row / row.norm()).numpy() for row in rows])


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_timm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    model = random_model(name)
    (folder := tmp_path / ("c" * 40)).mkdir()
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    requests: list[str] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, **_: requests.append(repository) or str(folder),
    )
    encoder = load(f"timm:{name}", LoadOptions(device="cpu", offline=True))
    assert set(requests) == {f"timm/{name}"}
    expected = reference(name, model)
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-5
    assert encoder.dimension == expected.shape[1]
    fingerprint = encoder.fingerprint
    assert (fingerprint["id"], fingerprint["revision"]) == (f"timm:{name}", "c" * 40)
    assert (
        json.loads(json.dumps(fingerprint)) == fingerprint and fingerprint["preprocessing"]["mean"]
    )
    copy = pickle.loads(pickle.dumps(encoder.preprocess))
    assert torch.equal(copy(pictures()[2]), encoder.preprocess(pictures()[2]))
    with pytest.raises(ModalityError):
        encoder.encode_texts(["dunes"])


def test_checkpoint_of_other_classes_or_without_a_classifier(tmp_path: Path) -> None:
    name = NAMES[0]
    vectors = []
    for classes in (1000, 7, 0):
        model = random_model(name, num_classes=classes)
        state = dict(model.state_dict())
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / f"{classes}.pt")
        options = LoadOptions(device="cpu", checkpoint=tmp_path / f"{classes}.pt")
        vectors.append(load(f"timm:{name}", options).encode_images(pictures()))
        assert np.abs(vectors[-1] - reference(name, model)).max() < 1e-5


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    state = random_model(NAMES[0]).state_dict()
    del state["blocks.0.attn.qkv.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(ModelLoadError, match=r"cut\.pt.*blocks\.0\.attn\.qkv\.weight"):
        load(f"timm:{NAMES[0]}", LoadOptions(device="cpu", checkpoint=tmp_path / "cut.pt"))


def test_architecture_without_published_weights_needs_a_checkpoint() -> None:
    (name, *_) = (model for model in timm.list_models() if not timm.get_pretrained_cfg(model))
    error = find_load_error(find(f"timm:{name}"), LoadOptions(device="cpu"))
    assert "names no repository" in str(error) and "--checkpoint" in str(error)


def test_a_folder_in_timms_layout_goes_by_hf(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = random_model(NAMES[0], num_classes=5)
    config = {
        "architecture": "test_vit", "num_classes": 5,
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "input_size": [3, 160, 160],
                           "interpolation": "bilinear", "crop_pct": 1.0, "classifier": "head",
                           "first_conv": "patch_embed.proj"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    spec = find(f"hf:{tmp_path}")
    assert spec.modalities == {"image"}
    encoder = load(spec, LoadOptions(device="cpu"))
    assert encoder.fingerprint["preprocessing"]["mean"] == [0.1, 0.2, 0.3]
    assert encoder.dimension == model.num_features
