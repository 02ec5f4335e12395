"""Guarded import of torchvision; every case runs in a separate process with a fake torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENSURE = (
    "from marsretrieval.encoders.torch_imports import ensure_torchvision\n"
    "whole = ensure_torchvision()\n"
)


def run(code: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    head = f"import sys; sys.path.insert(0, {str(site)!r})\n" if site else ""
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True)


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


def test_complete_torchvision_is_not_changed(tmp_path: Path) -> None:
    site = package(tmp_path, "whole = True\n")
    done = run(
        ENSURE + "import torch, torchvision\n"
        "print(torchvision.whole, whole, hasattr(torch.ops.torchvision, 'nms'))",
        site,
    )
    assert done.stdout.strip() == "True True False", done.stderr


def test_known_failure_is_repaired(tmp_path: Path) -> None:
    text = (
        "import torch, torchvision.inner\n"
        "torch.library.register_fake('torchvision::nms')(lambda *a: None)\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *a: None)\n"
        "whole = True\n"
    )
    site = package(tmp_path, text)
    done = run(
        "try: import torchvision\nexcept RuntimeError as error: print(error)\n" + ENSURE + "import "
        "torchvision; print(torchvision.whole, whole, ensure_torchvision())",
        site,
    )
    failure, mended = done.stdout.strip().splitlines()
    assert "operator torchvision::nms does not exist" in failure
    assert mended == "True False False", done.stderr


def test_failure_not_repaired_by_the_schemas_is_raised(tmp_path: Path) -> None:
    text = "raise RuntimeError('operator torchvision::roi_align does not exist')\n"
    done = run(
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
