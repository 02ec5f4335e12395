"""What the transformers families share: files, strict loading, image processing as data."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from marsretrieval.encoders.base import LoadOptions, ModelSpec
from marsretrieval.encoders.hub import snapshot
from marsretrieval.encoders.remote_code import TRUST, asks_for_trust
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import MissingDependencyError, ModelLoadError

_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")

# Buffers that old checkpoints carry and that the config alone decides: no weights are lost.
_DERIVED = ("position_ids", "rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")

# What of an image processor decides the pixels; its other fields are bookkeeping.
_PIXEL_KEYS = (
    "size",
    "crop_size",
    "resample",
    "image_mean",
    "image_std",
    "rescale_factor",
    "do_resize",
    "do_center_crop",
    "do_pad",
    "patch_size",
    "merge_size",
    "temporal_patch_size",
    "image_grid_pinpoints",
)


@dataclass(frozen=True, slots=True)
class Files:
    """A local folder in the layout of `save_pretrained`, and the hub commit it is of."""

    folder: Path
    revision: str | None = None


def find_files(spec: ModelSpec, options: LoadOptions) -> Files:
    """The user's `--checkpoint` folder, or the hub's. Raises ModelLoadError."""
    if options.checkpoint is not None:
        if not options.checkpoint.is_dir():
            raise ModelLoadError(
                f"{spec.id}: {options.checkpoint} is not a folder",
                remedy="Give the folder that save_pretrained wrote (config.json, *.safetensors).",
            )
        return Files(options.checkpoint)
    folder, revision = snapshot(spec, _PATTERNS, offline=options.offline)
    if not any(folder.glob("*.safetensors")):
        folder, revision = snapshot(spec, (*_PATTERNS, "*.bin"), offline=options.offline)
    return Files(folder, revision)


def import_transformers() -> Any:
    """The library, with torchvision made importable first. Raises MissingDependencyError."""
    ensure_torchvision()
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "transformers", "models", needed_for="loading a model"
        ) from error
    return transformers


def load_strictly(
    model_class: Any,
    folder: Path,
    *,
    dtype: torch.dtype,
    unused: Iterable[str] = (),
    **arguments: Any,
) -> Any:
    """`model_class.from_pretrained` that refuses a file which does not fit to the last tensor.

    The library itself leaves missing weights random and drops surplus ones, with a log line only.
    `unused` names prefixes of weights that play no part in the vectors: they may be missing or
    surplus. Raises ModelLoadError naming some of the others.
    """
    ignored = tuple(unused)
    with loading(folder):
        model, info = model_class.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, local_files_only=True, **arguments
        )
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(ignored))
    surplus = sorted(
        key
        for key in info["unexpected_keys"]
        if not key.startswith(ignored) and not key.endswith(_DERIVED)
    )
    wrong = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    problems = [
        f"{len(names)} {what} (such as {', '.join(names[:3])})"
        for what, names in (("missing", missing), ("unexpected", surplus), ("misshapen", wrong))
        if names
    ]
    if problems:
        raise ModelLoadError(
            f"{folder}: weights do not fit {type(model).__name__}: {'; '.join(problems)}",
            remedy="Is the folder whole, and of this architecture? Of two revisions of one "
            "repository, config and weights must be of the same.",
        )
    return model


def load_image_processor(
    folder: Path,
    *,
    backend: str = "pil",
    limits: Mapping[str, int] | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The image processor of a checkpoint, with its `limits` (min_pixels, max_pixels) set.

    Resizing is Pillow's unless the processor exists for torchvision only: the published vectors
    were made with Pillow.
    """
    transformers = import_transformers()
    with loading(folder):
        return transformers.AutoImageProcessor.from_pretrained(
            folder,
            backend=backend,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            **(limits or {}),
        )


class ImagePreprocess:
    """RGB image to the tensors that the image processor makes of it, as a batch of one."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> dict[str, torch.Tensor]:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return dict(self.processor(images=[rgb], return_tensors="pt"))

    @property
    def description(self) -> dict[str, Any]:
        """JSON-ready: what decides the pixels."""
        fields = self.processor.to_dict()
        kind = type(self.processor).__name__
        return {"processor": kind} | {
            key: _to_json(fields[key]) for key in _PIXEL_KEYS if fields.get(key) is not None
        }

    # A worker process that starts afresh unpickles this before anything imports torchvision.
    def __getstate__(self) -> bytes:
        return pickle.dumps(self.processor)

    def __setstate__(self, state: bytes) -> None:
        ensure_torchvision()
        self.processor = pickle.loads(state)


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Keep the library's own bars and reports off the terminal, and turn its many exceptions
    into a ModelLoadError naming `what`."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:  # safetensors, json, torch and the library each have their own
        raise ModelLoadError(
            f"{path}: cannot be loaded ({_first_line(error)})",
            remedy=TRUST
            if asks_for_trust(error)
            else "Is the folder whole, and of this architecture?",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _to_json(value: Any) -> Any:
    """Tuples, enums and the library's own size objects as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, (str, bool, float)):
        return value
    return int(value)
