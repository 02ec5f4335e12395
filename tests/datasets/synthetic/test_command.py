from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result


def test_synth_creates_a_planet_once(
    micro: str, tmp_path: Path, marsretrieval: Callable[..., Result]
) -> None:
    out = tmp_path / "planet"
    synth = ("data", "synth", "--out", out, "--size", micro)
    plan = json.loads(marsretrieval(*synth, "--dry-run", "--json").stdout)
    assert plan["tiles"] > 0 and not out.exists()
    made = json.loads(marsretrieval(*synth, "--json").stdout)
    assert made["made"] is True and made["tiles"] == plan["tiles"]
    assert "nothing to do" in marsretrieval(*synth).stdout
    assert "--force" in marsretrieval(*synth, "--seed", "1", code=1).stderr


def test_usage_errors(tmp_path: Path, marsretrieval: Callable[..., Result]) -> None:
    synth, out = ("data", "synth"), ("--out", tmp_path / "planet")
    marsretrieval(*synth, code=2)
    marsretrieval(*synth, *out, "--seed", "-1", code=2)
    assert "tiny" in marsretrieval(*synth, *out, "--size", "tinny", code=2).stderr
