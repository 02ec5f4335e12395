"""Ways to get wrong vectors without an error. Each is re-opened here and seen to bite; the
encoder, on the same input, equals the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from marsretrieval.encoders import Encoder, LoadOptions, load
from marsretrieval.encoders.transformers import load_strictly
from marsretrieval.errors import ModelLoadError
from tests.encoders.tiny_transformers import LANGUAGE_MODELS, MODELS, TEXTS, pictures, tiny_record

Folder = Callable[[str], Path]
# From the layout that save_pretrained writes, that of before transformers 4.52, to the newer one.
TO_NEW = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
    "model.": "model.language_model.",
    "": "model.",
}
SLIP = 1e-3  # what a re-opened trap must at least move; the cure keeps within 1e-5


def open_tiny(model: str, folder: Path, **settings: Any) -> Any:
    """Load the model from a folder; `settings` override the registry's, None removes one."""
    record = tiny_record(model)
    merged = {**record.settings, **settings}
    options = {key: value for key, value in merged.items() if value is not None}
    return load(replace(record, settings=options), LoadOptions(device="cpu", checkpoint=folder))


def batch_against_single(encoder: Encoder, texts: list[str]) -> float:
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    return float(np.abs(encoder.encode_texts(texts) - alone).max())


class TestAimv2TextIsCausal:
    """A. Under SDPA the library drops the mask of a text that needs no padding, and its text
    tower then looks ahead."""

    model = "aimv2-large-patch14-224"

    def test_without_the_attention_setting_a_text_alone_gets_another_vector(
        self, tiny_folder: Folder
    ) -> None:
        folder = tiny_folder("aimv2")
        assert batch_against_single(open_tiny(self.model, folder, attention=None), TEXTS) > SLIP
        assert batch_against_single(open_tiny(self.model, folder), TEXTS) < 1e-5

    @torch.inference_mode()
    def test_tokens_do_not_attend_to_later_tokens(self, tiny_folder: Folder) -> None:
        first = torch.tensor([[5, 6, 7, 8, 9, 10]])
        other = torch.tensor([[5, 6, 7, 8, 9, 99]])

        def seen_at_the_start(encoder: Any) -> float:
            tower = encoder.model.text_model
            mask = torch.ones_like(first)
            states = [tower(ids, attention_mask=mask).last_hidden_state for ids in (first, other)]
            return float((states[0] - states[1])[0, :5].abs().max())

        folder = tiny_folder("aimv2")
        assert seen_at_the_start(open_tiny(self.model, folder, attention=None)) > SLIP
        assert seen_at_the_start(open_tiny(self.model, folder)) < 1e-6


class TestPositions:
    """B. GME was trained and is served with positions counted along the sequence, which the
    library's Qwen2VLModel no longer does by itself.

    And so were VLM2Vec and B3, for another reason: they put no <|vision_start|> before the image,
    by which the library found images when they were made (to 4.51), so their images were counted
    as text. Today the library goes by the image tokens.
    """

    @torch.inference_mode()
    def test_gme_equals_its_own_call_order(self, tiny_folder: Folder) -> None:
        folder = tiny_folder("qwen2_vl")
        encoder = open_tiny("gme", folder)
        batch = fed(encoder, pictures())
        core = hf.AutoModelForImageTextToText.from_pretrained(folder).model.eval()
        embeds = core.get_input_embeddings()(batch["input_ids"])
        vision = core.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
        embeds[batch["input_ids"] == core.config.image_token_id] = vision.pooler_output
        states = core.language_model(
            inputs_embeds=embeds, attention_mask=batch["attention_mask"]
        ).last_hidden_state
        expected = torch.nn.functional.normalize(states[:, -1], dim=-1).numpy()

        assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-5
        slip = open_tiny("gme", folder, positions="model").encode_images(pictures())
        assert np.abs(slip - expected).max() > SLIP

    @pytest.mark.parametrize("model", ["vlm2vec-v2.0", "b3++"])
    def test_images_without_a_vision_start_are_counted_as_text(
        self, model: str, tiny_folder: Folder
    ) -> None:
        folder = tiny_folder("qwen2_vl")
        encoder = open_tiny(model, folder)
        batch = fed(encoder, pictures())
        ids, mask = batch["input_ids"], batch["attention_mask"]
        start = encoder.model.config.vision_start_token_id
        for row in range(len(ids)):
            valid = ids[row][mask[row].bool()]
            assert start not in valid  # none for the old rule to find
            positions = batch["position_ids"][:, row][:, mask[row].bool()]
            assert torch.equal(positions, torch.arange(len(valid)).expand(3, -1))
        slip = open_tiny(model, folder, positions="model")
        moved = np.abs(slip.encode_images(pictures()) - encoder.encode_images(pictures()))
        assert moved.max() > SLIP
        assert np.abs(slip.encode_texts(TEXTS) - encoder.encode_texts(TEXTS)).max() < 1e-6

    @pytest.mark.parametrize(
        "model", ["ops-mm-embedding-v1", "jina-embeddings-v4", "qwen3-vl-embedding"]
    )
    def test_other_layouts_preserve_rows_and_columns(self, model: str, tiny_folder: Folder) -> None:
        folder = tiny_folder(LANGUAGE_MODELS[model])
        own = open_tiny(model, folder).encode_images(pictures())
        slip = open_tiny(model, folder, positions="1d").encode_images(pictures())
        assert np.abs(own - slip).max() > SLIP


class TestLayouts:
    """D. AutoModel reads a file whose keys say model.language_model and leaves it random, with a
    log line. The generation class reads every layout that was ever saved."""

    def test_bare_class_with_random_weights_is_refused(
        self, tiny_folder: Folder, tmp_path: Path
    ) -> None:
        folder = relayout(tiny_folder("qwen2_vl"), tmp_path, TO_NEW)
        torch.manual_seed(0)
        bare, info = hf.AutoModel.from_pretrained(folder, output_loading_info=True)
        full_model = hf.AutoModelForImageTextToText.from_pretrained(folder).model
        moved = [
            name
            for (name, one), (_, two) in zip(
                bare.named_parameters(), full_model.named_parameters(), strict=True
            )
            if not torch.equal(one, two)
        ]
        if not moved:
            pytest.skip("this version of the library reads the layout")
        assert info["missing_keys"]
        with pytest.raises(ModelLoadError, match=r"\d+ missing \(such as "):
            load_strictly(hf.AutoModel, folder, dtype=torch.float32)

    @pytest.mark.parametrize("model", ["gme", "jina-embeddings-v4", "e5-v"])
    def test_every_layout_gives_the_same_vectors(
        self, model: str, tiny_folder: Folder, tmp_path: Path
    ) -> None:
        folder = tiny_folder(LANGUAGE_MODELS[model])
        other = relayout(folder, tmp_path, TO_NEW)
        as_saved, renamed = (
            load_file(item / "model.safetensors").keys() for item in (folder, other)
        )
        assert not as_saved & renamed - {"lm_head.weight"}
        ours, theirs = open_tiny(model, other), open_tiny(model, folder)
        assert np.array_equal(ours.encode_images(pictures()), theirs.encode_images(pictures()))
        assert np.array_equal(ours.encode_texts(TEXTS), theirs.encode_texts(TEXTS))


class TestPadding:
    """E. Read off the last column, a vector of a batch padded on the right is that of a pad."""

    @pytest.mark.parametrize("model", ["e5-v", "vlm2vec-v2.0", "qwen3-vl-embedding"])
    def test_a_tokenizer_saved_with_right_padding_changes_nothing(
        self, model: str, tiny_folder: Folder
    ) -> None:
        encoder = open_tiny(model, tiny_folder(LANGUAGE_MODELS[model]))
        assert encoder._tokenizer.padding_side == "left"
        assert batch_against_single(encoder, TEXTS) < 1e-5
        encoder._tokenizer.padding_side = "right"  # as saved, and as processors default to
        assert batch_against_single(encoder, TEXTS) > SLIP
        images = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])
        assert np.abs(encoder.encode_images(pictures()) - images).max() > SLIP


class TestRotaryFrequencies:
    """F. Casting a whole module to half precision rounds its rotary frequencies, and positions
    far along turn by another angle."""

    @pytest.mark.parametrize("model", [*LANGUAGE_MODELS, "dinov3-vitl16"])
    def test_they_stay_float32(self, model: str, tiny_folder: Folder) -> None:
        options = LoadOptions(device="cpu", checkpoint=tiny_folder(MODELS[model]), dtype="bfloat16")
        encoder: Any = load(tiny_record(model), options)
        kinds = {p.dtype for p in encoder.model.parameters()}
        assert kinds == {torch.bfloat16}
        buffers = {n: b for n, b in encoder.model.named_buffers() if n.endswith("inv_freq")}
        assert buffers
        assert all(buffer.dtype == torch.float32 for buffer in buffers.values())

    def test_rounding_them_moves_vectors(self, tiny_folder: Folder) -> None:
        encoder = open_tiny("vlm2vec-v2.0", tiny_folder("qwen2_vl"))
        long = ["crater " * 200]
        exact = encoder.encode_texts(long)
        for name, buffer in encoder.model.named_buffers():
            if name.endswith("inv_freq"):
                buffer.copy_(buffer.bfloat16())
        assert np.abs(encoder.encode_texts(long) - exact).max() > 1e-4

    def test_at_full_size_a_thousand_positions_on_it_is_over_a_radian(self) -> None:
        exact = 1 / 1e6 ** (torch.arange(0, 128, 2) / 128)  # Qwen2-VL: heads of 128, base 1e6
        assert float((exact - exact.bfloat16().float()).abs().max()) * 1000 > 1


def fed(encoder: Any, images: list[Any]) -> dict[str, torch.Tensor]:
    """Return the model inputs for these images."""
    inputs: dict[str, torch.Tensor] = {}
    hook = encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.update(kwargs), with_kwargs=True
    )
    encoder.encode_images(images)
    hook.remove()
    return inputs


def relayout(folder: Path, target: Path, renames: Mapping[str, str]) -> Path:
    """Copy a checkpoint with its keys renamed by prefix."""
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    renamed = {}
    for key, tensor in tensors.items():
        for old, new in renames.items():
            if key.startswith(old):
                key = new + key.removeprefix(old)
                break
        renamed[key] = tensor
    save_file(renamed, target / "model.safetensors", metadata={"format": "pt"})
    return target
