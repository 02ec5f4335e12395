"""Means and spreads over seeds in tables, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from marsretrieval.report.grouping import average_seeds, seeds_of
from marsretrieval.report.overview import overview_table
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import RunResult
from tests.report.made import make_landform, result

SEEDS = (4, 1, 2)


@pytest.fixture(scope="module")
def seeded() -> list[RunResult]:
    return [
        replace(result("landform", "drawn", make_landform(0.9, seed=seed)), seed=seed)
        for seed in SEEDS
    ]


@pytest.fixture
def folder(tmp_path: Path, seeded: list[RunResult]) -> Path:
    for made in seeded:
        made.write(tmp_path / "drawn" / f"landform.seed-{made.seed}.json")
    return tmp_path


def test_mean_and_sample_deviation(seeded: list[RunResult]) -> None:
    (file,) = average_seeds(map(ResultFile, seeded))
    values = [made.metrics["all"]["strict"]["mAP"] for made in seeded]
    average = file.result.metrics["all"]
    assert average["strict"]["mAP"] == pytest.approx(sum(values) / 3, abs=1e-15)
    assert average["spread"]["strict"]["mAP"] == pytest.approx(statistics.stdev(values))  # type: ignore[typeddict-item]
    assert seeds_of(file.result) == [1, 2, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"options": {"templates": 5}}},
        {"settings": {"limit": 10}},
        {"protocol_versions": {"strict": "0.9"}},
        {"seed": SEEDS[0]},
    ],
)
def test_only_results_that_differ_in_nothing_else(
    seeded: list[RunResult], change: dict[str, object]
) -> None:
    changed = replace(seeded[1], **change)  # type: ignore[arg-type]
    files = average_seeds(map(ResultFile, [seeded[0], changed]))
    assert len(files) == 2 and not any(seeds_of(file.result) for file in files)


def test_csv_has_both_on_request(folder: Path, marsretrieval: Callable[..., Result]) -> None:
    def rows(*options: str) -> list[dict[str, str]]:
        text = marsretrieval("report", folder, "--csv", *options).stdout
        lines = csv.DictReader(io.StringIO(text))
        return [x for x in lines if x["metric"] == "mAP" and x["protocol"] == "strict"]

    (mean, chance), seeds = rows(), rows("--per-seed")
    assert mean["seeds"] == "3" and not chance["seeds"]
    values = [float(row["value"]) for row in seeds if row["source"] == ""]
    assert len(values) == 3
    assert float(mean["value"]) == pytest.approx(statistics.fmean(values))
    assert float(mean["spread"]) == pytest.approx(statistics.stdev(values))


def test_json_has_the_results_and_then_the_mean(
    folder: Path, marsretrieval: Callable[..., Result]
) -> None:
    *single, mean = json.loads(marsretrieval("report", folder, "--json").stdout)
    assert {made["seed"] for made in single} == set(SEEDS)
    assert mean["settings"]["seeds"] == [1, 2, 4] and "spread" in mean["metrics"]["all"]


def test_tables_show_the_spread(folder: Path, marsretrieval: Callable[..., Result]) -> None:
    text = marsretrieval("report", folder, "--md", "--details", "--no-intervals").stdout
    row = next(line for line in text.splitlines() if "| both | drawn |" in line)
    assert row.count("±") >= 3 and "Means over 3 seeds" in text
    page = folder / "page.html"
    marsretrieval("report", folder, "-o", page)
    assert "Means over 3 seeds" in page.read_text(encoding="utf-8")


def test_overview_ranks_the_mean(seeded: list[RunResult]) -> None:
    table = overview_table(average_seeds(map(ResultFile, seeded)))
    assert table is not None
    assert [row.name for row in table.rows if row.kind == "model"] == ["drawn"]
