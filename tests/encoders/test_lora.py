"""Trap C. Adapters of every layout are folded completely or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from marsretrieval.encoders import LoadOptions, load, lora, multimodal_lm
from marsretrieval.errors import ModelLoadError
from tests.encoders.tiny_transformers import TEXTS, pictures, tiny_record

Folder = Callable[[str], Path]
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv")
RANK, ALPHA = 4, 12
OLD = {"model.language_model.": "model.", "model.visual.": "visual."}


def whole_model(folder: Path) -> Any:
    return hf.AutoModelForImageTextToText.from_pretrained(folder)


def adapted_layers(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in TARGETS
    }


def write_adapter(
    base: Path, target: Path, *, old_layout: bool = True, suffix: str = ".weight", **config: Any
) -> dict[str, torch.Tensor]:
    """Write an adapter with random weights like the peft library; return the folded weights."""
    target.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "bias": "none",
        "target_modules": list(TARGETS),
        **config,
    }
    tensors, folded = {}, {}
    for name, layer in adapted_layers(whole_model(base)).items():
        key = name
        for new, old in OLD.items() if old_layout else ():
            if key.startswith(new):
                key = old + key.removeprefix(new)
                break
        first, second = torch.randn(RANK, layer.in_features), torch.randn(layer.out_features, RANK)
        tensors[f"base_model.model.{key}.lora_A{suffix}"] = 0.1 * first
        tensors[f"base_model.model.{key}.lora_B{suffix}"] = 0.1 * second
        alpha = 2 if "alpha_pattern" in config and name.endswith("q_proj") else ALPHA
        scale = alpha / (math.sqrt(RANK) if config.get("use_rslora") else RANK)
        weight = layer.weight.detach() + scale * 0.01 * second @ first
        if config.get("use_dora"):
            magnitude = torch.rand(layer.out_features) + 0.5
            tensors[f"base_model.model.{key}.lora_magnitude_vector"] = magnitude
            weight = weight / weight.pow(2).sum(1, keepdim=True).sqrt() * magnitude[:, None]
        folded[f"{name}.weight"] = weight
    save_file(tensors, target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_text(json.dumps(settings))
    return folded


def save_folded(base: Path, target: Path, folded: dict[str, torch.Tensor]) -> None:
    model = whole_model(base)
    unfit = model.load_state_dict(folded, strict=False)
    assert not unfit.unexpected_keys
    model.save_pretrained(target)
    for path in base.iterdir():
        if not (target / path.name).exists():
            (target / path.name).write_bytes(path.read_bytes())


def vectors(folder: Path, model: str = "vlm2vec-v2.0") -> np.ndarray:
    encoder = load(tiny_record(model), LoadOptions(device="cpu", checkpoint=folder))
    return np.concatenate([encoder.encode_images(pictures()), encoder.encode_texts(TEXTS)])


@pytest.mark.parametrize("old_layout", [True, False])
@pytest.mark.parametrize(
    "config",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"q_proj": 2}}],
    ids=["lora", "rslora", "dora", "alpha_pattern"],
)
def test_folding_equals_the_formula(
    old_layout: bool, config: dict[str, Any], tiny_folder: Folder, tmp_path: Path
) -> None:
    base = tiny_folder("qwen2_vl")
    folded = write_adapter(base, tmp_path / "adapter", old_layout=old_layout, **config)
    save_folded(base, tmp_path / "whole", folded)
    ours = vectors(tmp_path / "adapter")
    assert np.abs(ours - vectors(tmp_path / "whole")).max() < 1e-5
    assert np.abs(ours - vectors(base)).max() > 0.01


def test_every_layer_of_text_and_vision_is_changed(tiny_folder: Folder, tmp_path: Path) -> None:
    base = tiny_folder("qwen2_vl")
    folded = write_adapter(base, tmp_path)
    model = whole_model(base)
    config = lora.read_adapter_config(tmp_path)
    assert config is not None
    count = lora.fold_adapter(model, tmp_path, config)
    assert count == len(folded) == 2 * (7 + 1)
    for name, weight in folded.items():
        assert torch.allclose(model.state_dict()[name], weight, atol=1e-6), name


def test_literal_names_match_no_layer(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: the names of an old adapter are missing in a new model, which is an error here."""
    write_adapter(tiny_folder("qwen2_vl"), tmp_path)
    monkeypatch.setattr(lora, "_LAYOUTS", (("", ""),))
    with pytest.raises(ModelLoadError, match=r"no linear layer model\.layers\.0"):
        vectors(tmp_path)


def test_the_peft_library_agrees(tiny_folder: Folder, tmp_path: Path) -> None:
    """The peft library ignores the old layout with a warning."""
    peft = pytest.importorskip("peft")
    base = tiny_folder("qwen2_vl")
    for name, config in (("plain", {}), ("dora", {"use_dora": True})):
        new, old = tmp_path / name, tmp_path / f"{name}-old"
        write_adapter(base, new, old_layout=False, **config)
        write_adapter(base, old, old_layout=True, **config)
        merged = peft.PeftModel.from_pretrained(whole_model(base), new).merge_and_unload()
        merged.save_pretrained(tmp_path / f"{name}-merged")
        save_folded(base, tmp_path / f"{name}-merged", dict(merged.state_dict()))
        assert np.abs(vectors(new) - vectors(tmp_path / f"{name}-merged")).max() < 1e-5
        assert np.abs(vectors(new) - vectors(old)).max() < 1e-6
    with pytest.warns(UserWarning, match="missing adapter keys"):
        peft.PeftModel.from_pretrained(whole_model(base), tmp_path / "plain-old")


class TestFiles:
    def test_raw_names_and_pickled_tensors(self, tiny_folder: Folder, tmp_path: Path) -> None:
        base = tiny_folder("qwen2_vl")
        write_adapter(base, tmp_path / "safe")
        write_adapter(base, tmp_path / "raw", suffix=".default.weight")
        pickled = tmp_path / "raw" / "adapter_model.safetensors"
        torch.save(load_file(pickled), tmp_path / "raw" / "adapter_model.bin")
        pickled.unlink()
        assert np.array_equal(vectors(tmp_path / "raw"), vectors(tmp_path / "safe"))

    def test_an_adapter_with_its_own_tokenizer_uses_it(
        self, tiny_folder: Folder, tmp_path: Path
    ) -> None:
        base = tiny_folder("qwen2_vl")
        write_adapter(base, tmp_path / "bare")
        write_adapter(base, tmp_path / "brings")
        for path in base.iterdir():
            if path.suffix != ".safetensors" and path.name != "config.json":
                (tmp_path / "brings" / path.name).write_bytes(path.read_bytes())
        assert np.array_equal(vectors(tmp_path / "bare"), vectors(tmp_path / "brings"))

    def test_base_model_in_a_neighbouring_folder(self, tiny_folder: Folder, tmp_path: Path) -> None:
        write_adapter(tiny_folder("qwen2_vl"), tmp_path / "adapter")
        (tmp_path / "base").symlink_to(tiny_folder("qwen2_vl"))
        edit(tmp_path / "adapter", base_model_name_or_path="../base")
        vectors(tmp_path / "adapter")

    def test_base_from_the_hub_matches_the_spec(
        self, tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_adapter(tiny_folder("qwen2_vl"), tmp_path)
        edit(tmp_path, base_model_name_or_path="/home/them/Qwen2-VL-2B-Instruct")
        requests = []

        def find_files(record: Any, options: LoadOptions) -> Any:
            if options.checkpoint is not None:
                return multimodal_lm.Files(options.checkpoint)
            requests.append((record.repository, record.revision, options.offline))
            return multimodal_lm.Files(tiny_folder("qwen2_vl"), "f" * 40)

        monkeypatch.setattr(multimodal_lm, "find_files", find_files)
        options = LoadOptions(device="cpu", checkpoint=tmp_path, offline=True)
        encoder = load(tiny_record("vlm2vec-v2.0"), options)
        assert requests == [("Qwen/Qwen2-VL-2B-Instruct", None, True)]
        base = {"repository": "Qwen/Qwen2-VL-2B-Instruct", "revision": "f" * 40}
        assert encoder.fingerprint["base"] == base

    def test_missing_base_model(self, tiny_folder: Folder, tmp_path: Path) -> None:
        write_adapter(tiny_folder("qwen2_vl"), tmp_path)
        edit(tmp_path, base_model_name_or_path="/home/them/base")
        record = tiny_record("gme")  # names no base of its own
        with pytest.raises(ModelLoadError, match=r"/home/them/base, does not exist"):
            load(record, LoadOptions(device="cpu", checkpoint=tmp_path))


class TestRefusals:
    @pytest.fixture
    def adapter(self, tiny_folder: Folder, tmp_path: Path) -> Path:
        write_adapter(tiny_folder("qwen2_vl"), tmp_path)
        return tmp_path

    def refuse(self, folder: Path, message: str) -> None:
        with pytest.raises(ModelLoadError, match=message):
            vectors(folder)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"peft_type": "LOHA"}, "only LoRA"),
            ({"bias": "all"}, "bias or fan_in_fan_out"),
            ({"use_dora": True}, "needs lora_A, lora_B, lora_magnitude_vector"),
        ],
    )
    def test_kinds_of_adapter(self, adapter: Path, config: dict[str, Any], message: str) -> None:
        edit(adapter, **config)
        self.refuse(adapter, message)

    def test_tensors(self, adapter: Path) -> None:
        path = adapter / "adapter_model.safetensors"
        good = load_file(path)
        key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        head = "base_model.model.lm_head.modules_to_save.weight"
        lost = "base_model.model.model.layers.7.self_attn.q_proj.lora_{}.weight"
        for changed, message in (
            ({name: item for name, item in good.items() if name != key}, "has lora_B and needs"),
            ({**good, head: torch.ones(2, 2)}, "is not a LoRA weight"),
            ({**good, key: torch.ones(RANK, 5)}, r"q_proj is \(64, 5\), its layer \(64, 64\)"),
            (
                {**good, lost.format("A"): torch.ones(1, 64), lost.format("B"): torch.ones(64, 1)},
                r"no linear layer model\.layers\.7",
            ),
            ({}, "holds no weights"),
        ):
            save_file(changed, path)
            self.refuse(adapter, message)

    def test_no_weights(self, adapter: Path) -> None:
        (adapter / "adapter_model.safetensors").unlink()
        self.refuse(adapter, "adapter_model.safetensors is missing")

    def test_a_damaged_file(self, adapter: Path) -> None:
        path = adapter / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:200])
        self.refuse(adapter, "cannot be loaded")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_adapter_spec_of_another_family_is_ignored(tiny_folder: Folder, tmp_path: Path) -> None:
    """A two-tower model does not read adapters: an adapter folder alone is an error."""
    write_adapter(tiny_folder("qwen2_vl"), tmp_path)
    record = tiny_record("bge-vl-large")
    with pytest.raises(ModelLoadError):
        load(record, LoadOptions(device="cpu", checkpoint=tmp_path))
