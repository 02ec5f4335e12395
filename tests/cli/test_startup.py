"""Startup time: heavy libraries are imported on demand."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection

import pytest

HEAVY = (
    "torch", "transformers", "open_clip", "timm", "rasterio", "scipy", "pyarrow", "numpy",
    "shapely", "pydantic",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["-c", "import marsretrieval, marsretrieval.cli.search"], HEAVY),
        (["-m", "marsretrieval", "--help"], HEAVY),
        # typer itself may import pydantic for the parameters of a command.
        (["-m", "marsretrieval", "search", "--help"], set(HEAVY) - {"pydantic"}),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], heavy: Collection[str]) -> None:
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "marsretrieval" in modules and not modules & set(heavy)


def test_help_lists_the_commands() -> None:
    command = [sys.executable, "-m", "marsretrieval", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for verb in ("demo", "run", "score", "models", "tasks", "doctor", "data", "embed", "store"):
        assert f"\n  {verb} " in done.stdout, verb


def test_usage_errors_are_exit_code_2_without_traceback() -> None:
    start = time.perf_counter()
    for arguments in (["nonsense"], ["run"], ["run", "-m", "x"], ["--nonsense"]):
        done = subprocess.run(
            [sys.executable, "-m", "marsretrieval", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
    assert time.perf_counter() - start < 60
