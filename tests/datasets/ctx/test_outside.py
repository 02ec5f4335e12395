"""A box that extends beyond the mosaic."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.datasets.ctx import part_outside
from marsretrieval.geo import Box


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ((0, -90, 10, 90), "latitudes -90 to -88 and 88 to 90 of the box"),
        ((0, 80, 10, 89), "latitudes 88 to 89 of the box"),
        ((0, -89.5, 10, -80), "latitudes -89.5 to -88 of the box"),
        ((0, -88, 10, 88), None),
    ],
)
def test_latitudes_outside_the_mosaic_are_named(box: tuple[float, ...], part: str | None) -> None:
    text = part_outside(Box(*box))
    assert text is None if part is None else text is not None and part in text


def test_command_reports_it() -> None:
    words = ["data", "tiles", "--bbox", "0,84,4,90", "--dry-run", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "warning: --bbox 0,84,4,90: latitudes 88 to 90" in done.stderr
    assert "88 to 90" in json.loads(done.stdout)["outside"]
    inside = CliRunner().invoke(app, ["data", "tiles", "--bbox", "0,0,4,4", "--dry-run", "--json"])
    assert json.loads(inside.stdout)["outside"] is None and "warning" not in inside.stderr
