"""Charts: colours by CSS, few bytes, and curves that are what the results say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.report.grouping import result_sets
from marsretrieval.report.html._charts import curve_groups, rank_charts
from marsretrieval.report.html._svg import COLOURS, INK, drawing, inline_svg, panel
from marsretrieval.report.html._thin import thinned
from marsretrieval.report.result_file import ResultFile
from tests.report.made import make_geolocalization, make_paired, result, write
from tests.report.pages import Page


def chart(prefix: str = "x", label: str = "label") -> str:
    with drawing():
        figure, axes = panel()
        axes.plot([0, 0.123456, 1], [1, 0.5, 0.25], color=COLOURS[3], linestyle="--")
        axes.plot([0.5], [0.5], "o", color=INK)
        axes.set_xlabel("<recall> & more")
        axes.set_ylim(0, 1)
        return inline_svg(figure, prefix, label)


def test_colours_are_variables_and_nothing_styles_the_page() -> None:
    svg = chart()
    assert "var(--c3)" in svg and "var(--ink)" in svg and 'class="tm"' in svg
    assert not re.search(r"#[0-9a-f]{6}\b(?!\")", svg.replace("url(#", "").replace('href="#', ""))
    assert "<style" not in svg and "font-family" not in svg and "<metadata" not in svg
    assert "&lt;recall&gt; &amp; more" in svg and ">0.2<" in svg


def test_the_same_chart_is_the_same_text_and_ids_do_not_meet() -> None:
    assert chart("a") == chart("a")
    first, second = (set(re.findall(r' id="([^"]*)"', chart(name))) for name in "ab")
    assert first and not first & second
    for name, ids in (("a", first), ("b", second)):
        assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', chart(name))) == ids


def test_what_is_read_out_is_escaped() -> None:
    svg = chart(label='"><script>')
    (element,) = Page(svg).all("svg")
    assert element.attributes["aria-label"] == '"><script>'


def test_settings_of_the_reader_play_no_part() -> None:
    import matplotlib as mpl

    before = chart()
    with mpl.rc_context({"svg.fonttype": "path", "font.size": 30, "axes.grid": False}):
        assert chart() == before
        assert mpl.rcParams["font.size"] == 30


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.floats(0.001, 0.2))
@settings(max_examples=60, deadline=None)
def test_a_thinned_curve_stays_within_its_tolerance(values: list[float], tolerance: float) -> None:
    x, y = np.linspace(0, 1, len(values)), np.array(values)
    thin_x, thin_y = thinned(x, y, tolerance)
    assert thin_x[0] == x[0] and thin_x[-1] == x[-1] and set(thin_x) <= set(x)
    # Along y a point may be further off than from the line, but never where the line is level.
    for px, py in zip(x, y, strict=True):
        segments = zip(thin_x, thin_y, thin_x[1:], thin_y[1:], strict=False)
        assert min(_distance(px, py, *each) for each in segments) <= tolerance + 1e-12


def _distance(px: float, py: float, ax: float, ay: float, bx: float, by: float) -> float:
    dx, dy = bx - ax, by - ay
    along = min(1.0, max(0.0, ((px - ax) * dx + (py - ay) * dy) / (dx * dx + dy * dy)))
    return float(np.hypot(px - ax - along * dx, py - ay - along * dy))


def test_a_curve_ends_where_its_points_say(results: list[Path]) -> None:
    found = result_sets([ResultFile.read(path) for path in results])[2]
    groups = curve_groups(found)
    assert [group.title for group in groups] == [
        f"{mode} queries, {protocol}"
        for protocol in ("strict", "published")
        for mode in ("text", "image", "hybrid")
    ]
    assert [group.open for group in groups] == [True] + [False] * 5
    svg = Page(groups[0].charts[0].svg).all("svg")[0]
    entry = found.entries[0]
    last = entry.metrics["cones/text"]["strict"]["curve"][-1]
    (line,) = [
        each.attributes["d"]
        for each in svg.all("path")
        if f"var(--c{entry.hue})" in each.attributes.get("style", "")
    ]
    x, y = (float(each) for each in re.findall(r"[-\d.]+", line)[-2:])
    left, width, bottom, height = 0.15 * 237.6, 0.83 * 237.6, 180 * 0.835, 180 * 0.805
    assert (x - left) / width * 1.012 == pytest.approx(last["recall"], abs=0.002)
    assert (bottom - y) / height * 1.03 == pytest.approx(last["precision"], abs=0.002)
    assert "cones, text queries, strict: " in svg.attributes["aria-label"]


def test_a_curve_of_one_tile_is_seen(tmp_path: Path) -> None:
    made = make_geolocalization(modes=("text",))
    for group in made.groups.values():
        if "curve" in group.strict:
            group.strict["curve"] = group.strict["curve"][:1]  # type: ignore[index]
    (found,) = result_sets([ResultFile(result("geolocalization", "a", made))])
    assert "<use " in curve_groups(found)[0].charts[0].svg


def test_more_charts_than_anyone_looks_at_are_counted() -> None:
    made = make_geolocalization(landforms=[f"l{n}" for n in range(3)], modes=("text", "image"))
    results = [ResultFile(result("geolocalization", f"m{n:03d}", made)) for n in range(120)]
    (found,) = result_sets(results)
    groups = {group.title: (len(group.charts), group.left_out) for group in curve_groups(found)}
    assert groups["text queries, strict"] == (3, 0)
    assert groups["image queries, strict"] == (1, 2)


def test_ranks_are_counted_in_bins_that_add_up(tmp_path: Path) -> None:
    made = make_paired(0.8)
    path = write(result("paired-image-text", "a", made), made, tmp_path)
    (found,) = result_sets([ResultFile.read(path)])
    (drawn,) = rank_charts(found)
    bars = re.findall(r'<path d="M([\d.]+) ([\d.]+)L[\d.]+ [\d.]+L[\d.]+ ([\d.]+)[^"]*" '
                      r'style="fill: var\(--c1\)"', drawn.svg)  # fmt: skip
    unit = 180 * 0.805 / 1.03
    shares = [(float(bottom) - float(top)) / unit for _, bottom, top in bars]
    ranks = np.array(made.groups["all"].per_query["t2i_rank"])
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert shares[0] == pytest.approx((ranks == 1).mean(), abs=0.003)
    assert shares[1] == pytest.approx(((ranks > 1) & (ranks < 4)).mean(), abs=0.003)
    assert f"median rank {np.median(ranks):g} text to image" in drawn.note
