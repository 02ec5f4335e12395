"""Number of the package's files that common commands execute."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import marsretrieval

# A model without torch: loading one is not what is measured.
MODEL = """
import numpy as np

class Brightness:
    def encode_images(self, images):
        vectors = np.array([[1 + np.mean(image), 1, np.std(image)] for image in images])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_texts(self, texts):
        vectors = np.array([[len(text), 1, text.count("a")] for text in texts], dtype=float)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
"""
# Imports other libraries once; every command then runs in a fork that has imported no file of the
# package.
SERVER = """
import importlib, os, sys
for name in ("numpy", "PIL.Image", "pyarrow.compute", "pyarrow.parquet", "typer", "rich.console"):
    importlib.import_module(name)
assert not any(name.split(".")[0] == "marsretrieval" for name in sys.modules)
for number, arguments in enumerate(eval(sys.argv[1])):
    if os.fork() == 0:
        break
    code = os.waitstatus_to_exitcode(os.wait()[1])
    assert code == 0, (arguments, code)
else:
    sys.exit()
import marsretrieval
from pathlib import Path
from marsretrieval.cli import main

sys.argv[1:] = arguments
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
folder = str(Path(marsretrieval.__file__).parent)
files = {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
names = sorted(file for file in files if file.startswith(folder))
Path(f"files-{number}").write_text("\\n".join(names))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executed")
    (folder / "brightness.py").write_text(MODEL)
    return folder


def executed_files(folder: Path, *commands: Sequence[object]) -> list[list[str]]:
    """Run commands in new processes and list the files of the package that each executed."""
    arguments = repr([[*map(str, command)] for command in commands])
    environment = {**os.environ, "PYTHONPATH": str(Path(marsretrieval.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", SERVER, arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [
        (folder / f"files-{number}").read_text().splitlines() for number in range(len(commands))
    ]


def test_commands_execute_few_files(tiny_planet: Path, folder: Path) -> None:
    """A command loads its own modules only; raise a limit only for a good reason."""
    model, store = "brightness:Brightness", folder / "tiles.store"
    tiles = tiny_planet / "Mars-Global-Geolocalization" / "tiles"
    landforms = tiny_planet / "Mars-Landforms"
    limits = {"version": 9, "embed": 38, "search": 46, "run": 69}
    lists = executed_files(
        folder,
        ["--version"],
        ["embed", "-m", model, "--images", tiles, "--store", store],
        ["search", "--store", store, "-m", model, "--text", "pitted cones"],
        ["run", "-m", model, "-t", "landform", "--data", landforms,
         "--results", folder / "results"],
    )  # fmt: skip
    for (command, limit), files in zip(limits.items(), lists, strict=True):
        assert 0 < len(files) <= limit, f"{command}: {len(files)}: {files}"
