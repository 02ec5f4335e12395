from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marsretrieval", "data", "synth", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_synth_makes_a_planet_once(tmp_path: Path) -> None:
    out = tmp_path / "planet"
    request = ("--out", str(out), "--size", "tiny")
    plan = run(*request, "--dry-run", "--json")
    assert plan.returncode == 0
    assert json.loads(plan.stdout)["tiles"] == 800
    assert not out.exists()

    made = run(*request, "--json")
    assert made.returncode == 0
    assert json.loads(made.stdout)["made"] is True
    again = run(*request)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout

    other = run(*request, "--seed", "1")
    assert other.returncode == 1
    assert "--force" in other.stderr
    assert "Traceback" not in other.stderr


def test_wrong_use(tmp_path: Path) -> None:
    out = str(tmp_path / "planet")
    for arguments in ([], ["--out", out, "--size", "tinny"], ["--out", out, "--seed", "-1"]):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
    assert "tiny" in run("--out", out, "--size", "tinny").stderr
