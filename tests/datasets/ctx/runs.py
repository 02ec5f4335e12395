"""Cut two small quads, in this process or in one to be killed, and compare the outputs."""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing
import os
import signal
import sys
import tarfile
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from PIL import Image

from marsretrieval import cli
from marsretrieval.datasets.ctx import (
    JobSettings,
    Quad,
    TileSpec,
    cut_quads,
    find_files,
)
from marsretrieval.io import sha256_file

__all__ = ["OTHER", "QUAD", "SPEC", "TILES", "contents", "difference", "members", "run", "start"]

QUAD, OTHER = Quad(-4, -4), Quad(-4, 0)
SPEC = TileSpec.of("0.5", size=32)
TILES = 64  # of SPEC per quad

# Processes forked from a server that has imported the command: a start costs a tenth of Python's.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "marsretrieval.cli.app",
        "marsretrieval.cli.data_tiles",
        "marsretrieval.datasets.rasters.runner",
        "pydantic.type_adapter",
        "rasterio",
        __name__,
    ]
)


def run(folder: Path, out: Path, spec: TileSpec = SPEC, *, force: bool = False):
    inputs, problems = find_files([folder])
    return cut_quads(inputs, spec, out, problems=problems, settings=JobSettings(force=force))


def start(arguments: Sequence[str], *, dies_in: str | None = None) -> BaseProcess:
    """Start the command in a process of its own.

    Args:
        arguments: Arguments of the command.
        dies_in: Function at whose first call the process is killed, such as `package.module.name`.

    Returns:
        The running process.
    """
    process = _PROCESSES.Process(target=_command, args=(list(arguments), dies_in))
    process.start()
    return process


def _command(arguments: list[str], dies_in: str | None) -> None:
    if dies_in is not None:
        module, _, name = dies_in.rpartition(".")
        setattr(
            importlib.import_module(module),
            name,
            lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL),
        )
    sys.argv = ["marsretrieval", *arguments]
    cli.main()


def contents(out: Path) -> dict[str, str]:
    """Map file names to SHA-256, so that a difference is printed in one line."""
    return {path.name: sha256_file(path) for path in sorted(out.iterdir())}


def members(path: Path) -> dict[str, tuple[np.ndarray, dict]]:
    """Map tile names to (pixels, annotation)."""
    data = _members(path)
    return {
        name.rpartition(".")[0]: (
            np.asarray(Image.open(io.BytesIO(image))),
            json.loads(data[name.rpartition(".")[0] + ".json"]),
        )
        for name, image in data.items()
        if not name.endswith(".json")
    }


def difference(one: Path, other: Path) -> str:
    """Return the first difference of two tars, or an empty text if they are equal."""
    if sha256_file(one) == sha256_file(other):
        return ""
    first, second = _members(one), _members(other)
    if list(first) != list(second):
        return f"other members: {sorted(set(first) ^ set(second))[:5]}"
    names = [name for name in first if first[name] != second[name]]
    if not names:
        return "other headers"
    name = next((name for name in names if name.endswith(".json")), names[0])
    if name.endswith(".json"):
        return f"{len(names)} members, such as {name}: {first[name]!r}, {second[name]!r}"
    a, b = (np.asarray(Image.open(io.BytesIO(item[name]))).astype(int) for item in (first, second))
    positions = np.argwhere(a != b)
    return (
        f"{len(names)} members, such as {name}: {len(positions)} pixels, by {np.abs(a - b).max()} "
        f"grey levels at most, such as at {positions[:3].tolist()}"
    )


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}
