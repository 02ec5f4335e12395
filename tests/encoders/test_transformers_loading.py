"""Checkpoints fit completely or are refused with the reason and the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from marsretrieval.encoders import LoadOptions, find, load
from marsretrieval.encoders.two_tower import TwoTowerEncoder
from marsretrieval.errors import ModelLoadError
from tests.encoders.tiny_transformers import MODELS, TEXTS, pictures, tiny_record

Folder = Callable[[str], Path]
ONE_OF_EACH = ["bge-vl-large", "aimv2-large-patch14-224", "dinov3-vitl16", "e5-v", "gme"]


def copy(folder: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def open_folder(model: str, folder: Path) -> Any:
    return load(tiny_record(model), LoadOptions(device="cpu", checkpoint=folder))


class TestWeights:
    @pytest.mark.parametrize("model", ONE_OF_EACH)
    def test_missing(self, model: str, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder(MODELS[model]), tmp_path)
        lost = next(
            key for key in load_file(folder / "model.safetensors") if "layer" in key and "1" in key
        )
        change(folder, lambda tensors: tensors.pop(lost))
        with pytest.raises(ModelLoadError, match=r"1 missing \(such as .*layer") as error:
            open_folder(model, folder)
        assert str(folder) in str(error.value)

    @pytest.mark.parametrize("model", ONE_OF_EACH)
    def test_unused_weights(self, model: str, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder(MODELS[model]), tmp_path)
        change(folder, lambda tensors: tensors.update({"adapter.down.weight": torch.ones(2)}))
        with pytest.raises(ModelLoadError, match=r"1 unexpected \(such as .*adapter\.down"):
            open_folder(model, folder)

    def test_of_another_size(self, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder("clip"), tmp_path)
        change(
            folder, lambda weights: weights.update({"visual_projection.weight": torch.ones(7, 32)})
        )
        with pytest.raises(ModelLoadError, match=r"cannot be loaded|misshapen"):
            open_folder("bge-vl-large", folder)

    def test_embeddings_missing_on_both_ends_of_a_tie(
        self, tiny_folder: Folder, tmp_path: Path
    ) -> None:
        folder = copy(tiny_folder("qwen2_vl"), tmp_path)
        change(folder, lambda tensors: tensors.pop("model.embed_tokens.weight"))
        with pytest.raises(ModelLoadError, match=r"missing .*embed_tokens"):
            open_folder("gme", folder)

    def test_a_head_that_is_not_run_may_be_missing(
        self, tiny_folder: Folder, tmp_path: Path
    ) -> None:
        """Qwen3-VL-Embedding-8B is published without one, and does not tie it."""
        folder = copy(tiny_folder("qwen3_vl"), tmp_path)
        config = json.loads((folder / "config.json").read_text())
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
        (folder / "config.json").write_text(json.dumps(config))
        _, info = hf.AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
        assert info["missing_keys"] == {"lm_head.weight"}
        ours = open_folder("qwen3-vl-embedding-8b", folder).encode_texts(TEXTS)
        tied = open_folder("qwen3-vl-embedding-8b", tiny_folder("qwen3_vl")).encode_texts(TEXTS)
        assert np.array_equal(ours, tied)

    def test_unused_weights_are_accepted(self, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder("qwen2_5_vl"), tmp_path)
        late = {"multi_vector_projector.weight": torch.ones(8, 64)}
        change(folder, lambda tensors: tensors.update(late))
        open_folder("jina-embeddings-v4", folder)
        record = tiny_record("jina-embeddings-v4")
        strict = {key: value for key, value in record.settings.items() if key != "unused"}
        with pytest.raises(ModelLoadError, match="multi_vector_projector"):
            load(replace(record, settings=strict), LoadOptions(device="cpu", checkpoint=folder))

    def test_buffers_of_old_files_are_accepted(self, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder("clip"), tmp_path)
        name = "text_model.embeddings.position_ids"
        change(folder, lambda tensors: tensors.update({name: torch.arange(77)[None]}))
        ours = open_folder("bge-vl-large", folder).encode_texts(TEXTS)
        same = open_folder("bge-vl-large", tiny_folder("clip")).encode_texts(TEXTS)
        assert np.array_equal(ours, same)

    def test_a_mixed_revision_of_aimv2(self, tiny_folder: Folder, tmp_path: Path) -> None:
        """Write a config of the library's layout with weights of the older layout."""
        folder = copy(tiny_folder("aimv2"), tmp_path)

        def rename(tensors: dict[str, torch.Tensor]) -> None:
            for key in list(tensors):
                older = key.replace("vision_model.", "image_encoder.trunk.")
                tensors[older] = tensors.pop(key)

        change(folder, rename)
        with pytest.raises(ModelLoadError, match=r"missing .*unexpected .*image_encoder"):
            open_folder("aimv2-large-patch14-224", folder)


class TestFolders:
    @pytest.mark.parametrize("model", ONE_OF_EACH)
    def test_not_a_checkpoint(self, model: str, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="is not a folder"):
            open_folder(model, tmp_path / "nowhere")
        with pytest.raises(ModelLoadError, match="cannot be loaded"):
            open_folder(model, tmp_path)

    @pytest.mark.parametrize("model", ONE_OF_EACH)
    def test_damaged(self, model: str, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder(MODELS[model]), tmp_path)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(ModelLoadError, match="cannot be loaded"):
            open_folder(model, folder)

    @pytest.mark.parametrize("model", ["bge-vl-large", "dinov3-vitl16", "e5-v"])
    def test_no_preprocessing(self, model: str, tiny_folder: Folder, tmp_path: Path) -> None:
        folder = copy(tiny_folder(MODELS[model]), tmp_path)
        for name in ("preprocessor_config.json", "processor_config.json"):
            (folder / name).unlink(missing_ok=True)
        with pytest.raises(ModelLoadError, match="cannot be loaded"):
            open_folder(model, folder)

    def test_of_another_architecture(self, tiny_folder: Folder) -> None:
        for model, other in (
            ("gme", "clip"),
            ("e5-v", "dinov3"),
            ("bge-vl-large", "aimv2"),
            ("dinov3-vitl16", "aimv2_vision"),
        ):
            with pytest.raises(ModelLoadError):
                open_folder(model, tiny_folder(other))

    def test_incompatible_settings(self, tiny_folder: Folder) -> None:
        for model, name, settings in (
            ("bge-vl-large", "clip", {"architecture": "GPT2Model"}),
            ("dinov3-vitl16", "dinov3", {"architecture": None}),
            ("dinov3-vitl16", "dinov3", {"pooling": "max"}),
            ("aimv2-large-patch14-448", "aimv2_vision", {"pooling": "cls"}),
        ):
            record = tiny_record(model)
            faulty = replace(record, settings={**record.settings, **settings})
            with pytest.raises(ModelLoadError, match=model):
                load(faulty, LoadOptions(device="cpu", checkpoint=tiny_folder(name)))


class TestHub:
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def hub_requests(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """Answer requests to the hub with a folder or an exception."""
        requests: list[dict[str, Any]] = []

        def download(repository: str, **arguments: Any) -> str:
            requests.append({"repository": repository, **arguments})
            if isinstance(self.answer, Exception):
                raise self.answer
            return str(self.answer)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return requests

    answer: Any = None

    def test_the_revision_is_pinned_and_recorded(
        self, hub_requests: list[dict[str, Any]], tiny_folder: Folder, tmp_path: Path
    ) -> None:
        self.answer = copy(tiny_folder("clip"), tmp_path / self.COMMIT)
        encoder = load("bge-vl-large", LoadOptions(device="cpu", offline=True))
        assert encoder.fingerprint["revision"] == self.COMMIT
        (request,) = hub_requests
        assert request["repository"] == "BAAI/BGE-VL-large"
        assert request["revision"] == find("bge-vl-large").revision
        assert request["local_files_only"] is True
        assert "*.bin" not in request["allow_patterns"]

    def test_pickled_weights_are_requested_only_without_alternatives(
        self, hub_requests: list[dict[str, Any]], tiny_folder: Folder, tmp_path: Path
    ) -> None:
        folder = copy(tiny_folder("clip"), tmp_path / self.COMMIT)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
        self.answer = folder
        encoder = load("bge-vl-large", LoadOptions(device="cpu"))
        assert isinstance(encoder, TwoTowerEncoder)
        assert ["*.bin" in item["allow_patterns"] for item in hub_requests] == [False, True]
        same = open_folder("bge-vl-large", tiny_folder("clip"))
        assert np.array_equal(encoder.encode_images(pictures()), same.encode_images(pictures()))

    def test_gated(self, hub_requests: list[dict[str, Any]]) -> None:
        from huggingface_hub.errors import GatedRepoError
        from huggingface_hub.utils import httpx

        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        self.answer = GatedRepoError("no access", response=response)
        with pytest.raises(ModelLoadError, match="is gated") as error:
            load("dinov3-vitl16", LoadOptions(device="cpu"))
        assert "https://huggingface.co/facebook/dinov3-vitl16-pretrain-lvd1689m" in str(error.value)
        assert "HF_TOKEN" in str(error.value)

    def test_offline(self, hub_requests: list[dict[str, Any]]) -> None:
        from huggingface_hub.errors import LocalEntryNotFoundError

        self.answer = LocalEntryNotFoundError("not cached")
        with pytest.raises(ModelLoadError, match="local cache") as error:
            load("gme", LoadOptions(device="cpu", offline=True))
        assert "--checkpoint" in str(error.value)


def test_loading_restores_library_settings(tiny_folder: Folder) -> None:
    from transformers.utils import logging

    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    open_folder("gme", tiny_folder("qwen2_vl"))
    with pytest.raises(ModelLoadError):
        open_folder("gme", tiny_folder("clip"))
    assert logging.get_verbosity() == logging.WARNING
    assert logging.is_progress_bar_enabled()


def test_loading_is_silent(tiny_folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_folder("qwen3_vl")
    capfd.readouterr()
    open_folder("qwen3-vl-embedding", folder).encode_texts(["x" * 40_000])
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
