"""``marsretrieval doctor``: is this machine fit?"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from marsretrieval.cli._shared import JsonFlag, print_json

__all__ = ["doctor"]

_EXTRAS = {
    "models": ("torch", "torchvision", "open_clip_torch", "timm", "transformers"),
    "geotiff": ("rasterio",),
}
_GIB = 2**30


def doctor(as_json: JsonFlag = False) -> None:
    """Look at Python, cores, memory, disk, torch and its devices, and the model cache.

    Exit code 1 if models cannot be run here, with the remedy.
    """
    found, problems = _machine(), []
    missing = {
        extra: [name for name in names if _version(name) is None]
        for extra, names in _EXTRAS.items()
    }
    found["packages"] = {name: _version(name) for names in _EXTRAS.values() for name in names}
    for extra, names in missing.items():
        if names:
            problems.append(
                f"{', '.join(names)} not installed: pip install 'marsretrieval[{extra}]'"
            )
    if not missing["models"]:
        found["torch"], trouble = _torch()
        problems += trouble
    found["problems"] = problems
    if as_json:
        print_json(found)
    else:
        for name, value in found.items():
            if name != "problems":
                _print(name, value)
        print("fit: yes" if not problems else "fit: no")
        for problem in problems:
            print(f"  {problem}")
    if problems:
        raise typer.Exit(1)


def _machine() -> dict[str, Any]:
    from marsretrieval._environment import hardware

    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    place = next(path for path in (cache, *cache.parents) if path.exists())
    return {
        "python": sys.version.split()[0],
        **hardware(),
        "disk_free_gib": {
            str(Path.cwd()): round(shutil.disk_usage(".").free / _GIB, 1),
            str(cache): round(shutil.disk_usage(place).free / _GIB, 1),
        },
        "model_cache": str(cache),
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        "token": bool(os.environ.get("HF_TOKEN")) or (cache / "token").exists(),
    }


def _torch() -> tuple[dict[str, Any], list[str]]:
    import torch

    from marsretrieval.encoders._torchvision import ensure_torchvision

    problems = []
    try:
        ensure_torchvision()
        torchvision = "works"
    except Exception as error:  # any failure of an import is the finding here
        torchvision = f"fails ({error})"
        problems.append(f"torchvision does not import: {error}")
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} {properties.name}, {properties.total_memory / _GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"torchvision": torchvision, "devices": devices}, problems


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(name: str, value: Any, indent: str = "") -> None:
    if isinstance(value, dict):
        print(f"{indent}{name}:")
        for key, each in value.items():
            _print(key, each, indent + "  ")
    else:
        told = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{indent}{name}: {told}")
