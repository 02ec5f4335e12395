"""Charts: curves and bars equal the results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.report.grouping import result_sets
from marsretrieval.report.html.charts import SvgChart, curve_groups, rank_charts
from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_geolocalization, make_paired, result, write
from tests.report.pages import page_of


def recall_and_precision(chart: SvgChart, hue: int) -> np.ndarray:
    (line,) = [line for line in chart.lines if line.hue == hue and not line.kind]
    return (np.array(line.points) - [34, 146]) / [200, -140]


def test_curve_equals_the_result(results: list[Path]) -> None:
    result_set = result_sets([ResultFile.read(path) for path in results])[2]
    groups = curve_groups(result_set)
    assert [group.title for group in groups] == [
        f"{mode} queries, {protocol}"
        for protocol in ("strict", "published")
        for mode in ("text", "image", "hybrid")
    ]
    assert [group.open for group in groups] == [True] + [False] * 5
    entry, chart = result_set.entries[0], groups[0].charts[0]
    points = entry.metrics["cones/text"]["strict"]["curve"]
    drawn = recall_and_precision(chart, entry.hue)
    last = points[-1]
    assert drawn[-1] == pytest.approx([last["recall"], last["precision"]])
    assert 2 < len(drawn) < len(points)
    for point in points:  # no point is further than half a unit from the line
        position = np.array([point["recall"] * 200, point["precision"] * 140])
        ends = zip(drawn * [200, 140], drawn[1:] * [200, 140], strict=False)
        assert min(distance(position, a, b) for a, b in ends) < 0.5
    assert chart.label.startswith("Precision over recall for cones, text queries, strict: ")
    assert f"{entry.label} " in chart.label


def distance(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    length = (b - a) @ (b - a)
    share = np.clip((point - a) @ (b - a) / length, 0, 1) if length else 0.0
    return float(np.linalg.norm(point - a - share * (b - a)))


def test_charts_are_inline_svg_with_titles(results: list[Path], tmp_path: Path) -> None:
    page = page_of(results, tmp_path / "report.html")
    curves = page.section("geolocalization-3-curves").all("svg", class_="chart")
    assert len(curves) == 12
    lines = curves[0].all("polyline")
    assert {"ceiling", "chance", "own"} <= {line.attributes["class"] for line in lines}
    assert all(line.one("title").text for line in lines)
    own = {line.attributes["stroke"] for line in curves[0].all("polyline", class_="own")}
    assert len(own) == 2 and own < {"var(--c1)", "var(--c2)", "var(--c3)"}
    bars = page.section("paired-image-text-1-ranks").all("rect")
    assert any(bar.all("title") and "rank 1:" in bar.one("title").text for bar in bars)


@pytest.mark.parametrize("points", [1, 2])
def test_curve_of_one_tile_is_visible(points: int) -> None:
    made = make_geolocalization(modes=("text",))
    for group in made.groups.values():
        for protocol in (group.strict, group.published):
            if "curve" in protocol:
                protocol["curve"] = protocol["curve"][:points]  # type: ignore[index]
    (result_set,) = result_sets([ResultFile(result("geolocalization", "a", made))])
    for group in curve_groups(result_set):
        kinds = [line.kind for line in group.charts[0].lines]
        assert ("dot" in kinds) == (points == 1)


def test_omitted_charts_are_counted() -> None:
    made = make_geolocalization(landforms=[f"l{n}" for n in range(3)], modes=("text", "image"))
    one = result("geolocalization", "m", made)
    results = [ResultFile(replace(one, model={**one.model, "id": f"m{n:03d}"})) for n in range(120)]
    (result_set,) = result_sets(results)
    groups = {
        group.title: (len(group.charts), group.left_out) for group in curve_groups(result_set)
    }
    assert groups["text queries, strict"] == (3, 0)
    assert groups["image queries, strict"] == (1, 2)


def test_ranks_are_counted_in_bins_that_add_up(tmp_path: Path) -> None:
    made = make_paired(0.8)
    path = write(result("paired-image-text", "a", made), made, tmp_path)
    (result_set,) = result_sets([ResultFile.read(path)])
    (chart,) = rank_charts(result_set)
    shares = [bar.height / 140 for bar in chart.bars if bar.hue == 1]
    ranks = np.array(made.groups["all"].per_query["t2i_rank"])
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx((ranks == 1).mean())
    assert shares[1] == pytest.approx(((ranks > 1) & (ranks < 4)).mean())
    assert f"median rank {np.median(ranks):g} text to image" in chart.note
    assert [text for _, text in chart.ticks] == ["1", "2", "4", "11", "31", "101"]
