"""Vectors equal a straightforward computation with library calls; prompts; truncation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from marsretrieval.encoders import LoadOptions, find, load
from marsretrieval.encoders.multimodal_lm import InputRecipe, MultimodalEncoder, cut_caption
from marsretrieval.errors import ModelLoadError
from tests.encoders.tiny_transformers import LANGUAGE_MODELS, TEXTS, pictures, tiny_record

Folder = Callable[[str], Path]

HELP = "You are a helpful assistant."
T2I = "Find an image that matches the given text."
SEEN = "<|vision_start|><|image_pad|><|vision_end|>"
DEMO = (
    "<|image_pad|> Represent the given image with the following question: What is in the image",
    "{text}",
)


def chat(instruction: str, content: str, tail: str = "") -> str:
    return (
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"
        f"<|im_start|>assistant\n{tail}"
    )


def llama(content: str) -> str:
    return (
        f"<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n \n"
    )


# What the published code sends: (image prompt, text prompt). Written out here a second time.
PUBLISHED = {
    "e5-v": (
        llama("<image>\nSummary above image in one word: "),
        llama("{text}\nSummary above sentence in one word: "),
    ),
    "gme": (chat(HELP, SEEN, "<|endoftext|>"), chat(T2I, "{text}", "<|endoftext|>")),
    "ops-mm-embedding-v1": (
        chat(HELP, SEEN, "<|endoftext|>"),
        chat(HELP, "{text}", "<|endoftext|>"),
    ),
    "vlm2vec-v2.0": DEMO,
    "b3++": DEMO,
    "jina-embeddings-v4": (
        f"<|im_start|>user\n{SEEN}Describe the image.<|im_end|>\n",
        "Query: {text}",
    ),
    "qwen3-vl-embedding": (
        chat("Represent the user's input.", SEEN),
        chat("Represent the user's input.", "{text}"),
    ),
    "qwen3-vl-embedding-8b": (
        chat("Represent the user's input.", SEEN),
        chat("Represent the user's input.", "{text}"),
    ),
}


class Reference:
    """Reference: one input at a time with the joint processor call, the generation model and all
    hidden states."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model = hf.AutoModelForImageTextToText.from_pretrained(folder).eval()
        settings = tiny_record(model).settings
        limits = {key: settings[key] for key in ("min_pixels", "max_pixels") if key in settings}
        self.processor = hf.AutoProcessor.from_pretrained(folder)
        self.processor.image_processor = hf.AutoImageProcessor.from_pretrained(
            folder, backend="pil", **limits
        )
        if self.model.config.model_type == "llava_next":
            self.processor.patch_size = 14
            self.processor.vision_feature_select_strategy = "default"
            self.processor.num_additional_image_tokens = 1
            self.processor.tokenizer.pad_token = "<|eot_id|>"
        self.processor.tokenizer.padding_side = "left"
        self.image, self.text = PUBLISHED[model]
        self.one_dimensional = model in ("gme", "vlm2vec-v2.0", "b3++")
        self.mean = model == "jina-embeddings-v4"

    def joint(self, images: Sequence[Image.Image]) -> Any:
        rgb = [image.convert("RGB") for image in images]
        prompts = [self.image] * len(rgb)
        return self.processor(text=prompts, images=rgb, padding=True, return_tensors="pt")

    @torch.inference_mode()
    def hidden(self, batch: Any, **more: Any) -> torch.Tensor:
        return self.model(**batch, output_hidden_states=True, **more).hidden_states[-1][0]

    def embed_image(self, image: Image.Image) -> np.ndarray:
        batch = self.joint([image])
        if self.one_dimensional:
            positions = torch.arange(batch["input_ids"].shape[1])[None, None].expand(3, 1, -1)
            hidden = self.hidden(batch, position_ids=positions)
        else:
            hidden = self.hidden(batch)
        ids = batch["input_ids"][0].tolist()
        if self.mean:
            config = self.model.config
            first = ids.index(config.vision_start_token_id)
            last = ids.index(config.vision_end_token_id)
            return unit(hidden[first : last + 1].mean(0))
        return unit(hidden[-1])

    def embed_text(self, text: str) -> np.ndarray:
        batch = self.processor(text=[self.text.replace("{text}", text)], return_tensors="pt")
        hidden = self.hidden(batch)
        return unit(hidden.mean(0) if self.mean else hidden[-1])


def unit(vector: torch.Tensor) -> np.ndarray:
    return (vector / vector.norm()).numpy()


@pytest.fixture(scope="module", params=LANGUAGE_MODELS)
def both(
    request: pytest.FixtureRequest, tiny_folder: Folder
) -> tuple[MultimodalEncoder, Reference]:
    folder = tiny_folder(LANGUAGE_MODELS[request.param])
    encoder = load(tiny_record(request.param), LoadOptions(device="cpu", checkpoint=folder))
    assert isinstance(encoder, MultimodalEncoder)
    return encoder, Reference(request.param, folder)


def test_images_equal_the_reference(both: tuple[MultimodalEncoder, Reference]) -> None:
    encoder, reference = both
    expected = np.stack([reference.embed_image(picture) for picture in pictures()])
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-5


def test_texts_equal_the_reference(both: tuple[MultimodalEncoder, Reference]) -> None:
    encoder, reference = both
    expected = np.stack([reference.embed_text(text) for text in TEXTS])
    for role in ("query", "caption"):
        assert np.abs(encoder.encode_texts(TEXTS, role=role) - expected).max() < 1e-5


def test_model_input_equals_the_joint_processor_output(
    both: tuple[MultimodalEncoder, Reference],
) -> None:
    encoder, reference = both
    inputs: dict[str, Any] = {}
    hook = encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.update(kwargs), with_kwargs=True
    )
    encoder.encode_images(pictures())
    hook.remove()
    joint = reference.joint(pictures())
    names = {"input_ids", "attention_mask", "pixel_values"}
    assert names <= joint.keys()
    for name in joint:
        if name == "mm_token_type_ids" and name not in inputs:
            continue  # LLaVA-NeXT's core does not take it
        assert torch.equal(inputs[name], joint[name]), name


def test_no_scores_over_the_vocabulary(both: tuple[MultimodalEncoder, Reference]) -> None:
    encoder, _ = both
    assert not any("lm_head" in name for name, _ in encoder.model.named_modules())


def test_official_prompts_distinguish_queries_from_captions(tiny_folder: Folder) -> None:
    differs = {}
    for model, name in LANGUAGE_MODELS.items():
        options = LoadOptions(device="cpu", checkpoint=tiny_folder(name), prompts="official")
        encoder = load(tiny_record(model), options)
        assert encoder.fingerprint["prompts"]["preset"] == "official"
        query, caption = (encoder.encode_texts(TEXTS, role=role) for role in ("query", "caption"))
        differs[model] = bool(np.abs(query - caption).max() > 1e-3)
    same = {"e5-v", "ops-mm-embedding-v1"}
    assert differs == {model: model not in same for model in LANGUAGE_MODELS}


def test_pixel_limits_reach_the_image_processor(tiny_folder: Folder) -> None:
    folder = tiny_folder("qwen2_vl")
    encoder = load(find("gme"), LoadOptions(device="cpu", checkpoint=folder))
    size = encoder.fingerprint["preprocessing"]["size"]
    assert size == {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}
    for picture in (Image.new("RGB", (40, 60)), Image.new("RGB", (4000, 3000))):
        tokens = int(encoder.preprocess(picture)["image_grid_thw"].prod()) // 4
        assert 256 <= tokens <= 1280


class TestCutting:
    """Tiny tokenizers have one token per byte, so lengths can be counted by hand."""

    @pytest.fixture
    def encoder(self, tiny_folder: Folder) -> Any:
        record = replace(tiny_record("gme"), context_length=120)
        return load(record, LoadOptions(device="cpu", checkpoint=tiny_folder("qwen2_vl")))

    def test_only_the_caption_is_cut(self, encoder: Any) -> None:
        before, after = encoder.recipe.query.split("{text}")
        ends = [len(encoder._tokenizer(part)["input_ids"]) for part in (before, after)]
        room = 120 - sum(ends)
        assert 0 < room < 100
        fits, too_long = "f" * room, "f" * (room + 1)
        assert encoder._prompt(fits, "query") == (before + fits + after, False)
        assert encoder._prompt(too_long, "query") == (before + fits + after, True)
        assert encoder.count_truncated([fits, too_long, "x" * 5000]) == 2
        rows = encoder.encode_texts([fits, too_long, "f" * 5000])
        assert np.abs(rows - rows[0]).max() < 1e-6

    def test_a_character_is_cut_off_whole(self, encoder: Any) -> None:
        prompt, cut = encoder._prompt("é" * 200, "query")  # two tokens each
        assert cut
        assert len(encoder._tokenizer(prompt)["input_ids"]) in (119, 120)
        assert "\ufffd" not in prompt

    def test_a_context_smaller_than_the_template_keeps_the_template(self, encoder: Any) -> None:
        template = encoder.recipe.query
        assert cut_caption(encoder._tokenizer, template, "dunes", 3) == (
            template.replace("{text}", ""),
            True,
        )

    def test_braces_in_a_caption_are_just_text(self, encoder: Any) -> None:
        prompt, _ = encoder._prompt("{text} {0}", "query")
        assert "{text} {0}" in prompt


class TestRecipe:
    def test_faults_name_the_key(self) -> None:
        record = find("gme")
        good = record.settings
        prompts = good["prompts"]
        options = LoadOptions()
        for settings, message in (
            ({**good, "prompts": {"official": prompts["official"]}}, "no prompts 'paper'"),
            ({**good, "prompts": {"paper": {**prompts["paper"], "query": "x"}}}, "'query'"),
            ({**good, "prompts": {"paper": {**prompts["paper"], "image": ""}}}, "'image'"),
            ({**good, "pooling": "max"}, "pooling is 'max'"),
            ({**good, "positions": "2d"}, "positions is '2d'"),
        ):
            with pytest.raises(ModelLoadError, match=message):
                InputRecipe.from_spec(replace(record, settings=settings), options)
