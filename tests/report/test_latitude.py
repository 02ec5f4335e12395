"""Tables of geo-localization by latitude."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from marsretrieval.results import read_result


def test_latitude_tables_average_to_the_task(
    results: list[Path], marsretrieval: Callable[..., Result]
) -> None:
    """Check that the bands, weighted by their points, have the mean of their landform."""
    folder = results[0].parent.parent
    text = marsretrieval("report", folder, "--csv", "--by", "latitude").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    bands = [row for row in rows if "/latitude " in row["group"]]
    assert {row["metric"] for row in bands} == {"average_precision", "recall", "precision"}
    made = read_result(next(path for path in results if path.stem == "geolocalization"))
    strict = made.metrics["cones/text"]["strict"]
    points = {band["band"].replace("..", " to "): band["points"] for band in strict["by_latitude"]}
    total = sum(
        float(row["value"]) * points[row["group"].partition("/latitude ")[2]]
        for row in bands
        if row["model"] == made.model["id"]
        and row["metric"] == "average_precision"
        and row["group"].startswith("cones/text/")
    )
    assert total / sum(points.values()) == pytest.approx(strict["average_precision"])
    table = marsretrieval("report", folder, "--md", "--by", "latitude").stdout
    assert "### AP by latitude, strict" in table and "| cones, text | -30 to 0 |" in table


def test_latitude_needs_tables_of_geolocalization(
    results: list[Path], marsretrieval: Callable[..., Result]
) -> None:
    folder = results[0].parent.parent
    for options in (["--by", "longitude"], ["--by", "latitude", "-t", "landform"],
                    ["--by", "latitude", "--json"]):  # fmt: skip
        marsretrieval("report", folder, *options, code=2)
