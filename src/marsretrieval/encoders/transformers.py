"""Shared functions of the transformers encoders: files, strict loading and image processing."""

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

# Buffers in old checkpoints that the model computes from its configuration.
_DERIVED = ("position_ids", "rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")

# Fields of an image processor that determine the pixels.
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
    """Local folder in the layout of `save_pretrained`.

    Attributes:
        folder: The folder.
        revision: Commit of the repository. None for a local checkpoint.
    """

    folder: Path
    revision: str | None = None


def find_files(spec: ModelSpec, options: LoadOptions) -> Files:
    """Find the files of a model: the user's checkpoint or the hub's.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The files.

    Raises:
        ModelLoadError: If they cannot be found.
    """
    if options.checkpoint is not None:
        if not options.checkpoint.is_dir():
            raise ModelLoadError(
                f"{spec.id}: {options.checkpoint} is not a folder",
                remedy="Give the folder that save_pretrained wrote (config.json, *.safetensors).",
            )
        return Files(options.checkpoint)
    if spec.library == "hf" and Path(spec.repository).is_dir():
        return Files(Path(spec.repository))
    folder, revision = snapshot(spec, _PATTERNS, offline=options.offline)
    if not any(folder.glob("*.safetensors")):
        folder, revision = snapshot(spec, (*_PATTERNS, "*.bin"), offline=options.offline)
    return Files(folder, revision)


def import_transformers() -> Any:
    """Import transformers, after making torchvision importable.

    Returns:
        The module.

    Raises:
        MissingDependencyError: If transformers is not installed.
    """
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
    """Load a model, and raise if a weight is missing, unexpected or of another shape.

    The library itself initializes missing weights at random and ignores unexpected ones.

    Args:
        model_class: Class of transformers.
        folder: Folder of the model.
        dtype: Precision of the weights.
        unused: Prefixes of weights that do not affect the vectors and are not checked.
        **arguments: Other arguments of `from_pretrained`.

    Returns:
        The model.

    Raises:
        ModelLoadError: If the weights do not match. Names some of them.
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
            remedy="Check that the folder is complete and of this architecture, and that config "
            "and weights are of one revision.",
        )
    return model


def load_image_processor(
    folder: Path,
    *,
    backend: str = "pil",
    limits: Mapping[str, int] | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Load the image processor of a checkpoint.

    Pillow resizes the images, as for the published vectors, unless the processor exists for
    torchvision only.

    Args:
        folder: Folder of the model.
        backend: "pil" or "torchvision".
        limits: Pixel limits (min_pixels, max_pixels).
        trust_remote_code: Run code from the folder.

    Returns:
        The image processor.

    Raises:
        ModelLoadError: If it cannot be loaded.
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
    """Run the image processor on one RGB image, which gives tensors of a batch of one.

    Attributes:
        processor: The image processor of transformers.
    """

    def __init__(self, processor: Any) -> None:
        """Wrap an image processor.

        Args:
            processor: The image processor of transformers.
        """
        self.processor = processor

    def __call__(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """Preprocess an image.

        Args:
            image: Image of any mode.

        Returns:
            Tensors by name, each a batch of one.
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return dict(self.processor(images=[rgb], return_tensors="pt"))

    @property
    def description(self) -> dict[str, Any]:
        """JSON-ready description of what determines the pixels."""
        fields = self.processor.to_dict()
        kind = type(self.processor).__name__
        return {"processor": kind} | {
            key: _to_json(fields[key]) for key in _PIXEL_KEYS if fields.get(key) is not None
        }

    # A new worker process unpickles this before anything imports torchvision.
    def __getstate__(self) -> bytes:
        return pickle.dumps(self.processor)

    def __setstate__(self, state: bytes) -> None:
        ensure_torchvision()
        self.processor = pickle.loads(state)


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Silence transformers inside a block, and convert its exceptions to ModelLoadError.

    Args:
        path: Folder that is loaded, for the message.

    Raises:
        MissingDependencyError: If a tokenizer without a tokenizer.json needs sentencepiece.
        ModelLoadError: If anything else in the block fails.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:  # safetensors, json, torch and transformers raise different errors
        if isinstance(error, ImportError) and "sentencepiece" in str(error).lower():
            raise MissingDependencyError(
                "sentencepiece", "models", needed_for=f"{path}: its tokenizer (no tokenizer.json)"
            ) from error
        raise ModelLoadError(
            f"{path}: cannot be loaded ({_first_line(error)})",
            remedy=TRUST
            if asks_for_trust(error)
            else "Check that the folder is complete and of this architecture.",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _to_json(value: Any) -> Any:
    """Convert tuples, enums and the library's size objects to JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, (str, bool, float)):
        return value
    return int(value)
