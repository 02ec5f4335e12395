"""Tests of outputs that cannot be written: refused before any input is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import stamina
from typer.testing import CliRunner

from marsretrieval.cli.app import app

# Each command with inputs that do not exist; {out} is the output.
FILES = (
    "score paired --images I.npy --texts T.npy --json {out}.json",
    "score landform --images I.npy --labels L.json --queries Q.npy --json {out}.json",
    "score geolocalization --predictions P.csv --ground-truth G.csv --json {out}.json",
    "report results -o {out}.html",
    "report results -o {out}.csv",
    "export hf results -o {out}.yaml",
    "search --store s --text x -o {out}.csv",
    "search --store s --text x --sheet {out}.png",
    "search --store s --text x --heatmap {out}.tif",
    "store export s -o {out}.parquet",
    "data verify nowhere --json {out}.json",
    "data items -t landform --data nowhere -o {out}.csv",
    "inventory sheet nowhere -o {out}.png",
    "inventory export nowhere -o {out}.csv",
)
FOLDERS = (
    "report results --leaderboard {out}",
    "export mteb results/x.json -o {out}",
    "embed -m mars-nano --images nowhere --store {out}",
    "run -m mars-nano -t all --data nowhere --results {out}",
    "score paired --embeddings E.npz --name x --results {out}",
    "store merge a b -o {out}",
    "store subset a --bbox 0,0,1,1 -o {out}",
    "data tiles nowhere.tif --tile-px 64 --out {out}",
    "data synth --out {out}",
    "data download paired --offline --out {out}",
    "demo --out {out}",
)


def _refusal(command: str, out: Path) -> str:
    words = [word.format(out=out) for word in command.split()]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, (result.stdout, result.stderr)
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize("command", FILES + FOLDERS)
def test_a_path_below_a_file_is_refused_before_inputs_are_read(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    message, remedy = _refusal(command, tmp_path / "file" / "out").splitlines()
    assert message.startswith(f"error: {tmp_path / 'file' / 'out'}")
    assert "cannot be written" in message
    assert remedy.strip() == "It is a file, or below a file: name a path below a folder."
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", FILES)
def test_a_folder_is_refused_as_a_file(command: str, tmp_path: Path) -> None:
    suffix = command.rpartition("{out}")[2]
    (tmp_path / f"out{suffix}").mkdir()
    message, remedy = _refusal(command, tmp_path / "out").splitlines()
    assert message.endswith(f"out{suffix}: cannot be written (Is a directory)")
    assert remedy.strip() == "It is a folder: name a file."


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_is_refused_as_a_folder(command: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert "out: cannot be written (Not a directory)" in _refusal(command, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
@pytest.mark.parametrize("command", FILES + FOLDERS)
def test_a_folder_that_accepts_no_file_is_refused(command: str) -> None:
    message, remedy = _refusal(command, Path("/proc/nowhere/out")).splitlines()
    assert message.startswith("error: /proc/nowhere/out")
    assert "cannot be written" in message
    assert remedy.strip().startswith("Check that the folder exists")


def test_a_failing_command_leaves_no_empty_folder(tmp_path: Path) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("no raster")
    out = tmp_path / "new" / "tiles"
    for arguments in (
        ["data", "tiles", text, "--tile-px", 64, "--out", out],
        ["data", "tiles", "--quads", "E000_N00", "--server", "http://127.0.0.1:9", "--out", out],
    ):
        with stamina.set_testing(True, attempts=2):  # without pauses
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 1, result.stderr
        assert "could not be cut" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["notes.tif"]


@pytest.mark.parametrize("command", FILES + FOLDERS)
def test_an_empty_path_is_refused(command: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["" if "{out}" in word else word for word in command.split()]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "an empty path" in result.stderr
    assert "current folder" in result.stderr and not list(tmp_path.iterdir())
    assigned = [*words[: words.index("") - 1], f"{words[words.index('') - 1]}=", "--help"]
    if assigned[-2].startswith("--"):
        assert CliRunner().invoke(app, assigned).exit_code == 0
        assert "an empty path" in CliRunner().invoke(app, assigned[:-1]).stderr


def test_empty_inputs_are_refused() -> None:
    for command in ("report", "store info", "data verify", "export mteb", "compare results"):
        result = CliRunner().invoke(app, [*command.split(), ""])
        assert result.exit_code == 2 and "empty" in result.stderr and "None" not in result.stderr


def test_contents_beside_a_synthetic_planet_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    words = ["data", "synth", "--size", "tiny", "--dry-run", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert f"note: {tmp_path}: not part of the planet, unchanged: notes.txt" in result.stderr
    (tmp_path / "notes.txt").unlink()
    assert not CliRunner().invoke(app, words).stderr


def test_options_with_invalid_values_have_a_remedy(tmp_path: Path) -> None:
    for price, problem in (("nan", "not a finite number"), ("-1", "negative")):
        words = ["report", str(tmp_path), "-o", "x.html", "--gpu-price", price]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2 and problem in result.stderr and "Give a" in result.stderr
    words = ["compare", str(tmp_path), str(tmp_path), "--results", "results"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "--results results: no effect" in result.stderr
