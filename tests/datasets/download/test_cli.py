"""Download commands against local servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.datasets.download import LinkSettings
from tests.datasets.download.repositories import SHA, landforms, pair_table
from tests.datasets.download.servers import Hub, Web, picture

Publish = Callable[[Hub], Hub]
WHOLE = ("--variant", "whole")


@pytest.fixture
def pairs(
    publish: Publish,
    web: Web,
    base: str,
    settings: LinkSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Web:
    """Serve forty pairs, one of them missing, with the settings of the tests."""
    publish(pair_table(base, [f"{number}.jpg" for number in range(40)]))
    for number in range(39):
        web.file(f"/{number}.jpg", picture(number))
    monkeypatch.setattr(
        "marsretrieval.datasets.download.links.LinkSettings", lambda workers: settings
    )
    return web


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=False)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marsretrieval", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


def test_download_then_verify(pairs: Web, tmp_path: Path) -> None:
    done = call("download", "paired", *WHOLE, "--out", tmp_path, "--revision", SHA)
    assert done.exit_code == 0
    assert "pairs    39 of 40: 39 direct" in done.stdout
    assert "missing  1, see" in done.stdout
    assert "k39: direct: HTTP 404" in done.stdout
    done = call("verify", tmp_path, "--workers", 1)
    assert done.exit_code == 0
    assert "note: image-not-had: 1" in done.stdout
    assert "no problems found" in done.stdout
    assert call("verify", tmp_path, "--workers", 1, "--strict").exit_code == 1


def test_strict_and_json(pairs: Web, tmp_path: Path) -> None:
    done = call(
        "download", "paired", *WHOLE, "--out", tmp_path, "--revision", SHA, "--strict", "--json"
    )
    assert done.exit_code == 1
    output = json.loads(done.stdout)
    assert output[0]["counts"] == {"rows": 40, "pairs": 39, "missing": 1, "direct": 39}
    assert output[0]["missing"][0]["key"] == "k39"
    assert "1 images are missing" in done.stderr


def test_many_missing_images_are_a_failure(pairs: Web, tmp_path: Path) -> None:
    for number in range(3):
        del pairs.routes[f"/{number}.jpg"]
    done = call("download", "paired", *WHOLE, "--out", tmp_path, "--revision", SHA)
    assert done.exit_code == 1
    assert "4 images are missing" in done.stderr
    assert "only these are tried" in done.stderr


def test_verify_names_damage(pairs: Web, tmp_path: Path) -> None:
    call("download", "paired", *WHOLE, "--out", tmp_path, "--revision", SHA)
    tar = tmp_path / "Mars-VL-Pairs/00000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    inventory = tmp_path / "inventory.json"
    done = call("verify", tmp_path, "--json", inventory)
    assert done.exit_code == 1
    assert "error: altered-file: 1\n    00000.tar" in done.stdout
    assert "error: unreadable-image: 1" in done.stdout
    assert json.loads(inventory.read_text())["ok"] is False
    output: dict[str, Any] = json.loads(call("verify", tmp_path, "--json", "-").stdout)
    assert output["datasets"][0]["dataset"] == "paired"


def test_a_dry_run_writes_nothing(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    done = call("download", "landform", "--out", tmp_path / "data", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "2, 0 present" in done.stdout
    assert not (tmp_path / "data").exists()
    done = call("download", "landform", "--out", tmp_path / "data", "--dry-run", "--json")
    assert json.loads(done.stdout)[0]["revision"] == SHA


def test_complete_download_by_command(publish: Publish, tmp_path: Path) -> None:
    publish(landforms())
    done = run("download", "landform", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images   3" in done.stdout
    assert run("verify", tmp_path).returncode == 0
    done = call("download", "landform", "--out", tmp_path, "--offline")
    assert "fetched nothing new" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["download"], 2, "Missing argument"),
        (["download", "pairs"], 2, "Did you mean paired"),
        (["download", "paired", "--variant", "best"], 2, "frozen, whole, published"),
        (["download", "landform", "--variant", "whole"], 2, "has no variants"),
        (
            ["download", "landform", "geolocalization", "--variant", "whole"],
            2,
            "applies to paired only",
        ),
        (["download", "all", "--revision", "x"], 2, "applies to one dataset only"),
        (
            ["download", "landform", "--dry-run", "--offline"],
            2,
            "cannot be combined with --offline",
        ),
        (["download", "landform", "--offline", "--out", "{tmp}"], 1, "Run once without --offline"),
        (["verify", "{tmp}/nowhere"], 1, "no such folder"),
        (["verify", "{tmp}", "--task", "nonsense"], 2, "unknown dataset"),
        (["verify", "{tmp}", "--json", "/proc/nowhere/x.json"], 1, "cannot be written"),
        (["verify", __file__], 1, "a file, not a folder"),
    ],
)
def test_usage_errors(
    arguments: list[str], code: int, said: str, publish: Publish, tmp_path: Path
) -> None:
    publish(landforms())
    done = call(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert done.exit_code == code
    assert said in done.stderr
    assert done.stdout == ""
