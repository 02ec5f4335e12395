"""Guarded import of torchvision; every case runs in a separate process with a fake torchvision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ENSURE = (
    "from marsretrieval.encoders.torch_imports import ensure_torchvision\n"
    "whole = ensure_torchvision()\n"
)


# Imports torch once; every case then runs in a fork that has imported no torchvision.
SERVER = """
import io, json, os, sys, traceback
import torch
assert "torchvision" not in sys.modules
for line in sys.stdin:
    reader, writer = os.pipe()
    if not os.fork():
        sys.stdout, sys.stderr, code = io.StringIO(), io.StringIO(), 0
        try:
            exec(json.loads(line), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            code = 1
        with open(writer, "w") as file:
            json.dump([code, sys.stdout.getvalue(), sys.stderr.getvalue()], file)
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        print(file.read(), flush=True)
    os.wait()
"""


Run = Callable[[str, Path], "subprocess.CompletedProcess[str]"]


def run(code: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", with_site(code, site)], capture_output=True, text=True
    )


def with_site(code: str, site: Path | None) -> str:
    return (f"import sys; sys.path.insert(0, {str(site)!r})\n" if site else "") + code


@pytest.fixture(scope="module")
def run_with_torch() -> Iterator[Run]:
    """Run code in processes that have imported torch, as forks of one where there are forks."""
    if not hasattr(os, "fork"):
        yield run
        return
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin and server.stdout

        def forked(code: str, site: Path) -> subprocess.CompletedProcess[str]:
            print(json.dumps(with_site(code, site)), file=server.stdin, flush=True)
            returncode, stdout, stderr = json.loads(server.stdout.readline())  # type: ignore[union-attr]
            return subprocess.CompletedProcess([], returncode, stdout, stderr)

        yield forked
        server.stdin.close()


def package(folder: Path, text: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "inner.py").write_text("")
    (folder / "torchvision" / "__init__.py").write_text(text)
    return folder


def test_the_installed_torchvision_imports_and_transforms() -> None:
    done = run(
        ENSURE + "import torch, torchvision, open_clip, timm, transformers\n"
        "from torchvision.transforms import Resize\n"
        "print(Resize(4)(torch.zeros(3, 8, 8)).shape)"
    )
    assert done.returncode == 0, done.stderr
    assert "[3, 4, 4]" in done.stdout


def test_complete_torchvision_is_not_changed(tmp_path: Path, run_with_torch: Run) -> None:
    site = package(tmp_path, "whole = True\n")
    done = run_with_torch(
        ENSURE + "import torch, torchvision\n"
        "print(torchvision.whole, whole, hasattr(torch.ops.torchvision, 'nms'))",
        site,
    )
    assert done.stdout.strip() == "True True False", done.stderr


def test_known_failure_is_repaired(tmp_path: Path, run_with_torch: Run) -> None:
    text = (
        "import torch, torchvision.inner\n"
        "torch.library.register_fake('torchvision::nms')(lambda *a: None)\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *a: None)\n"
        "whole = True\n"
    )
    site = package(tmp_path, text)
    done = run_with_torch(
        "try: import torchvision\nexcept RuntimeError as error: print(error)\n" + ENSURE + "import "
        "torchvision; print(torchvision.whole, whole, ensure_torchvision())",
        site,
    )
    failure, mended = done.stdout.strip().splitlines()
    assert "operator torchvision::nms does not exist" in failure
    assert mended == "True False False", done.stderr


def test_failure_not_repaired_by_the_schemas_is_raised(tmp_path: Path, run_with_torch: Run) -> None:
    text = "raise RuntimeError('operator torchvision::roi_align does not exist')\n"
    done = run_with_torch(
        "from marsretrieval.encoders.torch_imports import ensure_torchvision\n"
        "for _ in range(2):\n"
        "    try: ensure_torchvision()\n"
        "    except RuntimeError as error: print(error)",
        package(tmp_path, text),
    )
    assert done.stdout.splitlines() == ["operator torchvision::roi_align does not exist"] * 2


@pytest.mark.parametrize("error", ["RuntimeError('another fault')", "ValueError('v')"])
def test_other_failures_are_raised(error: str, tmp_path: Path) -> None:
    done = run(ENSURE, package(tmp_path, f"raise {error}\n"))
    assert done.returncode == 1
    assert error.split("'")[1] in done.stderr


def test_missing_torchvision_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torchvision'] = None\n" + ENSURE
    done = run(code)
    assert "marsretrieval[models]" in done.stderr
