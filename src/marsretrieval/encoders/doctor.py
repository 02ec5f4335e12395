"""Is this machine fit to run the benchmark's models?"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from marsretrieval.encoders.registry import all_specs
from marsretrieval.system import hardware

_GIB = 2**30
_MIN_MEMORY_GIB = 2.0  # torch, a small model and a batch
_MIN_DISK_GIB = 2.0  # the smallest published weights
_NEEDED = "models"  # the extra without which no model runs
_EXTRAS = (_NEEDED, "geotiff", "download")
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?P<versions>[^;]*);.*extra == ['\"](?P<extra>[\w-]+)['\"]"
)


def examine_machine() -> dict[str, Any]:
    """JSON-ready: what there is; in `problems` what makes a benchmark impossible, each with its
    remedy; in `notes` what is missing for some of it."""
    problems: list[str] = []
    notes: list[str] = []
    found: dict[str, Any] = {"python": sys.version.split()[0], **hardware()}
    if found.get("memory_gib", _MIN_MEMORY_GIB) < _MIN_MEMORY_GIB:
        problems.append(
            f"{found['memory_gib']} GiB of memory: models need {_MIN_MEMORY_GIB:.0f} and more"
        )
    found["packages"], unmet = _packages()
    for extra, lacking in unmet.items():
        told = f"{', '.join(lacking)}: pip install 'marsretrieval[{extra}]'"
        (problems if extra == _NEEDED else notes).append(told)
    if found["packages"].get("torch"):
        found["torch"] = _torch(problems, notes)
    found["hub"] = _hub(notes)
    found["disk_free_gib"] = _disk(Path(found["hub"]["cache"]), problems, notes)
    _which_fit(found.get("memory_gib"), notes)
    return {**found, "problems": problems, "notes": notes}


def _packages() -> tuple[dict[str, str | None], dict[str, list[str]]]:
    """Installed versions of what the extras ask for, and what of each extra is not met."""
    found: dict[str, str | None] = {}
    unmet: dict[str, list[str]] = defaultdict(list)
    for line in requires("marsretrieval") or []:
        parts = _REQUIREMENT.match(line)
        if parts is None or parts["extra"] not in _EXTRAS:
            continue
        name, wanted = parts["name"], parts["versions"].strip()
        try:
            has = found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
            unmet[parts["extra"]].append(f"{name} is not installed")
            continue
        if not _satisfies(has, wanted):
            unmet[parts["extra"]].append(f"{name} {has} is installed, {wanted} is needed")
    return found, dict(unmet)


def _satisfies(has: str, wanted: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # comes with the extra `models`; without it much else is missing too
        return True
    return SpecifierSet(wanted).contains(has, prereleases=True)


def _torch(problems: list[str], notes: list[str]) -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken build fails at import in its own way
        problems.append(f"torch does not import ({error}): install it again")
        return {"imports": False}
    found: dict[str, Any] = {"imports": True, "torchvision": _torchvision(problems)}
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} {properties.name}, {properties.total_memory / _GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    found["devices"] = devices
    if len(devices) == 1 and shutil.which("nvidia-smi"):
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
        notes.append(
            f"there is an NVIDIA driver, but torch (built for {built}) sees no device: install "
            "the torch build for your driver, see https://pytorch.org/get-started"
        )
    return found


def _torchvision(problems: list[str]) -> str:
    from marsretrieval.encoders.torch_imports import ensure_torchvision

    try:
        return "imports" if ensure_torchvision() else "imports, its missing operators declared"
    except Exception as error:  # any failure of an import is the finding here
        problems.append(
            f"torchvision does not import ({error}): install the one that belongs to this torch"
        )
        return "fails"


def _hub(notes: list[str]) -> dict[str, Any]:
    """Where weights are kept and whether more may be fetched. The token itself is never shown."""
    try:
        from huggingface_hub import constants, get_token
    except ImportError:
        cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
        return {"cache": str(cache), "offline": False, "token": False}
    found = {
        "cache": str(constants.HF_HUB_CACHE),
        "offline": bool(constants.HF_HUB_OFFLINE),
        "token": get_token() is not None,
    }
    gated = ", ".join(record.id for record in all_specs() if record.gated)
    if not found["token"] and gated:
        notes.append(f"no Hugging Face token: gated models ({gated}) need one: hf auth login")
    if found["offline"]:
        notes.append("HF_HUB_OFFLINE is set: only models in the cache load")
    return found


def _disk(cache: Path, problems: list[str], notes: list[str]) -> dict[str, float]:
    free = {}
    for folder in (Path.cwd(), cache):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free[str(folder)] = round(shutil.disk_usage(place).free / _GIB, 1)
    here, there = free[str(Path.cwd())], free[str(cache)]
    if here < _MIN_DISK_GIB:
        problems.append(f"{here} GiB free in the current folder, where results go: make room")
    if there < _MIN_DISK_GIB:
        notes.append(f"{there} GiB free for weights in {cache}: make room, or move it (HF_HOME)")
    return free


def _which_fit(memory_gib: float | None, notes: list[str]) -> None:
    if memory_gib is None:
        return
    large = {
        record.id: size
        for record in all_specs()
        if (size := record.weights_gib("float32")) is not None and size > memory_gib
    }
    if large:
        told = ", ".join(f"{name} ({size:.0f} GiB)" for name, size in large.items())
        notes.append(f"too large for this memory in float32: {told}; on a CPU try --dtype bfloat16")
