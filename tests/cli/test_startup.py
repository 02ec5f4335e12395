"""The command answers at once: no heavy library is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
import time

HEAVY = (
    "torch", "transformers", "open_clip", "timm", "rasterio", "scipy", "pyarrow", "numpy",
    "shapely",
)  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, marsretrieval.cli._app\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_verbs() -> None:
    command = [sys.executable, "-m", "marsretrieval", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for verb in ("demo", "run", "score", "models", "tasks", "doctor", "data", "embed", "store"):
        assert f"\n  {verb} " in done.stdout, verb


def test_wrong_use_is_exit_code_2_and_no_traceback() -> None:
    start = time.perf_counter()
    for arguments in (["nonsense"], ["run"], ["run", "-m", "x"], ["--nonsense"]):
        done = subprocess.run(
            [sys.executable, "-m", "marsretrieval", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
    assert time.perf_counter() - start < 60
