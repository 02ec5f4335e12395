"""Load image models through sentence-transformers: ``st:<repository or folder>``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from marsretrieval.encoders.base import Features, LoadOptions, ModelSpec, TextRole
from marsretrieval.encoders.hub import snapshot
from marsretrieval.encoders.remote_code import (
    TRUST,
    asks_for_trust,
    require_safe_sentence_transformers,
)
from marsretrieval.encoders.torch_encoder import Inputs, TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import MissingDependencyError, ModelLoadError, UsageError

_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_BATCH_SIZE = 32


def load(spec: ModelSpec, options: LoadOptions) -> SentenceTransformersEncoder:
    """Load a model folder that sentence-transformers wrote, from the hub or from the disk.

    `settings` of the spec: refused_dtypes (precisions that overflow), keep_normalizer (the text
    normalizer of tokenizer.json, which transformers replaces), gpu_dtype.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        MissingDependencyError: If sentence-transformers is not installed.
        ModelLoadError: If the model cannot be loaded or embeds no images.
        UsageError: If the model does not work in the precision.
    """
    device = choose_device(options.device)
    on_gpu = str(spec.settings.get("gpu_dtype", "bfloat16"))
    dtype = choose_dtype(options.dtype, device, on_gpu=on_gpu)
    if options.dtype in spec.settings.get("refused_dtypes", ()):
        raise UsageError(
            f"{spec.id} overflows in {options.dtype}", remedy="Use --dtype bfloat16 or float32."
        )
    ensure_torchvision()
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "sentence-transformers", "st", needed_for=f"model {spec.id}"
        ) from error
    if not options.trust_remote_code:
        require_safe_sentence_transformers(spec.id)
    folder, revision = _folder(spec, options)
    try:
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=options.offline,
            trust_remote_code=options.trust_remote_code,
        )
    except Exception as error:  # its modules use many libraries and may raise anything
        first = str(error).strip().split("\n")[0]
        raise ModelLoadError(
            f"{spec.id}: sentence-transformers cannot load {folder} ({first})",
            remedy=f"It needs code from its repository. {TRUST}"
            if asks_for_trust(error)
            else "Check that the folder is complete and was written by sentence-transformers.",
        ) from error
    if "image" not in _modalities(model):
        raise ModelLoadError(
            f"{spec.id}: a model of {', '.join(sorted(_modalities(model)))} only",
            remedy="Choose a model that accepts images.",
        )
    if spec.settings.get("keep_normalizer"):
        _restore_normalizer(model, folder)
    return SentenceTransformersEncoder(spec, options, model, device, dtype, revision)


class SentenceTransformersEncoder(TorchEncoder):
    """Encoder for a sentence-transformers model, with the prompts that its authors saved.

    Images and captions use `encode_document`, queries `encode_query`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: Any,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            spec: Spec of the model.
            options: Load options.
            model: The SentenceTransformer.
            device: Target device.
            dtype: Target precision.
            revision: Commit of the loaded repository.
        """
        super().__init__(spec, options, model, device=device, dtype=dtype, revision=revision)
        self._encode = model
        self._preprocess = _return_unchanged
        # Of a vector, since a model may project its tokens to another width than it states.
        with torch.inference_mode():
            self._dimension = int(self._run(model.encode_document, ["a"]).shape[-1])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return {"by": "the model's own sentence-transformers modules"}

    @property
    def prompts(self) -> dict[str, Any]:
        """JSON-ready prompts that are saved with the model."""
        return {"preset": "the model's own", "saved": dict(self._encode.prompts or {})}

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"images": list(features)}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        return self._run(self._encode.encode_document, inputs["images"])

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        encode = self._encode.encode_query if role == "query" else self._encode.encode_document
        return self._run(encode, list(texts))

    def _run(self, encode: Callable[..., Any], items: list[Any]) -> torch.Tensor:
        vectors: torch.Tensor = encode(
            items,
            batch_size=_BATCH_SIZE,
            convert_to_tensor=True,
            show_progress_bar=False,
            device=str(self.device),
        )
        return vectors


def _return_unchanged(image: Image.Image) -> Image.Image:
    return image


def _restore_normalizer(model: Any, folder: Path) -> None:
    """Use the text normalizer in tokenizer.json, as when the model was trained.

    transformers from 5.18 rebuilds it by the tokenizer's class and so drops rules that are not of
    the class, for example the removal of a newline at the end.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelLoadError(
            f"{folder} has no tokenizer.json, which holds rules for texts",
            remedy="Check that the folder is complete.",
        )
    processor = model[0].processor
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.backend_tokenizer.normalizer = Tokenizer.from_file(str(file)).normalizer


def _modalities(model: Any) -> set[str]:
    return {modality for modality in model.modalities if isinstance(modality, str)}


def _folder(spec: ModelSpec, options: LoadOptions) -> tuple[Path, str | None]:
    """Return the folder of the model, and its commit if it comes from the hub."""
    for folder in (options.checkpoint, Path(spec.repository)):
        if folder is not None and folder.is_dir():
            return folder, None
    return snapshot(spec, _FILES, offline=options.offline)
