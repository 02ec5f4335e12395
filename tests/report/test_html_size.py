"""A page of sixteen models and many landforms stays small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_geolocalization, make_landform, result
from tests.report.pages import page_of

TASKS = ("landform", "geolocalization")


def test_page_of_sixteen_models_stays_small(tmp_path: Path) -> None:
    classes = [f"a_landform_of_some_length_{number:02d}" for number in range(48)]
    # Few different outcomes: the page does not know.
    outcomes = [
        (make_landform(noise, names=classes),
         make_geolocalization(noise, landforms=classes[:12], modes=("text",), tiles=400))
        for noise in (0.4, 0.8, 1.6)
    ]  # fmt: skip
    results = [
        [result(task, "a", outcome) for task, outcome in zip(TASKS, pair, strict=True)]
        for pair in outcomes
    ]
    files = [
        ResultFile(replace(one, model={**one.model, "id": f"model-with-a-long-name-{number:02d}"}))
        for number in range(16)
        for one in results[number % 3]
    ]
    out = tmp_path / "report.html"
    page = page_of(files, out)
    assert out.stat().st_size < 2_000_000  # 2.5 MB of pictures come on top at most
    matrix = page.section("landform-1-per-class").all("table")[0]
    assert len(matrix.rows()) == 48 and len(matrix.rows()[0]) == 18  # and chance
    assert "tall" in matrix.attributes["class"]
    assert len(page.section("geolocalization-2-curves").all("svg", class_="chart")) == 24
    legend = page.section("geolocalization-2-curves").all("ul", class_="legend")[0]
    assert len(legend.all("li")) == 7 and "10 others" in legend.text
