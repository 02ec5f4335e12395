"""Load and check every open_clip model offline at full size with random weights.

The files have the layout of the hub's cache. Needs no network, published weights or GPU.

    python -m benchmarks.models.open_clip_full_size [MODEL...] [--device cpu] [--folder DIR]

Needs up to 4 GB of disk and 8 GB of memory at a time. Random weights do not measure retrieval
quality; SigLIP's tokenizer is a tiny one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from marsretrieval.encoders import ModelSpec, all_specs, check_encoder, find, load
from marsretrieval.encoders.base import LoadOptions
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.training.train import save_tokenizer

# open_clip names of the published weights; its table gives their preprocessing.
_TAGS = {
    "dfn2b-clip-vit-l-14": "dfn2b",
    "vit-l-16-siglip-384": "webli",
    "vit-l-16-siglip2-512": "webli",
    "pe-core-l-14-336": "meta",
    "marscope": "dfn2b",
}
_UNKNOWN_COMMIT = "0" * 40
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")


def make_cache(record: ModelSpec, cache: Path) -> None:
    """Write a model's repository into a hub cache: configuration, random weights, tokenizer."""
    ensure_torchvision()
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg
    from safetensors.torch import save_file

    commit = record.revision or _UNKNOWN_COMMIT
    cache_folder = cache / f"models--{record.repository.replace('/', '--')}"
    folder = cache_folder / "snapshots" / commit
    folder.mkdir(parents=True)
    (cache_folder / "refs").mkdir()
    (cache_folder / "refs" / "main").write_text(commit)

    architecture = record.settings["architecture"]
    model = open_clip.get_model_config(architecture)
    size = record.settings.get("image_size")
    if size:
        model["vision_cfg"]["image_size"] = size
    published = get_pretrained_cfg(architecture, _TAGS[record.id])
    preprocess = {key: published[key] for key in _PREPROCESS}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if model["text_cfg"].get("hf_tokenizer_name"):
        save_tokenizer(["sand and ice"], 300, folder, model["text_cfg"]["context_length"])
    made = open_clip.create_model(architecture, load_weights=False, force_image_size=size)
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def measure(record: ModelSpec, device: str) -> dict[str, Any]:
    """Load from the cache, check, and report time and memory."""
    start = time.perf_counter()
    encoder = load(record, LoadOptions(device=device, offline=True))
    seconds = time.perf_counter() - start
    report = check_encoder(encoder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    return {**report, "load_s": round(seconds, 1), "peak_gib": round(peak / 2**20, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="Catalogue ids (default: all of the family).")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="Where to make the caches, one at a time.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = options.models or [spec.id for spec in all_specs() if spec.id in _TAGS]
    if options.measure:  # separate process per model, to measure its peak memory
        import huggingface_hub.constants

        huggingface_hub.constants.HF_HUB_CACHE = str(options.measure)
        print(json.dumps(measure(find(models[0]), options.device)))
        return 0
    failed = 0
    print(f"{'model':<24}{'load s':>8}{'peak GiB':>10}{'2 images s':>12}{'2 texts s':>11}  check")
    for model in models:
        with tempfile.TemporaryDirectory(dir=options.folder) as cache:
            _make_apart(model, Path(cache))
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, model, "--device", options.device,
                 "--measure", cache],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        report = json.loads(done.stdout) if done.returncode == 0 else {"problems": ["no result"]}
        failed += bool(report["problems"])
        summary = "; ".join(report["problems"]) or "ok"
        if done.returncode == 0:
            images, texts = report["images"]["seconds"], report["texts"]["seconds"]
            print(f"{model:<24}{report['load_s']:>8}{report['peak_gib']:>10}"
                  f"{images:>12.1f}{texts:>11.1f}  {summary}")  # fmt: skip
        else:
            print(f"{model:<24}{'':>41}  {summary}")
    return min(failed, 1)


def _make_apart(model: str, cache: Path) -> None:
    """Run in a separate process, which frees its memory at the end."""
    code = (
        "import sys; from pathlib import Path; from marsretrieval.encoders import find\n"
        f"from {__spec__.name} import make_cache\n"
        "make_cache(find(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, model, str(cache)], check=True)


if __name__ == "__main__":
    sys.exit(main())
