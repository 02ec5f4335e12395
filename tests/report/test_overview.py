"""Table over all tasks, and the options that select parts of the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import rankdata

from marsretrieval.report.html.page import write_html
from marsretrieval.report.overview import mean_ranks, overview_table
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import RunResult, read_result
from tests.report.made import make_landform, make_paired, result


@pytest.fixture(scope="module")
def run_results(results: list[Path]) -> list[RunResult]:
    return [read_result(path) for path in results]


def test_each_task_has_one_column_with_its_main_metric(run_results: list[RunResult]) -> None:
    table = overview_table(run_results)
    assert table is not None
    assert [f"{column.over} {column.heading}".strip() for column in table.columns] == [
        "params (M)", "dim", "paired-image-text MRR, text to image", "landform mAP",
        "geolocalization AP, image", "mean rank",
    ]  # fmt: skip
    by_model = {row.name: [cell.value for cell in row.cells] for row in table.rows}
    assert list(by_model) == ["sharp-1", "blurred-2", "eyes-only", "chance"]
    for run in run_results:
        group = "mean over landforms/image" if run.task == "geolocalization" else "all"
        key = {"paired-image-text": "t2i_mrr", "landform": "mAP"}.get(run.task, "average_precision")
        column = ["paired-image-text", "landform", "geolocalization"].index(run.task) + 2
        strict: Any = run.metrics[group]["strict"]
        assert by_model[str(run.model["id"])][column] == strict[key]
    assert by_model["sharp-1"][0] == 1.0 and by_model["sharp-1"][-1] == 1.0
    assert by_model["blurred-2"][-1] == 2.0 and by_model["eyes-only"][-1] is None


def test_mean_ranks_equal_those_of_scipy() -> None:
    columns = [
        {"a": 0.3, "b": 0.3, "c": 0.1, "d": 0.9},
        {"a": 0.5, "b": 0.6, "c": 0.6},
    ]
    expected = [rankdata([-column[name] for name in "abc"], method="average") for column in columns]
    means = [sum(ranks) / 2 for ranks in zip(*expected, strict=True)]
    assert mean_ranks(columns) == dict(zip("abc", means, strict=True))


def test_results_on_other_items_are_counted() -> None:
    runs = [
        result("landform", "a", make_landform(0.5)),
        result("landform", "b", make_landform(0.9)),
        result("landform", "a", make_landform(0.5, classes=4)),
        result("paired-image-text", "b", make_paired(0.5)),
    ]
    table = overview_table(runs)
    assert table is not None and "1 result on other items" in table.remarks
    ranks = {row.name: row.cells[-1].value for row in table.rows}
    assert ranks == {"a": None, "b": 1.0, "chance": None}


def test_protocol_task_and_intervals_select_parts(results: list[Path], marsretrieval: Any) -> None:
    folder = results[0].parent.parent
    text = marsretrieval(
        "report", folder, "--protocol", "published", "-t", "geo", "--no-intervals", "--md"
    ).stdout
    assert "### Overview, published protocol" in text and "geolocalization: AUPRC" in text
    assert "| published |" in text and "strict" not in text and "[" not in text
    assert "landform:" not in text and "| at K |" not in text
    both = marsretrieval("report", folder, "--md").stdout
    assert both.index("### Overview") < both.index("### paired") and "| strict |" in both
    of_task = json.loads(marsretrieval("report", folder, "-t", "landform", "--json").stdout)
    assert {item["task"] for item in of_task} == {"landform"}
    refused = marsretrieval("report", folder, "--json", "--no-intervals", code=2)
    assert "apply only to tables" in refused.stderr
    assert "unknown protocol" in marsretrieval("report", folder, "--protocol", "x", code=2).stderr
    only = results[0]
    assert "unknown result of task" in marsretrieval("report", only, "-t", "geo", code=2).stderr


def test_page_begins_with_the_overview(results: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_html([ResultFile.read(path) for path in results], path, thumbnails=False)
    text = path.read_text()
    assert text.index('id="overview"') < text.index('class="cards"')
    assert "mean rank" in text and "params (M)" in text


def test_ablations_do_not_change_mean_ranks() -> None:
    plain = [
        result(task, model, outcome)
        for model, noise in (("first", 0.4), ("second", 1.5))
        for task, outcome in (
            ("landform", make_landform(noise)),
            ("paired-image-text", make_paired(noise)),
        )
    ]
    changed = [
        replace(made, settings={"options": {"dim": 64}}, seed=0)
        for made in plain
        if made.model["id"] == "first"
    ]
    table = overview_table([*plain, *changed])
    assert table is not None
    ranks = {row.name: row.cells[-1].value for row in table.rows if row.kind == "model"}
    assert ranks == {"first": 1.0, "second": 2.0, "first [64 dimensions]": None}
    alone = overview_table(changed)
    assert alone is not None and alone.rows[0].cells[-1].value == 1.0
