"""The CLIP family through open_clip: DFN2B, SigLIP, SigLIP2, PE-Core, MarScope."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from PIL import Image

from marsretrieval.encoders._open_clip_files import (
    Source,
    find_source,
    load_tokenizer,
    refuse_code,
    tokenizer_identity,
    unreadable,
)
from marsretrieval.encoders._protocol import Features, TextRole
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.encoders._torch import Inputs, TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders._torchvision import ensure_torchvision
from marsretrieval.errors import ModelLoadError

_TEXTS_A_BATCH = 256


def load(record: ModelRecord, options: LoadOptions) -> OpenClipEncoder:
    """Load from the hub, from a local open_clip folder, or from a training checkpoint.

    `settings`: architecture (of a checkpoint file), image_size (forced, positions resized),
    quick_gelu and preprocess (what the published weights need), folder (weights that this package
    brings), seed (an untrained model), gpu_dtype. A folder of the user's says all of itself.
    Raises ModelLoadError when weights are missing, unexpected or unreadable, or when the
    repository holds another model than the catalogue describes.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=record.gpu_dtype)
    ensure_torchvision()
    source = find_source(record, options)
    try:
        if not options.trust_remote_code:
            refuse_code(source)
        model = _create(record, source)
        tokenizer = load_tokenizer(record, options, source)
        told = source.config
    except ModelLoadError:
        raise
    except Exception as error:  # torch, safetensors, json, timm: each fails in its own way
        raise unreadable(record, options, source, error) from error
    encoder = OpenClipEncoder(
        record, options, model, tokenizer, device=device, dtype=dtype, revision=source.revision
    )
    if source.published:
        _require_described(record, encoder)
        _note_differences(record, told)
    return encoder


class OpenClipEncoder(TorchEncoder):
    """encode_image and encode_text of an open_clip model, with its own preprocessing."""

    def __init__(
        self,
        record: ModelRecord,
        options: LoadOptions,
        model: torch.nn.Module,
        tokenizer: Any,
        *,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        super().__init__(record, options, model, device=device, dtype=dtype, revision=revision)
        self._tokenizer = tokenizer
        self._tokenizer_identity = tokenizer_identity(tokenizer)
        self._settings = dict(model.visual.preprocess_cfg)  # type: ignore[arg-type, union-attr]
        self._preprocess = OpenClipPreprocess(self._settings)
        # A checkpoint of one's own may be of another width than the catalogue says.
        self._dimension = int(self.encode_images([Image.new("RGB", (32, 32))]).shape[1])

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def context_length(self) -> int:
        return int(self._tokenizer.context_length)

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        return self._preprocess

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {key: _plain(value) for key, value in self._settings.items()}

    @property
    def prompts(self) -> dict[str, Any]:
        """No prompt is added; what a text becomes depends on the tokenizer."""
        return {**super().prompts, "tokenizer": self._tokenizer_identity}

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"image": torch.stack(list(features))}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        vectors: torch.Tensor = self.model.encode_image(**inputs)  # type: ignore[operator]
        return vectors

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), _TEXTS_A_BATCH):
            tokens = self._tokenizer(list(texts[start : start + _TEXTS_A_BATCH]))
            parts.append(self.model.encode_text(tokens.to(self.device)))  # type: ignore[operator]
        return torch.cat(parts)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        return sum(self._length(text) > self.context_length for text in texts)

    def _length(self, text: str) -> int:
        """Tokens of a text, start and end included, before it is cut."""
        clean = self._tokenizer.clean_fn(text)
        if hasattr(self._tokenizer, "encode"):  # open_clip's own: encode() adds no ends
            return len(self._tokenizer.encode(clean)) + 2
        return len(self._tokenizer.tokenizer(clean, verbose=False)["input_ids"])


class OpenClipPreprocess:
    """open_clip's evaluation transform, made anew in a process that unpickles it: there, too,
    torchvision has to be importable first.

    Attributes:
        accepts_grey: Whether an image of mode L gives the tensor of the same image in RGB, bit for
            bit. The transform resizes and crops every channel alike and converts to RGB after
            that; the exception is padding with a colour.
    """

    accepts_grey: bool

    def __init__(self, settings: dict[str, Any]) -> None:
        ensure_torchvision()
        from open_clip.transform import MaybeConvertMode, PreprocessCfg, image_transform_v2
        from torchvision.transforms import Normalize, ToTensor

        self._settings = settings
        self._transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
        last_steps = zip(
            self._transform.transforms[-3:], (MaybeConvertMode, ToTensor, Normalize), strict=True
        )
        self.accepts_grey = isinstance(settings.get("fill_color", 0), int) and all(
            isinstance(step, kind) for step, kind in last_steps
        )

    def __call__(self, image: Image.Image) -> Features:
        if image.mode != "L" or not self.accepts_grey:
            return self._transform(image)
        # One channel becomes three only where they begin to differ.
        *resizing, _, to_tensor, normalize = self._transform.transforms
        for step in resizing:
            image = step(image)
        return normalize(to_tensor(image).expand(3, -1, -1))

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (self._settings,)


def _create(record: ModelRecord, source: Source) -> torch.nn.Module:
    """The model with its weights, every tensor of them in its place."""
    import open_clip

    settings = record.settings
    seed = settings.get("seed")
    # Of a bare file open_clip knows the architecture only, and would take OpenAI's preprocessing.
    known = source.published or source.file is not None
    with torch.random.fork_rng(devices=[]), _quiet(seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return open_clip.create_model(  # type: ignore[no-any-return]
            source.name,
            pretrained=str(source.file) if source.file else None,
            force_image_size=settings.get("image_size") if known else None,
            force_quick_gelu=known and settings.get("quick_gelu", False),
            force_preprocess_cfg=settings.get("preprocess") if known else None,
            load_weights=seed is None,
            require_pretrained=seed is None,
            weights_only=True,
        )


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """open_clip warns of random weights, also where they are asked for."""
    if wanted:
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        if wanted:
            logging.disable(logging.NOTSET)


def _require_described(record: ModelRecord, encoder: OpenClipEncoder) -> None:
    """Published weights must be those of the model that the catalogue describes."""
    size = _plain(encoder.preprocessing["size"])
    found = {
        "dimension": (encoder.dimension, record.dimension),
        "context_length": (encoder.context_length, record.context_length),
        "image_size": (size[0] if isinstance(size, list) else size, record.image_size),
    }
    wrong = [f"{key} {has}, not {want}" for key, (has, want) in found.items() if has != want]
    if wrong:
        raise ModelLoadError(
            f"{record.id}: {record.repository} is not the model of the catalogue: "
            + "; ".join(wrong),
            remedy="The repository may have changed: fetch an earlier revision, and give it as "
            "--checkpoint DIR.",
        )


def _note_differences(record: ModelRecord, config: Mapping[str, Any]) -> None:
    """Say where the repository's own configuration differs from what the published evaluation
    used. The catalogue's values are in force, and in the fingerprint."""
    told = config.get("preprocess_cfg", {})
    pairs = {
        key: (told[key], value)
        for key, value in record.settings.get("preprocess", {}).items()
        if key in told
    }
    if "quick_gelu" in record.settings:
        gelu = config.get("model_cfg", {}).get("quick_gelu", False)
        pairs["quick_gelu"] = (gelu, record.settings["quick_gelu"])
    for key, (theirs, ours) in pairs.items():
        if _plain(theirs) != _plain(ours):
            print(
                f"note: {record.id}: {record.repository} says {key} {_plain(theirs)}; "
                f"{_plain(ours)} is used, as in the catalogue",
                file=sys.stderr,
            )


def _plain(value: Any) -> Any:
    """JSON-ready, and equal where the numbers are."""
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return round(value, 8) if isinstance(value, float) else value
