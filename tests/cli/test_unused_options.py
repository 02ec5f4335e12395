"""Tests of options that would have no effect: each is refused with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app

COMMANDS = (
    ("report results -o x.csv --thumbnails", "--thumbnails/--no-thumbnails: apply only to HTML"),
    ("report results --title=", "--title: apply only to HTML"),
    ("report results -o x.html --details", "--details: apply only to tables, not to html"),
    ("report results --json --by latitude", "--by: apply only to tables, not to json"),
    ("report results --json --no-references", "--references/--no-references: no effect on JSON"),
    ("report results -o x.json --per-seed", "--per-seed: no effect on JSON"),
    ("report results --leaderboard d --thumbnails", "no effect with --leaderboard"),
    ("search --store s --text x -o x.csv --style light", "--style and --basemap apply only"),
    ("search --store s --text x --keep-examples", "--keep-examples requires a tile"),
    ("store index s --drop --anew", "--drop and --anew exclude each other"),
    ("compare a b --json --top 4", "--top does not apply to --json"),
    ("data download landform --cache c", "--cache: only for images from links"),
    ("data download landform --workers 2 --strict", "--workers, --strict: only for images"),
    ("data tiles E000_N00.zip --server http://x", "--server: only for downloads"),
    ("score paired --images I --texts T --name x", "--name: requires --embeddings"),
)


@pytest.mark.parametrize(("command", "message"), COMMANDS)
def test_options_without_effect_are_refused(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("E000_N00.zip").write_text("")
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2, (result.stdout, result.stderr)
    error, remedy = result.stderr.splitlines()
    assert message in error
    assert remedy.startswith("  ") and remedy.endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["E000_N00.zip"]


def test_no_error_names_a_hidden_option(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--no-thumbnails"])
    assert done.exit_code == 2
    assert "--images" not in done.stderr
