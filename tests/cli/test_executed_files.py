"""Number of the package's files that common commands execute."""

from __future__ import annotations

import os
import subprocess
import sys
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
COUNT = """
import sys
from pathlib import Path
import marsretrieval
from marsretrieval.cli import main

sys.argv[1:] = {arguments!r}
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
folder = str(Path(marsretrieval.__file__).parent)
files = {{str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}}
print(*sorted(file for file in files if file.startswith(folder)), sep="\\n", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executed")
    (folder / "brightness.py").write_text(MODEL)
    return folder


def executed_files(folder: Path, *arguments: object) -> list[str]:
    """Run a command in a new process and list the files of the package that it executed."""
    code = COUNT.format(arguments=[*map(str, arguments)])
    environment = {**os.environ, "PYTHONPATH": str(Path(marsretrieval.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return [line for line in done.stderr.splitlines() if line.endswith(".py")]


def test_commands_execute_few_files(tiny_planet: Path, folder: Path) -> None:
    """A command loads its own modules only; raise a limit only for a good reason."""
    model, store = "brightness:Brightness", folder / "tiles.store"
    tiles = tiny_planet / "Mars-Global-Geolocalization" / "tiles"
    landforms = tiny_planet / "Mars-Landforms"
    counts = {
        "version": executed_files(folder, "--version"),
        "embed": executed_files(folder, "embed", "-m", model, "--images", tiles, "--store", store),
        "search": executed_files(
            folder, "search", "--store", store, "-m", model, "--text", "pitted cones"
        ),
        "run": executed_files(
            folder, "run", "-m", model, "-t", "landform", "--data", landforms,
            "--results", folder / "results",
        ),
    }  # fmt: skip
    limits = {"version": 9, "embed": 38, "search": 46, "run": 69}
    for command, files in counts.items():
        assert 0 < len(files) <= limits[command], f"{command}: {len(files)}: {files}"
