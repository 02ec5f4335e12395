"""Load dense image models of MTEB's registry: ``mteb:<name>``."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from marsretrieval.encoders.base import Features, LoadOptions, Modality, ModelSpec, TextRole
from marsretrieval.encoders.remote_code import (
    TRUST,
    RemoteCodeError,
    asks_for_trust,
    require_safe_sentence_transformers,
    set_attribute,
)
from marsretrieval.encoders.torch_encoder import Inputs, TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders.torch_imports import ensure_torchvision, import_mteb
from marsretrieval.errors import (
    ModelLoadError,
    UnknownNameError,
    UsageError,
)
from marsretrieval.text import pluralize

_LOADER = "marsretrieval.encoders.mteb:load"
_BOTH: frozenset[Modality] = frozenset({"image", "text"})
_IMAGE: frozenset[Modality] = frozenset({"image"})

# Task passed to the models, which select their prompts by its name and instruction.
_TASK = "MarsVLPairsT2IRetrieval"
_TEXTS_PER_BATCH = 32


def spec_from_mteb(name: str) -> ModelSpec:
    """Create the spec of a model in MTEB's registry.

    Args:
        name: Name in MTEB ("openai/clip-vit-base-patch32").

    Returns:
        The spec.

    Raises:
        MissingDependencyError: If mteb is not installed.
        UnknownNameError: If there is no such model. Suggests similar names.
        ModelLoadError: If the model embeds no images, or gives several vectors per item.
    """
    meta = find_meta(name)
    if "image" not in meta.modalities:
        raise ModelLoadError(
            f"mteb:{name}: a model of {', '.join(meta.modalities)} only",
            remedy="Choose a model that accepts images.",
        )
    if "dense" not in meta.model_type:
        raise ModelLoadError(
            f"mteb:{name}: a {' and '.join(meta.model_type)} model; only models with one vector "
            "per item are supported",
            remedy="Choose a dense model.",
        )
    dimensions = [meta.embed_dim] if isinstance(meta.embed_dim, int) else meta.embed_dim or [0]
    return ModelSpec(
        id=f"mteb:{meta.name}",
        name=str(meta.name),
        family="mteb",
        loader=_LOADER,
        repository=str(meta.name),
        revision=meta.revision,
        image_size=None,
        dimension=max(dimensions),
        parameters=meta.n_parameters,
        licence=meta.license or "its author's",
        paper="",
        code=meta.reference or "",
        tried="",
        modalities=_BOTH if "text" in meta.modalities else _IMAGE,
        context_length=_finite(meta.max_tokens),
    )


def load(spec: ModelSpec, options: LoadOptions) -> MtebEncoder:
    """Load a model with its MTEB loader, at the revision that MTEB pins.

    With a checkpoint, the same loader reads that folder. With a dtype other than auto, the weights
    are cast and run under autocast; auto keeps the precision in which MTEB loads them. Code from a
    repository runs only with `options.trust_remote_code`, whatever MTEB's loader sets.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        MissingDependencyError: If mteb is not installed.
        ModelLoadError: If the model cannot be loaded.
        UsageError: If a dtype is set for a model without torch modules.
    """
    device = choose_device(options.device)
    dtype = None if options.dtype == "auto" else choose_dtype(options.dtype, device, on_gpu="")
    ensure_torchvision()
    meta = find_meta(spec.repository)
    if options.checkpoint is not None:
        meta = meta.model_copy(update={"name": str(options.checkpoint), "revision": None})
    arguments = {}
    if meta.loader_kwargs.get("trust_remote_code") and not options.trust_remote_code:
        arguments["trust_remote_code"] = False
    if not options.trust_remote_code:
        require_safe_sentence_transformers(spec.id)
    try:
        with offline(options.offline), quiet(), missing_weights() as missing:
            wrapper = _wrapper(meta, str(device), arguments)
    except RemoteCodeError as error:
        raise ModelLoadError(
            f"{spec.id} needs code from its repository ({error.message})", remedy=TRUST
        ) from error
    except Exception as error:  # loaders use many libraries and may raise anything
        first = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelLoadError(
            f"{spec.id}: MTEB cannot load it ({first})",
            remedy=f"It needs code from its repository. {TRUST}" if asks_for_trust(error) else None,
        ) from error
    if missing:
        raise ModelLoadError(
            f"{spec.id}: {pluralize(len(missing), 'weight')} missing, which would be random "
            f"({', '.join(missing[:3])})",
            remedy="The files are not of the architecture that MTEB's loader builds.",
        )
    modules = _modules(wrapper)
    if dtype is not None and not modules:
        raise UsageError(f"{spec.id} is not a torch model: --dtype has no effect")
    revision = None if options.checkpoint is not None else meta.revision
    return MtebEncoder(spec, options, wrapper, modules, device, dtype, revision)


class MtebEncoder(TorchEncoder):
    """Encoder for a model of MTEB.

    Images and captions are encoded as MTEB's documents, queries as its queries.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        wrapper: Any,
        modules: torch.nn.ModuleDict,
        device: torch.device,
        dtype: torch.dtype | None,
        revision: str | None,
    ) -> None:
        """Wrap a loaded model, and embed one image and one text with it.

        Args:
            spec: Spec of the model.
            options: Load options.
            wrapper: MTEB's model.
            modules: Torch modules of the wrapper.
            device: Target device.
            dtype: Target precision. None keeps that of the model.
            revision: Commit of the loaded repository.

        Raises:
            ModelLoadError: If texts and images differ in dimension, or the model fails.
        """
        super().__init__(spec, options, modules, device=device, dtype=dtype, revision=revision)
        self._wrapper = wrapper
        self._preprocess = _rgb
        self._cast = dtype
        self._task = _task_metadata(spec)
        self._has_torch_modules = len(modules) > 0
        image = Image.new("RGB", (64, 64), (120, 90, 70))
        self._dimension = int(self.encode_images([image]).shape[1])
        if "text" in self.modalities:
            texts = int(self.encode_texts(["dunes"]).shape[1])
            if texts != self._dimension:
                raise ModelLoadError(
                    f"{spec.id}: texts of {texts} dimensions, images of {self._dimension}"
                )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready identity of the vectors."""
        fingerprint = super().fingerprint
        return fingerprint if self._has_torch_modules else {**fingerprint, "weights_sha256": None}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return {"by": f"MTEB's {type(self._wrapper).__name__}"}

    @property
    def prompts(self) -> dict[str, Any]:
        """Prompts of the model, and the instruction of the task that MTEB uses otherwise."""
        own = {
            name: value
            for name in ("model_prompts", "prompts_dict")
            if (value := getattr(self._wrapper, name, None))
        }
        return {
            "preset": "MTEB's",
            "task": self._task.name,
            "instruction": self._task.prompt,
            **own,
        }

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"images": list(features)}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        images = inputs["images"]
        return self._encode("image", images, "document", len(images))

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        kind: Literal["query", "document"] = "query" if role == "query" else "document"
        return self._encode("text", list(texts), kind, _TEXTS_PER_BATCH)

    def _encode(
        self, column: str, items: list[Any], kind: Literal["query", "document"], batch_size: int
    ) -> torch.Tensor:
        from mteb.types import PromptType

        inputs = DataLoader(_Column(column, items), batch_size=batch_size, collate_fn=_collate)
        cast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self._cast is not None and self._cast != torch.float32:
            cast = torch.autocast(self.device.type, dtype=self._cast)
        try:
            with cast, quiet():
                vectors = self._wrapper.encode(
                    inputs,
                    task_metadata=self._task,
                    hf_split="test",
                    hf_subset="default",
                    prompt_type=PromptType(kind),
                    batch_size=batch_size,
                    show_progress_bar=False,
                )
        except Exception as error:  # wrappers have many authors and may raise anything
            if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower():
                raise  # the caller retries with a smaller batch
            first = str(error).strip().split("\n")[0]
            raise ModelLoadError(
                f"{self.id}: MTEB's {type(self._wrapper).__name__} fails on {column}s "
                f"({type(error).__name__}: {first})"
            ) from error
        rows = vectors if isinstance(vectors, torch.Tensor) else torch.from_numpy(_dense(vectors))
        if rows.ndim != 2 or len(rows) != len(items):
            raise ModelLoadError(
                f"{self.id}: {tuple(rows.shape)} for {len(items)} {column}s, one vector per item "
                "is expected"
            )
        return rows


def find_meta(name: str) -> Any:
    """Find a model in MTEB's registry.

    Args:
        name: Name of the model, in any case.

    Returns:
        MTEB's `ModelMeta`.

    Raises:
        MissingDependencyError: If mteb is not installed.
        UnknownNameError: If there is no such model. Suggests similar names.
    """
    mteb = import_mteb(f"model mteb:{name}")
    try:
        return mteb.get_model_meta(name)
    except KeyError:
        metas = {str(candidate.name): candidate for candidate in mteb.get_model_metas()}
    for candidate, meta in metas.items():
        if candidate.lower() == name.lower():
            return meta
    images = [candidate for candidate, meta in metas.items() if "image" in meta.modalities]
    near = [f"mteb:{candidate}" for candidate in _nearest_first(name, images)]
    raise UnknownNameError(
        "model of MTEB",
        f"mteb:{name}",
        near,
        remedy="A model that is missing from MTEB's registry may load as st:<repository>.",
    )


@contextlib.contextmanager
def missing_weights() -> Iterator[list[str]]:
    """Collect the names of weights that transformers initializes at random inside the block.

    Transformers reports them in a log message only, which MTEB's loaders ignore.

    Yields:
        List of names, filled while the block runs.
    """
    names: list[str] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names.extend(re.findall(r"^(\S+) *\| *MISSING", record.getMessage(), re.MULTILINE))

    collector = _Collector(logging.WARNING)
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.addHandler(collector)
    logger.setLevel(min(before, logging.WARNING))
    try:
        yield names
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before)


def offline(enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Switch the hub off inside a block.

    Args:
        enabled: Switch it off. A hub that is off already stays off.

    Returns:
        Context manager.
    """
    from huggingface_hub import constants

    return set_attribute(constants, "HF_HUB_OFFLINE", enabled or constants.HF_HUB_OFFLINE)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence MTEB's log messages and warnings, which address authors of models and tasks."""
    logger = logging.getLogger("mteb")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _nearest_first(name: str, names: list[str]) -> list[str]:
    """Select the names to suggest: those with the same name or maker, if any, else all."""
    maker, _, model = name.lower().rpartition("/")
    near = [candidate for candidate in names if model in candidate.lower()]
    return (
        near
        or [candidate for candidate in names if maker and candidate.lower().startswith(maker)]
        or names
    )


def _finite(tokens: float | None) -> int | None:
    return int(tokens) if tokens and math.isfinite(tokens) else None


def _wrapper(meta: Any, device: str, arguments: dict[str, Any]) -> Any:
    try:
        return meta.load_model(device=device, **arguments)
    except TypeError as error:
        if "'device'" not in str(error):
            raise
        return meta.load_model(**arguments)  # a loader without `device`; moved later


class _Column(Dataset[dict[str, Any]]):
    """Dataset with one column, and the attributes of `datasets.Dataset` that MTEB's wrappers use.

    Unlike `datasets.Dataset` it does not encode every image as PNG.
    """

    def __init__(self, name: str, items: list[Any]) -> None:
        self._name = name
        self._items = items
        self.features = {name: None}
        self.column_names = [name]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: Any) -> Any:
        return list(self._items) if key == self._name else {self._name: self._items[key]}


def _collate(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")  # as MTEB does; the wrapper preprocesses it


def _dense(vectors: Any) -> np.ndarray:
    try:
        return np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError):
        return np.empty((0,), np.float32)  # ragged: the caller rejects this shape


def _modules(wrapper: Any) -> torch.nn.ModuleDict:
    """Collect the torch modules of a wrapper, under any attribute name."""
    if isinstance(wrapper, torch.nn.Module):
        return torch.nn.ModuleDict({"of_wrapper": wrapper})
    modules: dict[str, torch.nn.Module] = {}
    for name, value in vars(wrapper).items():
        if isinstance(value, torch.nn.Module):
            modules[f"of_{name}"] = value
        elif hasattr(value, "__dict__"):
            for inner, module in vars(value).items():
                if isinstance(module, torch.nn.Module):
                    modules[f"of_{name}_{inner}"] = module
    return torch.nn.ModuleDict(modules)


def _task_metadata(spec: ModelSpec) -> Any:
    import mteb

    try:
        with quiet():
            return mteb.get_task(_TASK).metadata
    except KeyError as error:
        raise ModelLoadError(
            f"{spec.id}: this mteb ({mteb.__version__}) has no task {_TASK}",
            remedy="pip install -U mteb",
        ) from error
