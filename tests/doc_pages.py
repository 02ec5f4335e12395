"""Code blocks and command lines of the documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.cli.help import EXAMPLES

__all__ = [
    "DOCS",
    "FENCED",
    "MARSRETRIEVAL",
    "PAGES",
    "ROOT",
    "WALKED",
    "blocks",
    "commands",
    "lines_of",
    "name_of",
    "write_orthoimage",
]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "benchmarks").rglob("README.md")),
]
# Pages whose commands and Python files are really run, from top to bottom, each in a folder.
WALKED = [
    "MODELS.md",
    "tutorials/benchmark.md",
    "tutorials/search.md",
    "tutorials/inventory.md",
    "howto/dataset.md",
    "howto/planet.md",
    "howto/task.md",
    "api/index.md",
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCED.findall(page.read_text()) if kind == language]


def lines_of(block: str) -> Iterator[str]:
    """Yield command lines without comments, with continuation lines joined."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield line.strip() if "#" not in line else shlex.join(words)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands() -> list[tuple[str, str]]:
    """List (page, command line) of all bash lines in fenced and indented blocks."""
    command_lines = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            command_lines += [(name_of(page), line) for line in lines_of(block)]
        unfenced = FENCED.sub("", page.read_text())
        indented = re.findall(r"^    (marsretrieval .*)$", unfenced, re.MULTILINE)
        command_lines += [(name_of(page), line) for text in indented for line in lines_of(text)]
    for example in EXAMPLES.values():
        command_lines += [("--help", line) for line in lines_of(example)]
    for script in (ROOT / "examples").glob("*.sh"):
        text = re.sub(r"^#.*$|^exec ", "", script.read_text(), flags=re.MULTILINE)
        calls = re.findall(r"^\s*(marsretrieval (?:.*\\\n)*.*)$", text, re.MULTILINE)
        command_lines += [(name_of(script), line) for call in calls for line in lines_of(call)]
    return command_lines


MARSRETRIEVAL = [(page, line) for page, line in commands() if line.startswith("marsretrieval ")]


def write_orthoimage(path: Path) -> None:
    """Write a small raster in the projection of HiRISE products, without data at its left."""
    rasterio = pytest.importorskip("rasterio")
    from rasterio.shutil import copy

    values = np.random.default_rng(0).integers(1, 1023, (1, 1500, 1200)).astype(np.uint16)
    values[..., :50] = 0
    crs = "+proj=eqc +lat_ts=35 +lon_0=180 +R=3389000 +units=m +no_defs"
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=1200, height=1500, count=1, dtype="uint16", crs=crs,
            transform=rasterio.Affine(0.25, 0, -400_000, 0, -0.25, 2_300_000),
        ) as file:  # fmt: skip
            file.write(values)
        copy(memory.name, path, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
