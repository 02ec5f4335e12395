"""How one language model is prompted, pooled and fed: a model's frozen recipe, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marsretrieval.encoders._protocol import TextRole
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.errors import ModelLoadError

_TEXT = "{text}"
_CHOICES = {"pooling": ("last", "mean"), "positions": ("model", "1d")}


@dataclass(frozen=True, slots=True)
class Recipe:
    """`query` and `caption` hold ``{text}`` once; `image` holds the one image token.

    pooling: `last` token, or `mean` (of a text's tokens; of an image's, from vision start to
    vision end). positions: `model`, the model's own (M-RoPE: an image's tokens have a row and a
    column), or `1d`, counted along the sequence. context: tokens of the whole prompt, above which
    the caption is cut; None for no limit. Pixels: limits of the resized image.
    """

    query: str
    caption: str
    image: str
    pooling: str = "last"
    positions: str = "model"
    context: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    @classmethod
    def of(cls, record: ModelRecord, options: LoadOptions) -> Recipe:
        """The recipe in a record's settings. Raises ModelLoadError naming the key at fault."""
        presets: Mapping[str, Mapping[str, str]] = record.settings.get("prompts", {})
        if options.prompts not in presets:
            raise ModelLoadError(
                f"{record.id} has no prompts '{options.prompts}'",
                remedy=f"It has: {', '.join(presets) or 'none'}.",
            )
        prompts = presets[options.prompts]
        for key in ("query", "caption"):
            if prompts.get(key, "").count(_TEXT) != 1:
                raise ModelLoadError(f"{record.id}: prompt '{key}' must hold {_TEXT} once")
        if not prompts.get("image"):
            raise ModelLoadError(f"{record.id}: prompt 'image' is missing")
        chosen: dict[str, Any] = {}
        for key, allowed in _CHOICES.items():
            chosen[key] = record.settings.get(key, allowed[0])
            if chosen[key] not in allowed:
                raise ModelLoadError(
                    f"{record.id}: {key} is '{chosen[key]}', not one of {', '.join(allowed)}"
                )
        return cls(
            query=prompts["query"],
            caption=prompts["caption"],
            image=prompts["image"],
            context=record.context_length,
            min_pixels=record.settings.get("min_pixels"),
            max_pixels=record.settings.get("max_pixels"),
            **chosen,
        )

    def template(self, role: TextRole) -> str:
        return self.query if role == "query" else self.caption

    @property
    def pixel_limits(self) -> dict[str, int]:
        limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {key: value for key, value in limits.items() if value is not None}


def cut_caption(tokenizer: Any, template: str, text: str, limit: int | None) -> tuple[str, bool]:
    """The prompt for one text, and whether the text had to be cut to keep it within `limit`.

    Only the text is cut, at a token's end, and never the template: the vector is read off the
    template's last token.
    """
    before, after = template.split(_TEXT)
    prompt = before + text + after
    if limit is None:
        return prompt, False
    encoding = _encode(tokenizer, prompt)
    surplus = len(encoding["input_ids"]) - limit
    if surplus <= 0:
        return prompt, False
    starts = [
        start
        for start, end in encoding["offset_mapping"]
        if start < end and len(before) <= start < len(before) + len(text)
    ]
    while surplus > 0 and starts:
        keep = max(0, len(starts) - surplus)
        end = starts[keep] - len(before)
        starts = starts[:keep]
        prompt = before + text[:end] + after
        surplus = len(_encode(tokenizer, prompt)["input_ids"]) - limit
    return prompt, True


def _encode(tokenizer: Any, text: str) -> Any:
    return tokenizer(text, return_offsets_mapping=True, verbose=False)
