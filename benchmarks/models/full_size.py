"""Run every transformers model at full size with random weights on one GPU.

Reports precision, speed and memory. Needs no network and no weights.

    python -m benchmarks.models.full_size [MODEL...] [--batch 8] [--side 512]

Random weights do not measure retrieval quality. Texts have a token per byte, since tokenizers
are tiny too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.models._configs import FULL_SIZE
from marsretrieval.encoders import LoadOptions, ModelSpec, find
from marsretrieval.encoders.multimodal_lm import InputRecipe, MultimodalEncoder
from marsretrieval.encoders.torch_encoder import TorchEncoder, choose_dtype
from marsretrieval.encoders.transformers import ImagePreprocess, import_transformers
from marsretrieval.encoders.two_tower import TwoTowerEncoder
from marsretrieval.encoders.vision_only import VisionOnlyEncoder
from tests.encoders.tiny_transformers import clip_tokenizer, llava_processor, qwen_processor

__all__ = ["build_encoder", "build_model", "main"]

_OPTIONS = LoadOptions()
_PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
}
_TEXT = "A crater wall with narrow gullies that end in small fans, seen from orbit. " * 3


def build_model(model: str) -> Any:
    """Return the full-size model of a registry id with random weights on torch's defaults."""
    transformers = import_transformers()
    architecture, config_class, settings = FULL_SIZE[model]
    arguments = {}
    if "attention" in find(model).settings:
        arguments["attn_implementation"] = dict(find(model).settings["attention"])
    config = getattr(transformers, config_class)(**settings, **arguments)
    return getattr(transformers, architecture)(config)


def build_encoder(model: str, device: torch.device) -> TorchEncoder:
    record = find(model)
    dtype = choose_dtype("auto", device, on_gpu=record.settings["gpu_dtype"])
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            full_model = build_model(model)
    finally:
        torch.set_default_dtype(default)
    images = ImagePreprocess(_image_processor(record, full_model.config))
    if record.family == "two_tower":
        return TwoTowerEncoder(
            record, _OPTIONS, full_model, clip_tokenizer(), images, device, dtype, None
        )
    if record.family == "vision_only":
        return VisionOnlyEncoder(record, _OPTIONS, full_model, images, device, dtype, None)
    processor = _processor(full_model.config.model_type)
    processor.image_processor = images.processor
    recipe = InputRecipe.from_spec(record, _OPTIONS)
    return MultimodalEncoder(
        record,
        _OPTIONS,
        full_model.model,
        processor,
        recipe,
        device=device,
        dtype=dtype,
        revision=None,
    )


def _processor(kind: str) -> Any:
    """Return a tiny tokenizer with realistic token counts."""
    if kind != "llava_next":
        return qwen_processor(_PROCESSORS[kind])
    processor = llava_processor()
    processor.patch_size = 14
    processor.vision_feature_select_strategy = "default"
    processor.num_additional_image_tokens = 1
    return processor


def _image_processor(record: ModelSpec, config: Any) -> Any:
    transformers = import_transformers()
    if config.model_type == "llava_next":
        side = {"height": 336, "width": 336}
        return transformers.LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=side)
    if record.family == "multimodal_lm":
        limits = {key: value for key, value in record.settings.items() if key.endswith("_pixels")}
        patch = config.vision_config.patch_size
        return transformers.Qwen2VLImageProcessorPil(patch_size=patch, **limits)
    assert record.image_size is not None
    side = {"height": record.image_size, "width": record.image_size}
    return transformers.CLIPImageProcessorPil(size=side, crop_size=side)


@dataclass(frozen=True, slots=True)
class Row:
    """Measurements of one model. `alike`: lowest cosine of an image alone and in the batch."""

    model: str
    dtype: str
    images_per_s: float
    texts_per_s: float
    peak_gib: float
    alike: float


def measure(model: str, device: torch.device, batch: int, side: int) -> Row:
    """Measure a model; raise ModelLoadError if a vector is zero or not finite."""
    torch.cuda.reset_peak_memory_stats(device)
    encoder = build_encoder(model, device)
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        for _ in range(batch)
    ]
    features = [encoder.preprocess(image) for image in images]
    together = encoder.encode_preprocessed(features)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)
    alone = np.concatenate([encoder.encode_preprocessed([feature]) for feature in features])
    image_s = _seconds(lambda: encoder.encode_preprocessed(features))
    text_s = float("nan")
    if "text" in encoder.modalities:
        text_s = _seconds(lambda: encoder.encode_texts([_TEXT] * batch))
    return Row(
        model=model,
        dtype=str(encoder.dtype).removeprefix("torch."),
        images_per_s=batch / image_s,
        texts_per_s=batch / text_s,
        peak_gib=torch.cuda.max_memory_allocated(device) / 2**30,
        alike=float((together * alone).sum(1).min()),
    )


def _seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time; vectors are copied to the host, so a call includes device time."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(FULL_SIZE))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=512, help="pixels of the square test images")
    arguments = parser.parse_args()
    models = arguments.models or list(FULL_SIZE)
    if unknown := [model for model in models if model not in FULL_SIZE]:
        parser.error(f"unknown model {', '.join(unknown)}")
    if not torch.cuda.is_available():
        print("full_size needs a GPU: torch sees none here, nothing was run", file=sys.stderr)
        return 1
    device = torch.device("cuda", torch.cuda.current_device())
    print(
        f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, "
        f"batch {arguments.batch}, {arguments.side} px"
    )
    print("| model | dtype | images/s | texts/s | peak GiB | batch as alone |")
    print("|---|---|---|---|---|---|")
    for model in models:
        row = measure(model, device, arguments.batch, arguments.side)
        print(
            f"| {row.model} | {row.dtype} | {row.images_per_s:.1f} | {row.texts_per_s:.1f} "
            f"| {row.peak_gib:.1f} | {row.alike:.5f} |",
            flush=True,
        )
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
