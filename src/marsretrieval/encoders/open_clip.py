"""Load CLIP models through open_clip: DFN2B, SigLIP, SigLIP2, PE-Core, MarScope."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from marsretrieval.encoders.base import Features, LoadOptions, ModelSpec, TextRole
from marsretrieval.encoders.remote_code import TRUST, asks_for_trust, refuse_switches
from marsretrieval.encoders.torch_encoder import Inputs, TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import DataError, MissingDependencyError, ModelLoadError
from marsretrieval.io import Int64, JsonObject, from_json, read_json, sha256_json

_CONFIG = "open_clip_config.json"
_LOG = logging.getLogger(__name__)

# In order of preference: safetensors first. A pickle is read with weights_only.
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "spiece.model")
_NOT_WEIGHTS = (".npz", ".npy")  # open_clip does not load these strictly
_TEXTS_PER_BATCH = 256


def load(spec: ModelSpec, options: LoadOptions) -> OpenClipEncoder:
    """Load from the hub, from a local open_clip folder, or from a training checkpoint.

    `settings` of the spec: architecture (of a checkpoint file), image_size (forced, positions are
    resized), quick_gelu and preprocess (required by the published weights), activation (recorded),
    folder (weights in this package), file (weights in the repository, in place of open_clip's
    layout), seed (an untrained model), gpu_dtype. They do not apply to a folder of the user. The
    name ``oc:ARCHITECTURE/PRETRAINED`` also has pretrained (repository and file), tags and
    open_activation.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        ModelLoadError: If weights are missing, unexpected or unreadable, or if the repository
            contains another model than the registry describes.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=spec.gpu_dtype)
    ensure_torchvision()
    source = find_source(spec, options)
    try:
        if not options.trust_remote_code:
            refuse_code(source)
        model = _create(spec, source)
        tokenizer = load_tokenizer(spec, options, source)
        config = source.config
    except (MissingDependencyError, ModelLoadError):
        raise
    except Exception as error:  # torch, safetensors, json and timm raise different errors
        raise load_error(spec, options, source, error) from error
    encoder = OpenClipEncoder(
        spec, options, model, tokenizer, device=device, dtype=dtype, revision=source.revision
    )
    if source.published and not spec.library:
        _require_described(spec, encoder)
        _note_differences(spec, config)
    return encoder


class OpenClipEncoder(TorchEncoder):
    """Encoder for an open_clip model with its own preprocessing."""

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: torch.nn.Module,
        tokenizer: Any,
        *,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        """Wrap a loaded model, and embed one image to measure the dimension.

        Args:
            spec: Spec of the model.
            options: Load options.
            model: The open_clip model.
            tokenizer: Its tokenizer.
            device: Target device.
            dtype: Target precision.
            revision: Commit of the loaded repository.
        """
        super().__init__(spec, options, model, device=device, dtype=dtype, revision=revision)
        self._tokenizer = tokenizer
        self._tokenizer_identity = tokenizer_identity(tokenizer)
        self._settings = dict(model.visual.preprocess_cfg)  # type: ignore[arg-type, union-attr]
        self._preprocess = OpenClipPreprocess(self._settings)
        # A user's checkpoint may have another dimension than the spec.
        self._dimension = int(self.encode_images([Image.new("RGB", (32, 32))]).shape[1])

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a text."""
        return int(self._tokenizer.context_length)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return {key: _to_json(value) for key, value in self._settings.items()}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready identity of the vectors. Has the activation if the spec states one."""
        if "activation" not in self.spec.settings:
            return super().fingerprint
        activations = {
            {"QuickGELU": "quickgelu", "GELU": "gelu"}.get(type(module).__name__)
            for module in self.model.modules()
        }
        activation = "+".join(sorted(name for name in activations if name))
        return {**super().fingerprint, "activation": activation}

    @property
    def prompts(self) -> dict[str, Any]:
        """Prompt preset and tokenizer. No prompt is added to a text."""
        return {**super().prompts, "tokenizer": self._tokenizer_identity}

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"image": torch.stack(list(features))}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        vectors: torch.Tensor = self.model.encode_image(**inputs)  # type: ignore[operator]
        return vectors

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            tokens = self._tokenizer(list(texts[start : start + _TEXTS_PER_BATCH]))
            parts.append(self.model.encode_text(tokens.to(self.device)))  # type: ignore[operator]
        return torch.cat(parts)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the model's context length.

        Args:
            texts: The texts.
            role: Ignored: queries and captions have the same prompt.

        Returns:
            Number of truncated texts.
        """
        return sum(self._length(text) > self.context_length for text in texts)

    def _length(self, text: str) -> int:
        """Count the tokens of a text before truncation, including start and end."""
        clean = self._tokenizer.clean_fn(text)
        if hasattr(self._tokenizer, "encode"):  # open_clip's own: encode() omits start and end
            return len(self._tokenizer.encode(clean)) + 2
        return len(self._tokenizer.tokenizer(clean, verbose=False)["input_ids"])


class OpenClipPreprocess:
    """Picklable evaluation transform of open_clip.

    A process that unpickles it builds the transform again, after making torchvision importable.

    Attributes:
        accepts_grey: Whether an image of mode L gives the tensor of the same image in RGB, bit for
            bit. The transform resizes and crops all channels alike and converts to RGB after that;
            the exception is padding with a colour.
    """

    accepts_grey: bool

    def __init__(self, settings: dict[str, Any]) -> None:
        """Build the transform.

        Args:
            settings: Fields of open_clip's `PreprocessCfg`.
        """
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
        """Preprocess an image.

        Args:
            image: Image of mode RGB or L.

        Returns:
            Tensor of shape (3, height, width).
        """
        if image.mode != "L" or not self.accepts_grey:
            return self._transform(image)
        # Expand to three channels only for the normalization, which differs by channel.
        *resizing, _, to_tensor, normalize = self._transform.transforms
        for step in resizing:
            image = step(image)
        return normalize(to_tensor(image).expand(3, -1, -1))

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (self._settings,)


class _TextConfig(JsonObject, total=False):
    hf_tokenizer_name: str | None
    tokenizer_kwargs: dict[str, Any]
    tokenizer_mode: str | None
    context_length: Int64


class _ModelConfig(JsonObject, total=False):
    text_cfg: _TextConfig


class _Config(JsonObject):
    model_cfg: _ModelConfig


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """Weights for open_clip: a folder in its own layout, or an architecture and a file.

    Attributes:
        folder: Folder with configuration and weights.
        architecture: Name of an open_clip architecture.
        file: Checkpoint file.
        revision: Commit of the repository.
        published: Whether the weights are those of the spec's repository, to which the spec's
            settings apply.
    """

    folder: Path | None = None
    architecture: str | None = None
    file: Path | None = None
    revision: str | None = None
    published: bool = False

    @property
    def name(self) -> str:
        """Model name for open_clip."""
        return f"local-dir:{self.folder}" if self.folder else str(self.architecture)

    @property
    def config(self) -> Mapping[str, Any]:
        """`model_cfg` and `preprocess_cfg` of the folder or the library."""
        if self.folder is not None:
            try:
                value = read_json(self.folder / _CONFIG)
                return from_json(_Config, value, source=self.folder / _CONFIG)
            except DataError as error:
                raise ModelLoadError(error.message, remedy=error.remedy) from error
        import open_clip

        return {"model_cfg": open_clip.get_model_config(self.architecture) or {}}


def find_source(spec: ModelSpec, options: LoadOptions) -> CheckpointSource:
    """Find the weights of a model: a checkpoint, a folder of this package, or the repository.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The weights.

    Raises:
        ModelLoadError: If there are no weights.
    """
    if options.checkpoint is not None:
        return _checkpoint(spec, options.checkpoint)
    if "folder" in spec.settings:
        return CheckpointSource(folder=Path(__file__).parent / spec.settings["folder"])
    if spec.library == "hf" and Path(spec.repository).is_dir():
        return _folder(spec, Path(spec.repository))
    from marsretrieval.encoders.hub import first_file, snapshot

    if "tags" in spec.settings:  # an architecture alone
        tags = spec.settings["tags"]
        raise ModelLoadError(
            f"{spec.id} names an architecture of open_clip without weights",
            remedy=f"Give --checkpoint FILE, or published weights: {spec.id}/TAG, TAG is one of "
            f"{', '.join(tags)}."
            if tags
            else "Give --checkpoint FILE.",
        )
    names: Sequence[str] = ()
    if "pretrained" in spec.settings:  # "namespace/name/" or "namespace/name/file"
        name = Path(spec.settings["pretrained"].rpartition("/")[2])
        names = (f"{name.stem}.safetensors", str(name)) if name.name else _WEIGHTS
    elif "file" in spec.settings:
        names = (spec.settings["file"],)
    if names:
        file, revision = first_file(spec, names, offline=options.offline)
        return CheckpointSource(
            architecture=spec.settings["architecture"], file=file, revision=revision, published=True
        )
    patterns = (_CONFIG, *_TOKENIZER)
    for weights in _WEIGHTS:
        folder, revision = snapshot(spec, (*patterns, weights), offline=options.offline)
        if any((folder / name).exists() for name in _WEIGHTS):
            return CheckpointSource(folder=folder, revision=revision, published=True)
    raise ModelLoadError(
        f"{spec.id}: {spec.repository} holds none of {', '.join(_WEIGHTS)}",
        remedy="With --offline only the cache is used: run once without it.",
    )


def load_tokenizer(spec: ModelSpec, options: LoadOptions, source: CheckpointSource) -> Any:
    """Load the tokenizer in the folder of the weights, or the one that the configuration names.

    open_clip itself ignores `--offline` and asks the hub for tokenizers outside the folder.

    Args:
        spec: The model.
        options: Load options.
        source: The weights.

    Returns:
        A tokenizer of open_clip.

    Raises:
        MissingDependencyError: If it needs sentencepiece.
        ModelLoadError: If it cannot be loaded.
    """
    import open_clip

    from marsretrieval.encoders.transformers import loading

    text: Mapping[str, Any] = source.config.get("model_cfg", {}).get("text_cfg", {})
    named = text.get("hf_tokenizer_name")
    if not named:
        return open_clip.get_tokenizer(source.name)
    folder = source.folder
    if folder is None or not any(folder.glob("tokenizer*")):
        from marsretrieval.encoders.hub import snapshot

        folder, _ = snapshot(spec, _TOKENIZER, offline=options.offline, repository=named)
    arguments = {
        **text.get("tokenizer_kwargs", {}),
        "trust_remote_code": options.trust_remote_code,
    }
    with loading(folder):
        return open_clip.tokenizer.HFTokenizer(
            str(folder),
            context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=text.get("tokenizer_mode"),
            **arguments,
        )


def refuse_code(source: CheckpointSource) -> None:
    """Raise if the folder's configuration enables the execution of code.

    Args:
        source: The weights.

    Raises:
        RemoteCodeError: If it does.
    """
    if source.folder is not None:
        refuse_switches(source.config, source.folder / _CONFIG)


def tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """Describe a tokenizer for the fingerprint.

    Args:
        tokenizer: A tokenizer of open_clip.

    Returns:
        JSON-ready: class, context length, and the hash of a Hugging Face vocabulary.
    """
    identity = {
        "class": type(tokenizer).__name__,
        "context_length": int(tokenizer.context_length),
    }
    backend = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
    if backend is not None:
        # Padding and truncation depend on the last call.
        rules = json.loads(backend.to_str())
        identity["sha256"] = sha256_json({**rules, "padding": None, "truncation": None})
    return identity


def load_error(
    spec: ModelSpec, options: LoadOptions, source: CheckpointSource, error: Exception
) -> ModelLoadError:
    """Convert an error of open_clip, torch or safetensors to one line and a remedy.

    Args:
        spec: The model.
        options: Load options.
        source: The weights.
        error: The original error.

    Returns:
        The error to raise.
    """
    path = options.checkpoint or source.folder
    text = str(error)
    if held := re.search(r"GLOBAL (\S+) was not an allowed|whose module (\S+) is blocked", text):
        return ModelLoadError(
            f"{spec.id}: {path} holds pickled objects ({held[1] or held[2]}), not only weights",
            remedy="Loading them could run arbitrary code. On a machine where you trust the "
            "file, save "
            "its state_dict as .safetensors once (see docs/MODELS.md).",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("key(s) in state_dict" in line or "size mismatch" in line for line in lines):
        details = " ".join(line if len(line) < 300 else f"{line[:300]}..." for line in lines[1:4])
        architecture = source.architecture or f"the architecture of {_CONFIG}"
        return ModelLoadError(
            f"{spec.id}: the weights of {path} do not fit: {details}",
            remedy=f"They must be complete, of {architecture}, with open_clip's parameter names.",
        )
    if asks_for_trust(error):
        return ModelLoadError(f"{spec.id}: {path} needs code of its own", remedy=TRUST)
    return ModelLoadError(
        f"{spec.id}: {path} cannot be loaded ({lines[0] if lines else type(error).__name__})",
        remedy="Check that the file is complete and a checkpoint of this architecture.",
    )


def _checkpoint(spec: ModelSpec, path: Path) -> CheckpointSource:
    if path.is_dir():
        return _folder(spec, path)
    architecture = spec.settings.get("architecture")
    if architecture is None:
        raise ModelLoadError(
            f"{spec.id}: expects a folder as --checkpoint, not a file: {path}",
            remedy="Name the folder that contains the file.",
        )
    if not path.is_file():
        raise ModelLoadError(
            f"{spec.id}: {path}: no such file or folder", remedy="Check the path of --checkpoint."
        )
    if spec.settings.get("open_activation"):
        # Weights trained with one activation load into the other, and give wrong vectors.
        tags = spec.settings["tags"]
        raise ModelLoadError(
            f"{spec.id}: {path} does not state its activation, and {architecture} exists with GELU "
            "and with QuickGELU",
            remedy="Name the weights that its training started from, such as "
            f"{spec.id}/{tags[-1] if tags else 'TAG'}, or the activation: {spec.id}-quickgelu "
            f"(OpenAI's code), {spec.id}-gelu (open_clip's default, e.g. RemoteCLIP).",
        )
    if path.stat().st_size == 0:
        raise ModelLoadError(
            f"{spec.id}: {path} is an empty file", remedy="Copy or download the checkpoint again."
        )
    if path.suffix in _NOT_WEIGHTS:
        raise ModelLoadError(
            f"{spec.id}: {path} is a numpy archive",
            remedy="Give a .safetensors or .pt checkpoint in open_clip's naming.",
        )
    return CheckpointSource(architecture=architecture, file=path)


def _folder(spec: ModelSpec, folder: Path) -> CheckpointSource:
    """Validate a user's folder: a configuration and one file of weights."""
    if not (folder / _CONFIG).exists():
        raise ModelLoadError(
            f"{spec.id}: {folder} has no {_CONFIG}",
            remedy="Give a folder as open_clip's push_to_hf_hub makes it, or the checkpoint file "
            "itself (.pt or .safetensors).",
        )
    weight_files = sorted(
        path.name for kind in ("*.safetensors", "*.bin", "*.pth") for path in folder.glob(kind)
    )
    if len(weight_files) != 1 and not any(name in weight_files for name in _WEIGHTS):
        raise ModelLoadError(
            f"{spec.id}: {folder} holds {', '.join(weight_files) or 'no weights'}"
            + (": ambiguous" if weight_files else ""),
            remedy=f"Name the weights {_WEIGHTS[0]}, or give a checkpoint file.",
        )
    return CheckpointSource(folder=folder)


def _create(spec: ModelSpec, source: CheckpointSource) -> torch.nn.Module:
    """Create the model and load all its weights."""
    import open_clip

    settings = spec.settings
    seed = settings.get("seed")
    # For a bare file open_clip would use OpenAI's preprocessing.
    registered = source.published or source.file is not None
    with torch.random.fork_rng(devices=[]), _quiet(seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return open_clip.create_model(  # type: ignore[no-any-return]
            source.name,
            pretrained=str(source.file) if source.file else None,
            force_image_size=settings.get("image_size") if registered else None,
            force_quick_gelu=registered and settings.get("quick_gelu", False),
            force_preprocess_cfg=settings.get("preprocess") if registered else None,
            load_weights=seed is None,
            require_pretrained=seed is None,
            weights_only=True,
        )


@contextmanager
def _quiet(enabled: bool) -> Iterator[None]:
    """Silence open_clip's warning about random weights if they are intended."""
    if enabled:
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        if enabled:
            logging.disable(logging.NOTSET)


def _require_described(spec: ModelSpec, encoder: OpenClipEncoder) -> None:
    """Raise unless published weights are those of the model in the registry."""
    size = _to_json(encoder.preprocessing["size"])
    pairs = {
        "dimension": (encoder.dimension, spec.dimension),
        "context_length": (encoder.context_length, spec.context_length),
        "image_size": (size[0] if isinstance(size, list) else size, spec.image_size),
    }
    wrong = [f"{key} {has}, not {want}" for key, (has, want) in pairs.items() if has != want]
    if wrong:
        raise ModelLoadError(
            f"{spec.id}: {spec.repository} is not the model of the registry: " + "; ".join(wrong),
            remedy="The repository may have changed: fetch an earlier revision, and give it as "
            "--checkpoint DIR.",
        )


def _note_differences(spec: ModelSpec, config: Mapping[str, Any]) -> None:
    """Report where the repository's configuration differs from the published evaluation.

    The values of the registry are used, and are part of the fingerprint.
    """
    preprocess_config = config.get("preprocess_cfg", {})
    pairs = {
        key: (preprocess_config[key], value)
        for key, value in spec.settings.get("preprocess", {}).items()
        if key in preprocess_config
    }
    if "quick_gelu" in spec.settings:
        gelu = config.get("model_cfg", {}).get("quick_gelu", False)
        pairs["quick_gelu"] = (gelu, spec.settings["quick_gelu"])
    for key, (theirs, ours) in pairs.items():
        if _to_json(theirs) != _to_json(ours):
            _LOG.warning(
                "%s: %s states %s %s; %s is used, as in the registry",
                spec.id, spec.repository, key, _to_json(theirs), _to_json(ours),
            )  # fmt: skip


def _to_json(value: Any) -> Any:
    """Convert to JSON types; floats are rounded so that equal numbers compare equal."""
    if isinstance(value, (tuple, list)):
        return [_to_json(item) for item in value]
    return round(value, 8) if isinstance(value, float) else value
