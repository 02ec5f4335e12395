"""Checks of this machine, of a model before it is loaded, and of a loaded model.

The checks before loading read no weights, and their errors are the ones that loading would raise.
A loaded model embeds two images and two texts, together and one at a time.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from marsretrieval.encoders.registry import all_specs
from marsretrieval.errors import (
    MarsRetrievalError,
    MissingDependencyError,
    ModelLoadError,
    describe_exception,
)
from marsretrieval.system import hardware

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, LoadOptions, ModelSpec, Vectors

_GIB = 2**30
_MIN_MEMORY_GIB = 2.0  # torch, a small model and a batch
_MIN_DISK_GIB = 2.0  # the smallest published weights
_REQUIRED_EXTRA = "models"
_EXTRAS = (_REQUIRED_EXTRA, "geotiff", "download")
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?P<versions>[^;]*);.*extra == ['\"](?P<extra>[\w-]+)['\"]"
)

_PACKAGE = __name__.rpartition(".")[0]
# For each loader module, the extra to install and its libraries (module, package).
_NEEDS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    f"{_PACKAGE}.open_clip": ("models", (("torch", "torch"), ("open_clip", "open_clip"))),
    f"{_PACKAGE}.two_tower": ("models", (("torch", "torch"), ("transformers", "transformers"))),
    f"{_PACKAGE}.vision_only": ("models", (("torch", "torch"), ("transformers", "transformers"))),
    f"{_PACKAGE}.multimodal_lm": (
        "models",
        (("torch", "torch"), ("transformers", "transformers")),
    ),
    f"{_PACKAGE}.hub_model": (
        "models",
        (("torch", "torch"), ("transformers", "transformers"), ("open_clip", "open_clip")),
    ),
    f"{_PACKAGE}.timm": ("models", (("torch", "torch"), ("timm", "timm"))),
    f"{_PACKAGE}.sentence_transformers": (
        "st",
        (("torch", "torch"), ("sentence_transformers", "sentence-transformers")),
    ),
    f"{_PACKAGE}.mteb": ("mteb", (("torch", "torch"), ("mteb", "mteb"))),
}
_FOLDERS = {f"{_PACKAGE}.{name}" for name in ("two_tower", "vision_only", "multimodal_lm")}

_Value = TypeVar("_Value")

_TEXTS = ("a satellite photo of pitted cones.", "sand")  # different lengths require padding

_UNIT = 1e-3
# Largest difference of a coordinate between a batch and one item at a time. Half precision rounds
# differently in batches of other shapes; a wrong mask or padding side has far larger effects.
_BATCH = 1e-4
_BATCH_HALF = 2e-2


def examine_machine() -> dict[str, Any]:
    """Examine hardware, libraries, disk space and access to the Hugging Face hub.

    Returns:
        JSON-ready report. `problems` lists what makes a benchmark impossible, each with its remedy;
        `notes` lists what is missing for a part of it.
    """
    problems: list[str] = []
    notes: list[str] = []
    report: dict[str, Any] = {"python": sys.version.split()[0], **hardware()}
    if report.get("memory_gib", _MIN_MEMORY_GIB) < _MIN_MEMORY_GIB:
        problems.append(
            f"{report['memory_gib']} GiB of memory: models need at least {_MIN_MEMORY_GIB:.0f}"
        )
    report["packages"], unmet = _packages()
    for extra, lacking in unmet.items():
        message = f"{', '.join(lacking)}: pip install 'marsretrieval[{extra}]'"
        (problems if extra == _REQUIRED_EXTRA else notes).append(message)
    if report["packages"].get("torch"):
        report["torch"] = _torch(problems, notes)
    report["hub"] = _hub(notes)
    report["disk_free_gib"] = _disk(Path(report["hub"]["cache"]), problems, notes)
    _note_large_models(report.get("memory_gib"), notes)
    return {**report, "problems": problems, "notes": notes}


def _packages() -> tuple[dict[str, str | None], dict[str, list[str]]]:
    """Return the installed versions of the extras' packages, and the unmet requirements."""
    versions: dict[str, str | None] = {}
    unmet: dict[str, list[str]] = defaultdict(list)
    for line in requires("marsretrieval") or []:
        parts = _REQUIREMENT.match(line)
        if parts is None or parts["extra"] not in _EXTRAS:
            continue
        name, required = parts["name"], parts["versions"].strip()
        try:
            installed = versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
            unmet[parts["extra"]].append(f"{name} is not installed")
            continue
        if not _satisfies(installed, required):
            unmet[parts["extra"]].append(f"{name} {installed} is installed, {required} is needed")
    return versions, dict(unmet)


def _satisfies(installed: str, required: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # part of the extra `models`
        return True
    return SpecifierSet(required).contains(installed, prereleases=True)


def _torch(problems: list[str], notes: list[str]) -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken build may raise anything
        problems.append(f"torch cannot be imported ({error}): install it again")
        return {"imports": False}
    report: dict[str, Any] = {"imports": True, "torchvision": _torchvision(problems)}
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} {properties.name}, {properties.total_memory / _GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    report["devices"] = devices
    if len(devices) == 1 and shutil.which("nvidia-smi"):
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
        notes.append(
            f"there is an NVIDIA driver, but torch (built for {built}) finds no device: install "
            "the torch build for your driver, see https://pytorch.org/get-started"
        )
    return report


def _torchvision(problems: list[str]) -> str:
    from marsretrieval.encoders.torch_imports import ensure_torchvision

    try:
        return (
            "imports"
            if ensure_torchvision()
            else "imports, with declarations of its missing operators"
        )
    except Exception as error:  # a broken build may raise anything
        problems.append(
            f"torchvision cannot be imported ({error}): install the version that matches this torch"
        )
        return "fails"


def _hub(notes: list[str]) -> dict[str, Any]:
    """Describe the cache and the access to the hub. The token itself is never included."""
    try:
        from huggingface_hub import constants, get_token
    except ImportError:
        cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
        return {"cache": str(cache), "offline": False, "token": False}
    report = {
        "cache": str(constants.HF_HUB_CACHE),
        "offline": bool(constants.HF_HUB_OFFLINE),
        "token": get_token() is not None,
    }
    gated = ", ".join(spec.id for spec in all_specs() if spec.gated)
    if not report["token"] and gated:
        notes.append(f"no Hugging Face token: gated models ({gated}) need one: hf auth login")
    if report["offline"]:
        notes.append("HF_HUB_OFFLINE is set: only models in the cache load")
    return report


def _disk(cache: Path, problems: list[str], notes: list[str]) -> dict[str, float]:
    free = {}
    for folder in (Path.cwd(), cache):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free[str(folder)] = round(shutil.disk_usage(existing).free / _GIB, 1)
    free_for_results, free_for_weights = free[str(Path.cwd())], free[str(cache)]
    if free_for_results < _MIN_DISK_GIB:
        problems.append(
            f"{free_for_results} GiB free in the current folder, the default for results: free "
            "some space"
        )
    if free_for_weights < _MIN_DISK_GIB:
        notes.append(
            f"{free_for_weights} GiB free for weights in {cache}: free some space, or move it "
            "(HF_HOME)"
        )
    return free


def _note_large_models(memory_gib: float | None, notes: list[str]) -> None:
    if memory_gib is None:
        return
    large = {
        spec.id: size
        for spec in all_specs()
        if (size := spec.weights_gib("float32")) is not None and size > memory_gib
    }
    if large:
        models = ", ".join(f"{name} ({size:.0f} GiB)" for name, size in large.items())
        notes.append(
            f"too large for this memory in float32: {models}; on a CPU try --dtype bfloat16"
        )


def find_load_error(spec: ModelSpec, options: LoadOptions) -> MarsRetrievalError | None:
    """Find out, without loading a model, whether loading it would fail.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The error that loading would raise: a missing library, a checkpoint that is missing or of
        the wrong kind, an option that a class does not accept. None if no error is expected.
    """
    try:
        _check(spec, options)
    except MarsRetrievalError as error:
        return error
    return None


def _check(spec: ModelSpec, options: LoadOptions) -> None:
    module = spec.loader.partition(":")[0]
    extra, libraries = _NEEDS.get(module, ("", ()))
    for name, package in libraries:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(package, extra, needed_for=f"loading {spec.id}")
    if spec.family == "plugin" and "target" in spec.settings:
        from marsretrieval.encoders.custom import require_options

        require_options(spec, options)
    checkpoint = options.checkpoint
    if checkpoint is not None and not checkpoint.exists():
        raise ModelLoadError(
            f"{spec.id}: {checkpoint}: no such file or folder",
            remedy="Give an existing --checkpoint.",
        )
    if module == f"{_PACKAGE}.open_clip" and (checkpoint is not None or "tags" in spec.settings):
        from marsretrieval.encoders.open_clip import find_source

        find_source(spec, options)
    elif module == f"{_PACKAGE}.timm" and checkpoint is None:
        if not spec.settings.get("published"):
            from marsretrieval.encoders.timm import find_weights

            find_weights(spec, options)
    elif module == f"{_PACKAGE}.hub_model":
        from marsretrieval.encoders.hub_model import check_folder

        check_folder(spec, options)
    elif module in _FOLDERS and checkpoint is not None:
        _check_folder(spec, options)
    elif module == f"{_PACKAGE}.sentence_transformers":
        _check_sentence_transformers(spec, options)


def _check_folder(spec: ModelSpec, options: LoadOptions) -> None:
    folder = options.checkpoint
    assert folder is not None
    remedy = "Give the folder that save_pretrained wrote (config.json, *.safetensors)."
    if not folder.is_dir():
        raise ModelLoadError(f"{spec.id}: {folder} is not a folder", remedy=remedy)
    names = ("config.json", "adapter_config.json")
    if not any((folder / name).is_file() for name in names):
        raise ModelLoadError(f"{spec.id}: {folder} has no {' or '.join(names)}", remedy=remedy)
    if not any(file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind)):
        raise ModelLoadError(f"{spec.id}: {folder} has no weights (*.safetensors)", remedy=remedy)


def _check_sentence_transformers(spec: ModelSpec, options: LoadOptions) -> None:
    remedy = "Give a folder that sentence-transformers wrote, or a repository as NAMESPACE/NAME."
    if options.checkpoint is not None and not options.checkpoint.is_dir():
        raise ModelLoadError(f"{spec.id}: {options.checkpoint} is not a folder", remedy=remedy)
    name = spec.repository
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if options.checkpoint is None and looks_local and not Path(name).is_dir():
        raise ModelLoadError(f"{spec.id}: {name}: no such folder", remedy=remedy)


def check_encoder(encoder: Encoder) -> dict[str, Any]:
    """Embed two images and two texts, together and one at a time, and compare the vectors.

    One image is wide and the other tall, one text is long and the other short, so that batches
    require padding.

    Args:
        encoder: The model.

    Returns:
        JSON-ready measurements. `problems` lists all faults; a failure of the encoder is listed,
        not raised.
    """
    problems: list[str] = []
    report: dict[str, Any] = {
        "id": encoder.id,
        "dimension": encoder.dimension,
        "modalities": sorted(encoder.modalities),
    }
    fingerprint = dict(_try(lambda: encoder.fingerprint, problems, "fingerprint") or {})
    limit = _limit(fingerprint)
    images = _try(
        lambda: _embed(encoder.encode_images, _test_images(), limit, problems, "images"),
        problems,
        "images",
    )
    if images is not None:
        report["images"] = images[1]
    if "text" in encoder.modalities:
        texts = _try(
            lambda: _embed(encoder.encode_texts, list(_TEXTS), limit, problems, "texts"),
            problems,
            "texts",
        )
        if texts is not None:
            cut = _try(lambda: encoder.count_truncated(_TEXTS), problems, "count_truncated")
            report["texts"] = {
                **texts[1],
                "embedded": list(_TEXTS),
                "cut_at_context_length": cut,
            }
        if images is not None and texts is not None:
            cosines = images[0] @ texts[0].T
            report["cosines"] = [[round(float(cosine), 4) for cosine in row] for row in cosines]
    return {**report, "fingerprint": fingerprint, "problems": problems}


def check_batches(encoder: Encoder) -> list[str]:
    """Compare batches of two images and two texts with one at a time, before a benchmark.

    Args:
        encoder: The model.

    Returns:
        One line per problem. Texts that the encoder rejects are not a problem, since it may support
        the texts of its task only.
    """
    problems: list[str] = []
    limit = _limit(_try(lambda: encoder.fingerprint, problems, "fingerprint") or {})
    _try(
        lambda: _embed(encoder.encode_images, _test_images(), limit, problems, "images"),
        problems,
        "images",
    )
    if "text" in encoder.modalities:
        _try(
            lambda: _embed(encoder.encode_texts, list(_TEXTS), limit, problems, "texts"),
            [],
            "texts",
        )
    return problems


def _limit(fingerprint: Mapping[str, Any]) -> float:
    return _BATCH if fingerprint.get("dtype", "float32") == "float32" else _BATCH_HALF


def _try(function: Callable[[], _Value], problems: list[str], what: str) -> _Value | None:
    """Call a function of an encoder and append its failure to the problems."""
    try:
        return function()
    except MarsRetrievalError as error:
        problems.append(f"{what}: {error.message}")
    except Exception as error:
        problems.append(f"{what}: {describe_exception(error)}")
    return None


def _embed(
    encode: Callable[[Sequence[Any]], Vectors],
    items: list[Any],
    limit: float,
    problems: list[str],
    what: str,
) -> tuple[Vectors, dict[str, Any]]:
    start = time.perf_counter()
    together = encode(items)
    seconds = time.perf_counter() - start
    alone = np.concatenate([encode([item]) for item in items])
    length = float(np.abs(np.linalg.norm(together, axis=1) - 1).max())
    difference = float(np.abs(together - alone).max())
    if not length <= _UNIT:
        problems.append(f"{what}: vectors are not of unit length (off by {length:.1e})")
    if not difference <= limit:
        problems.append(f"{what}: batch and single vectors differ by {difference:.1e}")
    if np.array_equal(together[0], together[1]):
        problems.append(f"{what}: two different inputs have the same vector")
    return together, {
        "seconds": round(seconds, 3),
        "off_unit_length": length,
        "batch_difference": difference,
    }


def _test_images() -> list[Image.Image]:
    """Create a wide image, brighter to the right, and a tall one with rings."""
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (192, 1))
    down, across = np.mgrid[-1:1:256j, -0.5:0.5:128j]
    rings = (127.5 + 127.5 * np.cos(20 * np.hypot(down, across))).astype(np.uint8)
    return [Image.fromarray(pixels).convert("RGB") for pixels in (ramp, rings)]
