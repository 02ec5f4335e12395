"""Contrastive training of an open_clip dual encoder on generated terrain, on a CPU."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic import LANDFORMS, sample, sample_pair
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.io import atomic_path, output_folder, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import geolocalization_prompts, landform_prompts
from marsretrieval.system import process_pool, usable_cpus

if TYPE_CHECKING:
    import torch

_CHUNK_IMAGES = 250
_PAD, _START, _END = "<pad>", "<start>", "<end>"  # ids 0, 1, 2
_MEAN = _STD = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training parameters. The defaults reproduce the shipped mars-nano.

    Attributes:
        seed: Seed of samples and weights; no planet may use it.
        image_size: Width and height of the images in pixels.
        context_length: Maximum number of tokens.
        vocabulary: Size of the tokenizer's vocabulary.
        embed_dim: Dimension of the embeddings.
        pairs: Number of images with a generated caption.
        named: Number of images with prompts that contain their landform's name.
        batch: Batch size.
        epochs: Number of epochs.
        learning_rate: Maximum learning rate.
        weight_decay: Weight decay of matrices.
        warmup: Share of the steps with a rising learning rate.
    """

    seed: int = 20_260_213
    image_size: int = 64
    context_length: int = 64
    vocabulary: int = 640
    embed_dim: int = 128
    pairs: int = 7_000
    named: int = 8_000
    batch: int = 200
    epochs: int = 10
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: float = 0.05

    def model_config(self, vocabulary: int) -> dict[str, Any]:
        """Return the open_clip model config of the dual encoder.

        Args:
            vocabulary: Actual size of the vocabulary.

        Returns:
            The config.
        """
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "image_size": self.image_size,
                "timm_model_name": "test_resnet",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "mars-nano",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 96,
                "heads": 4,
                "layers": 2,
                "pool_type": "eos",
                "pad_id": 0,
                "eos_id": 2,
            },
        }


@dataclass(frozen=True, slots=True)
class Samples:
    """Training samples.

    Attributes:
        images: uint8 array of shape (n, size, size).
        texts: Alternative texts of each image.
    """

    images: npt.NDArray[np.uint8]
    texts: list[tuple[str, ...]]


def make_samples(recipe: Recipe, progress: Progress = NO_PROGRESS) -> Samples:
    """Generate the training samples on all CPUs.

    Args:
        recipe: Training parameters.
        progress: Progress display.

    Returns:
        `recipe.pairs` images with captions, then `recipe.named` images with prompts.
    """
    chunks: list[tuple[int, bool, int, int]] = []
    for captioned, count in ((True, recipe.pairs), (False, recipe.named)):
        for index, start in enumerate(range(0, count, _CHUNK_IMAGES)):
            seed = recipe.seed + 1_000_000 * captioned + index
            chunks.append((seed, captioned, min(_CHUNK_IMAGES, count - start), recipe.image_size))
    images, texts = [], []
    with (
        progress.start("samples", recipe.pairs + recipe.named, "images") as bar,
        process_pool(usable_cpus()) as pool,
    ):
        for chunk_images, chunk_texts in pool.map(_draw_chunk, chunks):
            images.append(chunk_images)
            texts += chunk_texts
            bar.advance(len(chunk_texts))
    return Samples(np.concatenate(images), texts)


def _draw_chunk(chunk: tuple[int, bool, int, int]) -> tuple[Any, list[tuple[str, ...]]]:
    from PIL import Image

    seed, captioned, count, size = chunk
    rng = np.random.default_rng(seed)
    names = list(LANDFORMS)
    images = np.empty((count, size, size), np.uint8)
    texts: list[tuple[str, ...]] = []
    for row in range(count):
        if captioned:
            pixels, original, refined = sample_pair(rng)
            grey = (
                Image.fromarray(pixels).convert("L").resize((size, size), Image.Resampling.BICUBIC)
            )
            images[row] = np.asarray(grey)
            texts.append((original, refined, refined))
        else:
            name = names[row % len(names)]
            images[row] = sample(name, rng, size)[0]
            prompts = {*landform_prompts(name), *geolocalization_prompts(name)}
            texts.append(tuple(sorted(prompts)))
    return images, texts


def save_tokenizer(texts: Iterable[str], vocabulary: int, folder: str | Path, length: int) -> int:
    """Train a byte-level BPE tokenizer and save it for transformers' AutoTokenizer.

    Args:
        texts: Training texts.
        vocabulary: Maximum size of the vocabulary.
        folder: Folder for the tokenizer.
        length: Maximum number of tokens.

    Returns:
        Actual size of the vocabulary.
    """
    folder = Path(folder)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, 1), (_END, 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_START,
        eos_token=_END,
        model_max_length=length,
    )
    fast.save_pretrained(folder)
    return len(fast)


def train(recipe: Recipe, folder: str | Path, progress: Progress = NO_PROGRESS) -> dict[str, float]:
    """Train a model and write an open_clip model folder.

    The loss is symmetric InfoNCE over the batch with a learned temperature (CLIP, Radford et al.
    2021); the optimizer is AdamW with a cosine schedule. The same recipe and library versions give
    the same weights.

    Args:
        recipe: Training parameters.
        folder: Folder for config, weights (safetensors, float16), tokenizer and recipe.
        progress: Progress display.

    Returns:
        Losses of the first and the last epoch.
    """
    folder = Path(folder)
    # Replace the files only after training has succeeded: tokenizer and weights belong together.
    with (
        output_folder(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name,
    ):
        staging = Path(name)
        losses = _train_in(recipe, staging, progress)
        for file in sorted(staging.iterdir()):
            with atomic_path(folder / file.name) as temporary:
                shutil.copyfile(file, temporary)
    return losses


def _train_in(recipe: Recipe, folder: Path, progress: Progress) -> dict[str, float]:
    # The processes that draw samples import this module, and do not need torch.
    ensure_torchvision()
    import open_clip
    import torch

    samples = make_samples(recipe, progress)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    every_text = sorted({text for texts in samples.texts for text in texts})
    size = save_tokenizer(every_text, recipe.vocabulary, folder, recipe.context_length)
    config = recipe.model_config(size)
    _write_config(config, folder)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model = open_clip.model.CLIP(**config)
    tokens = dict(zip(every_text, tokenizer(every_text), strict=True))
    losses = _fit(model, open_clip.ClipLoss(), recipe, samples, tokens, rng, progress)
    _save(model, folder)
    write_json(folder / "recipe.json", {**asdict(recipe), "loss": losses})
    return losses


def _fit(
    model: torch.nn.Module,
    loss_function: torch.nn.Module,
    recipe: Recipe,
    samples: Samples,
    tokens: dict[str, torch.Tensor],
    rng: np.random.Generator,
    progress: Progress,
) -> dict[str, float]:
    import torch

    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    steps = recipe.epochs * (len(samples.texts) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _warm_cosine(step, steps, recipe.warmup)
    )
    epochs: list[float] = []
    model.train()
    with progress.start("train", steps, "steps") as bar:
        for _ in range(recipe.epochs):
            total = []
            for images, texts in _batches(samples, tokens, recipe.batch, rng):
                optimiser.zero_grad()
                features, words, scale = model(images, texts)
                loss = loss_function(features, words, scale)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                with torch.no_grad():
                    model.get_parameter("logit_scale").clamp_(0, math.log(100))
                total.append(loss.item())
                bar.advance()
            epochs.append(float(np.mean(total)))
            bar.note(f"loss {epochs[-1]:.3f}")
    return {"first_epoch": round(epochs[0], 4), "last_epoch": round(epochs[-1], 4)}


def _batches(
    samples: Samples, tokens: dict[str, torch.Tensor], size: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import torch

    order = rng.permutation(len(samples.texts))
    for start in range(0, len(order) - size + 1, size):
        rows = order[start : start + size]
        images = torch.from_numpy(samples.images[rows]).float().div_(255)
        # Brightness and contrast vary between mosaics; the model should learn shapes.
        contrast = torch.from_numpy(rng.uniform(0.7, 1.3, (size, 1, 1)).astype(np.float32))
        shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (size, 1, 1)).astype(np.float32))
        images = ((images - 0.5) * contrast + 0.5 + shift).clamp_(0, 1)
        images = images.sub_(_MEAN).div_(_STD).unsqueeze(1).expand(-1, 3, -1, -1)
        chosen = [samples.texts[row][rng.integers(len(samples.texts[row]))] for row in rows]
        yield images, torch.stack([tokens[text] for text in chosen])


def _warm_cosine(step: int, steps: int, warmup: float) -> float:
    warm = max(1, round(warmup * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _write_config(config: dict[str, Any], folder: Path) -> None:
    preprocess = {
        "mean": [_MEAN] * 3,
        "std": [_STD] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")


def _save(model: torch.nn.Module, folder: Path) -> None:
    from safetensors.torch import save_file

    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        folder / "open_clip_model.safetensors",
    )
