"""Load image encoders through timm: ``timm:NAME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from marsretrieval.encoders.base import Features, LoadOptions, ModelSpec
from marsretrieval.encoders.hub import first_file, snapshot
from marsretrieval.encoders.torch_encoder import (
    Inputs,
    TorchImageEncoder,
    choose_device,
    choose_dtype,
)
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import MarsRetrievalError, ModelLoadError
from marsretrieval.io import read_json

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PIXEL_KEYS = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def load(spec: ModelSpec, options: LoadOptions) -> TimmEncoder:
    """Load a model with timm: published weights, a checkpoint, or a folder in timm's layout.

    Its vectors are those of timm without a classifier (``num_classes=0``): the class token, or
    what the model pools. `settings` of the spec: architecture (name of timm), published (whether
    timm names a repository), layout ("hub": a repository or folder with its own config.json).

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        ModelLoadError: If weights are missing, unexpected or unreadable, or the model does not
            return one vector per image.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=spec.gpu_dtype)
    ensure_torchvision()
    file, config, revision = find_weights(spec, options)
    try:
        model = _create(spec, file, config, own_classes=options.checkpoint is not None)
    except MarsRetrievalError:
        raise
    except Exception as error:  # torch, safetensors and timm raise different errors
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelLoadError(
            f"{spec.id}: {file} cannot be loaded ({' '.join(lines[:2])[:300]})",
            remedy="The weights must be complete and of this architecture, with timm's parameter "
            "names; a pickle may hold nothing but weights.",
        ) from error
    return TimmEncoder(spec, options, model, device=device, dtype=dtype, revision=revision)


class TimmEncoder(TorchImageEncoder):
    """Encoder for an image model of timm with its own preprocessing."""

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: torch.nn.Module,
        *,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            spec: Spec of the model.
            options: Load options.
            model: The model of timm, without a classifier.
            device: Target device.
            dtype: Target precision.
            revision: Commit of the loaded repository.

        Raises:
            ModelLoadError: If the model does not return one vector per image.
        """
        super().__init__(spec, options, model, device=device, dtype=dtype, revision=revision)
        import timm.data

        settings = timm.data.resolve_model_data_config(model)
        self._settings = {key: settings[key] for key in _PIXEL_KEYS if key in settings}
        self._preprocess = TimmPreprocess(self._settings)
        blank = self._preprocess(Image.new("RGB", (32, 32)))[None].to(device, self.dtype)
        with torch.inference_mode():
            shape = tuple(self.model(blank).shape)
        if len(shape) != 2:
            raise ModelLoadError(
                f"{spec.id} returns {shape[1:]} for an image, where one vector is expected",
                remedy="Choose a model of timm that pools its features.",
            )
        self._dimension = int(shape[1])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self._settings.items()
        }

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"x": torch.stack(list(features))}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        vectors: torch.Tensor = self.model(inputs["x"])
        return vectors


class TimmPreprocess:
    """Picklable evaluation transform of timm."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Build the transform.

        Args:
            settings: Size, interpolation, crop, mean and standard deviation.
        """
        ensure_torchvision()
        from timm.data import create_transform

        self._settings = dict(settings)
        self._transform: Any = create_transform(**self._settings, is_training=False)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Preprocess an image.

        Args:
            image: Image of any mode.

        Returns:
            Tensor of shape (3, height, width).
        """
        tensor: torch.Tensor = self._transform(image.convert("RGB"))
        return tensor

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (self._settings,)


def find_weights(
    spec: ModelSpec, options: LoadOptions
) -> tuple[Path, Mapping[str, Any] | None, str | None]:
    """Find the weights of a model: the user's, those of a folder, or the hub's.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The file, the content of config.json if the layout has one, and the commit.

    Raises:
        ModelLoadError: If there are no weights.
    """
    checkpoint = options.checkpoint
    if checkpoint is not None and checkpoint.is_file():
        return checkpoint, _layout(spec, options), None
    is_folder = spec.library == "hf" and Path(spec.repository).is_dir()
    folder = checkpoint or (Path(spec.repository) if is_folder else None)
    if folder is not None:
        file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
        if file is None:
            raise ModelLoadError(
                f"{spec.id}: {folder} holds none of {', '.join(_WEIGHTS)}",
                remedy="Give a checkpoint file (.safetensors, .pt) or such a folder.",
            )
        return file, _layout(spec, options), None
    if spec.library == "timm" and not spec.settings.get("published"):
        raise ModelLoadError(
            f"{spec.id}: timm names no repository with its weights",
            remedy="Give --checkpoint FILE, or a name with a tag: marsretrieval models timm:",
        )
    file, revision = first_file(spec, _WEIGHTS, offline=options.offline)
    return file, _layout(spec, options), revision


def _layout(spec: ModelSpec, options: LoadOptions) -> Mapping[str, Any] | None:
    """Read config.json if the model is known by its repository or folder, not by timm's name."""
    if spec.settings.get("layout") != "hub":
        return None
    folders = (options.checkpoint, Path(spec.repository))
    folder = next((path for path in folders if path is not None and path.is_dir()), None)
    if folder is None:
        folder, _ = snapshot(spec, ("config.json",), offline=options.offline)
    config: Mapping[str, Any] = read_json(folder / "config.json")
    return config


def _create(
    spec: ModelSpec, file: Path, config: Mapping[str, Any] | None, *, own_classes: bool
) -> torch.nn.Module:
    """Create the model with its classifier, load all weights strictly, then drop the classifier.

    Without the classifier, timm would accept missing weights.
    """
    import timm
    from timm.models import load_state_dict

    if config is None:
        name = str(spec.settings["architecture"])
        published = timm.get_pretrained_cfg(name)
        settings: dict[str, Any] = {} if published is None else published.to_dict()
        arguments: Mapping[str, Any] = {}
    else:
        name = str(config["architecture"])
        settings = {**config.get("pretrained_cfg", {}), "num_classes": config.get("num_classes", 0)}
        arguments = {"global_pool": config.get("global_pool"), **config.get("model_args", {})}
    is_flax = file.suffix == ".npz"  # which a model of timm reads itself
    settings |= {"file": str(file), "source": "timm", "custom_load": is_flax}
    if own_classes and not is_flax:
        classifier = settings.get("classifier") or "head"
        state = load_state_dict(str(file))
        weight = state.get(f"{classifier if isinstance(classifier, str) else classifier[0]}.weight")
        settings["num_classes"] = 0 if weight is None else int(weight.shape[0])
    model: torch.nn.Module = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay=settings,
        num_classes=settings.get("num_classes", 1000),
        **arguments,
    )
    model.reset_classifier(0)  # type: ignore[operator]
    return model
