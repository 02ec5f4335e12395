"""The CLIP family through open_clip: DFN2B, SigLIP, SigLIP2, PE-Core, MarScope."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from marsretrieval.encoders._hub import snapshot
from marsretrieval.encoders._protocol import Features, TextRole
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.encoders._torch import TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders._torchvision import ensure_torchvision
from marsretrieval.errors import ModelLoadError

__all__ = ["OpenClipEncoder", "load"]

_TEXTS_A_BATCH = 256
# Safetensors first; a pickle is read with weights_only and only where there is nothing else.
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "spiece.model")


@dataclass(frozen=True, slots=True)
class _Weights:
    """What open_clip is asked for: a model name, perhaps a file, and the commit it is of."""

    name: str
    file: str | None = None
    revision: str | None = None


def load(record: ModelRecord, options: LoadOptions) -> OpenClipEncoder:
    """Load from the hub, from a local open_clip folder, or from a training checkpoint.

    `settings`: architecture (for a checkpoint file), image_size (forced), preprocess (what the
    published weights come with; checked), folder (weights that this package brings), seed (an
    untrained model). Raises ModelLoadError when weights are missing, unexpected or unreadable.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=record.settings.get("gpu_dtype", "float32"))
    ensure_torchvision()
    import open_clip
    from safetensors import SafetensorError

    weights = _weights(record, options)
    seed = record.settings.get("seed")
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            model = open_clip.create_model(
                weights.name,
                pretrained=weights.file,
                force_image_size=record.settings.get("image_size"),
                load_weights=seed is None,
                require_pretrained=seed is None,
                weights_only=True,
            )
        tokenizer = open_clip.get_tokenizer(_tokenizer_name(weights.name))
    except (
        RuntimeError, OSError, ValueError, KeyError, EOFError, TypeError, AttributeError,
        pickle.UnpicklingError, SafetensorError,
    ) as error:  # fmt: skip
        raise _load_error(record, options, weights, error) from error
    _check_preprocess(record, options, model)
    return OpenClipEncoder(record, options, model, tokenizer, device, dtype, weights.revision)


class OpenClipEncoder(TorchEncoder):
    """encode_image and encode_text of an open_clip model, with its own preprocessing."""

    def __init__(
        self,
        record: ModelRecord,
        options: LoadOptions,
        model: torch.nn.Module,
        tokenizer: Any,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        super().__init__(record, options, model, device=device, dtype=dtype, revision=revision)
        self._tokenizer = tokenizer
        self._settings = dict(model.visual.preprocess_cfg)  # type: ignore[arg-type, union-attr]
        self._transform = image_transform_v2(PreprocessCfg(**self._settings), is_train=False)

        # A checkpoint of one's own may be of another width than the catalogue says.
        self._dimension = int(self.encode_images([Image.new("RGB", (32, 32))]).shape[1])

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        transform: Callable[[Image.Image], Features] = self._transform
        return transform

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, (tuple, list)) else value
            for key, value in self._settings.items()
        }

    def _embed_images(self, features: Sequence[Features]) -> torch.Tensor:
        batch = torch.stack(list(features)).to(self.device, self.dtype)
        vectors: torch.Tensor = self.model.encode_image(batch)  # type: ignore[operator]
        return vectors

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), _TEXTS_A_BATCH):
            tokens = self._tokenizer(list(texts[start : start + _TEXTS_A_BATCH]))
            parts.append(self.model.encode_text(tokens.to(self.device)))  # type: ignore[operator]
        return torch.cat(parts)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        limit = int(self._tokenizer.context_length)
        return sum(self._length(text) > limit for text in texts)

    def _length(self, text: str) -> int:
        """Tokens of a text, start and end included, before it is cut."""
        clean = self._tokenizer.clean_fn(text)
        if hasattr(self._tokenizer, "encode"):  # open_clip's own: encode() adds no ends
            return len(self._tokenizer.encode(clean)) + 2
        return len(self._tokenizer.tokenizer(clean)["input_ids"])


def _weights(record: ModelRecord, options: LoadOptions) -> _Weights:
    if options.checkpoint is not None:
        return _local(record, options.checkpoint)
    if "folder" in record.settings:
        return _Weights(f"local-dir:{Path(__file__).parent / record.settings['folder']}")
    files = ("open_clip_config.json", *_TOKENIZER)
    folder, revision = snapshot(record, (*files, _WEIGHTS[0]), offline=options.offline)
    for name in _WEIGHTS:
        if not _has_weights(folder):
            folder, revision = snapshot(record, (*files, name), offline=options.offline)
    return _Weights(f"local-dir:{folder}", revision=revision)


def _has_weights(folder: Path) -> bool:
    return any((folder / name).exists() for name in _WEIGHTS)


def _local(record: ModelRecord, path: Path) -> _Weights:
    if path.is_dir():
        if not (path / "open_clip_config.json").exists():
            raise ModelLoadError(
                f"{path}: no open_clip_config.json here",
                remedy="Give a folder that open_clip's push_to_hf_hub layout has, or the "
                "checkpoint file itself (.pt or .safetensors).",
            )
        return _Weights(f"local-dir:{path}")
    architecture = record.settings.get("architecture")
    if architecture is None:
        raise ModelLoadError(f"{record.id}: takes a folder as --checkpoint, not a file: {path}")
    if path.stat().st_size == 0:
        raise ModelLoadError(f"{path}: an empty file")
    return _Weights(architecture, str(path))


def _tokenizer_name(model: str) -> str:
    """open_clip takes a local folder for the tokenizer too, where it may hold none; then the one
    that the config names is meant."""
    import json

    folder = Path(model.removeprefix("local-dir:"))
    if not model.startswith("local-dir:") or any(folder.glob("tokenizer*")):
        return model
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    named = config.get("model_cfg", {}).get("text_cfg", {}).get("hf_tokenizer_name")
    return f"hf-hub:{named}" if named else model


def _check_preprocess(record: ModelRecord, options: LoadOptions, model: Any) -> None:
    """Published weights must come with the preprocessing that the catalogue says."""
    if options.checkpoint is not None:
        return
    found = model.visual.preprocess_cfg
    wrong = {
        key: (value, found.get(key))
        for key, value in record.settings.get("preprocess", {}).items()
        if _plain(found.get(key)) != _plain(value)
    }
    if wrong:
        told = "; ".join(f"{key} {has} where {want} is known" for key, (want, has) in wrong.items())
        raise ModelLoadError(
            f"{record.id}: {record.repository} comes with other preprocessing: {told}",
            remedy="The repository may have changed: pin an earlier revision.",
        )


def _plain(value: Any) -> Any:
    return [round(float(each), 6) for each in value] if isinstance(value, (tuple, list)) else value


def _load_error(
    record: ModelRecord, options: LoadOptions, weights: _Weights, error: Exception
) -> ModelLoadError:
    where = options.checkpoint or weights.name
    if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
        return ModelLoadError(
            f"{record.id}: {where} holds pickled objects that are not plain weights",
            remedy="Loading them could run any code. Save its state_dict as safetensors once, "
            "on a machine where you trust the file.",
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("key(s) in state_dict" in line or "size mismatch" in line for line in lines):
        told = " ".join(line if len(line) < 300 else f"{line[:300]}..." for line in lines[1:4])
        return ModelLoadError(
            f"{record.id}: the weights of {where} do not fit: {told}",
            remedy=f"They must be of architecture {record.settings.get('architecture')}, whole, "
            "and in open_clip's naming.",
        )
    return ModelLoadError(
        f"{record.id}: {where} cannot be loaded ({lines[0] if lines else type(error).__name__})",
        remedy="Is the file whole, and a checkpoint of this architecture?",
    )
