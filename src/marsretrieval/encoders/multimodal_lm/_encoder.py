"""Texts and images through one language model; the vector is read off its last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from marsretrieval.encoders._protocol import Features, TextRole
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.encoders._torch import Inputs, TorchEncoder
from marsretrieval.encoders._transformers import ImagePreprocess
from marsretrieval.encoders.multimodal_lm._recipe import Recipe, cut_caption

_TEXTS_A_BATCH = 16


class MultimodalEncoder(TorchEncoder):
    """`model` is the core of a generation model: no scores over the vocabulary are computed.

    `preprocess` runs the image processor on one image; `collate` writes the prompts with each
    image's number of image tokens and pads them on the left; the model is run once a batch.
    """

    def __init__(
        self,
        record: ModelRecord,
        options: LoadOptions,
        model: Any,
        processor: Any,
        recipe: Recipe,
        *,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(record, options, model, device=device, dtype=dtype, revision=revision)
        self.recipe = recipe
        self._base = base
        self._config = model.config
        self._rotary_3d = hasattr(model, "get_rope_index")
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._tokenizer.padding_side = "left"  # so that the last column is every row's last token
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._preprocess = ImagePreprocess(processor.image_processor)

    @property
    def dimension(self) -> int:
        return int(self._config.get_text_config().hidden_size)

    @property
    def fingerprint(self) -> dict[str, Any]:
        recipe = {"pooling": self.recipe.pooling, "positions": self.recipe.positions}
        return {**super().fingerprint, "base": self._base, "recipe": recipe}

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        return self._preprocess

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {**self._preprocess.description, **self.recipe.pixel_limits}

    @property
    def prompts(self) -> dict[str, Any]:
        return {
            **super().prompts,
            "query": self.recipe.query,
            "caption": self.recipe.caption,
            "image": self.recipe.image,
            "context": self.recipe.context,
        }

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        return sum(self._prompt(text, role)[1] for text in texts)

    def _prompt(self, text: str, role: TextRole) -> tuple[str, bool]:
        template = self.recipe.template(role)
        return cut_caption(self._tokenizer, template, text, self.recipe.context)

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        prompts = [self._prompt(text, role)[0] for text in texts]
        parts = []
        for start in range(0, len(prompts), _TEXTS_A_BATCH):
            there = self._tokenize(prompts[start : start + _TEXTS_A_BATCH])
            batch = {name: value.to(self.device) for name, value in there.items()}
            hidden = self._run(batch, self._positions_1d(batch["attention_mask"]))
            parts.append(self._pool(hidden, batch["attention_mask"].bool()))
        return torch.cat(parts)

    def _join(self, features: Sequence[Features]) -> Inputs:
        batch = self._tokenize([self._image_prompt(each) for each in features])
        if self._rotary_3d:
            image_token = self._processor.image_token_id
            batch["mm_token_type_ids"] = (batch["input_ids"] == image_token).int()
        return {**batch, **_gather(features)}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        flat = self.recipe.positions == "1d" or not self._rotary_3d
        hidden = self._run(inputs, self._positions_1d(inputs["attention_mask"]) if flat else None)
        return self._pool(hidden, self._image_span(inputs["input_ids"]))

    def _image_prompt(self, features: Mapping[str, torch.Tensor]) -> str:
        """The image prompt with the image token repeated for each token the image becomes."""
        tokens = self._processor.replace_image_token(features, 0)
        return self.recipe.image.replace(self._processor.image_token, tokens)

    def _tokenize(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        batch = self._tokenizer(prompts, padding=True, return_tensors="pt", verbose=False)
        return {key: batch[key] for key in ("input_ids", "attention_mask")}

    def _run(self, batch: Inputs, positions: torch.Tensor | None) -> torch.Tensor:
        """(n, length, d): the last layer after its norm. `positions` None: the model's own."""
        output = self.model(**batch, position_ids=positions, use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _positions_1d(self, mask: torch.Tensor) -> torch.Tensor:
        """Counted from each row's first valid token, as when the row is run alone."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return positions.expand(3, -1, -1) if self._rotary_3d else positions

    def _pool(self, hidden: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
        if self.recipe.pooling == "last":
            return hidden[:, -1]
        weights = span.unsqueeze(-1).float()
        return (hidden.float() * weights).sum(1) / weights.sum(1)

    def _image_span(self, ids: torch.Tensor) -> torch.Tensor:
        """(n, length) bool: from vision start to vision end, both included."""
        start = ids == getattr(self._config, "vision_start_token_id", -1)
        end = ids == getattr(self._config, "vision_end_token_id", -1)
        return (start.cumsum(1) > end.cumsum(1)) | end


def _gather(features: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Batches of one as one batch. E5-V's tiles (1, tiles, 3, h, w) are padded to the most tiles,
    which the model leaves out again by the image's size."""
    joined = {}
    for key in features[0]:
        parts = [each[key] for each in features]
        if parts[0].ndim == 5:
            most = max(part.shape[1] for part in parts)
            parts = [
                torch.nn.functional.pad(part, (0, 0) * 3 + (0, most - part.shape[1]))
                for part in parts
            ]
        joined[key] = torch.cat(parts)
    return joined
