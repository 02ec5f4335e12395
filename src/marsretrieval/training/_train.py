"""Contrastive training of an open_clip dual encoder on generated terrain, on a CPU."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marsretrieval.encoders._torchvision import ensure_torchvision
from marsretrieval.files import atomic_path, make_folder, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.training._recipe import Recipe
from marsretrieval.training._samples import Samples, make_samples
from marsretrieval.training._tokenizer import save_tokenizer

_MEAN = _STD = 0.5


def train(recipe: Recipe, folder: Path, progress: Progress = NO_PROGRESS) -> dict[str, float]:
    """Train by `recipe` and write an open_clip model folder: config, safetensors (float16),
    tokenizer and recipe. Returns the losses of the first and the last epoch.

    Symmetric InfoNCE over the batch, learned temperature (CLIP, Radford et al. 2021), AdamW
    with a cosine schedule. Same recipe and library versions, same weights.
    """
    ensure_torchvision()
    make_folder(folder)
    # A model folder is whole or as it was: tokenizer and weights belong together.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        staged = Path(name)
        losses = _train_in(recipe, staged, progress)
        for file in sorted(staged.iterdir()):
            with atomic_path(folder / file.name) as temporary:
                shutil.copyfile(file, temporary)
    return losses


def _train_in(recipe: Recipe, folder: Path, progress: Progress) -> dict[str, float]:
    import open_clip

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
    loss_of: torch.nn.Module,
    recipe: Recipe,
    samples: Samples,
    tokens: dict[str, torch.Tensor],
    rng: np.random.Generator,
    progress: Progress,
) -> dict[str, float]:
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
                loss = loss_of(features, words, scale)
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
    order = rng.permutation(len(samples.texts))
    for start in range(0, len(order) - size + 1, size):
        rows = order[start : start + size]
        images = torch.from_numpy(samples.images[rows]).float().div_(255)
        # Brightness and contrast vary from mosaic to mosaic; shape is what should be learned.
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
