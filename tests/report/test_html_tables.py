"""Leaderboards and class tables: grouping and best values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from marsretrieval.report.grouping import result_sets
from marsretrieval.report.result_files import ResultFile
from marsretrieval.report.tables import leaderboards, per_class_tables
from marsretrieval.results import RunResult
from tests.report.made import make_geolocalization, make_landform, make_paired, result, write
from tests.report.pages import Element, page_of


@dataclass
class Elsewhere:
    task: str
    model: str
    protocol: str = "published"
    group: str = ""
    source: str = "A paper, table 2"
    n: str = "2,287 pairs"
    description: str = "A paper, table 2; evaluated by its authors."
    metrics: Mapping[str, float] = field(default_factory=dict)


def files(*results: RunResult) -> list[ResultFile]:
    return [ResultFile(item) for item in results]


def heads(table: Element) -> list[str]:
    return [cell.text for cell in table.one("thead").all("th")]


def test_metrics_have_intervals_and_the_best_is_bold(results: list[Path], tmp_path: Path) -> None:
    page = page_of(results, tmp_path / "report.html")
    table = page.section("paired-image-text-1-leaderboard").all("table")[0]
    assert "both protocols (they agree)" in heads(table)
    assert heads(table)[-4:] == ["R@1", "R@10", "MRR", "MedR"]
    figures = ResultFile.read(results[0]).result.metrics["all"]
    low, high = (100 * figure for figure in figures["intervals"]["strict"]["t2i_mrr"])
    rows = {row[0]: row[1:] for row in table.rows()}
    assert list(rows) == ["sharp-1", "blurred-2", "chance"]
    expected = figures["chance"]["strict"]
    assert rows["chance"][2:] == [
        f"{100 * expected['t2i_r10']:.1f}", f"{100 * expected['t2i_mrr']:.1f}", "60.5",
    ]  # fmt: skip
    note = page.section("paired-image-text-1-leaderboard").text
    assert "Intervals are from 120 pairs." in note
    assert rows["sharp-1"][3] == f"{100 * figures['strict']['t2i_mrr']:.1f} {low:.1f}–{high:.1f}"
    bold = [cell.text for row in table.all("tr") for cell in row.all("strong")]
    assert bold[:3] == [rows["sharp-1"][column].split()[0] for column in (1, 2, 3)]
    # A median rank is the better the lower.
    assert bold[3] == "1" and float(rows["blurred-2"][4].split()[0]) > 1


def test_differing_protocols_have_separate_columns_and_best_values(tmp_path: Path) -> None:
    tied, good = make_paired(constant=True), make_paired(0.4)
    paths = [
        write(result("paired-image-text", "constant", tied), tied, tmp_path / "constant"),
        write(result("paired-image-text", "good", good), good, tmp_path / "good"),
    ]
    page = page_of(paths, tmp_path / "report.html")
    table = page.section("paired-image-text-1-leaderboard").all("table")[0]
    groups = [cell.text for cell in table.all("th") if "colspan" in cell.attributes]
    assert groups == ["published", "strict"]
    rows = {row[0]: row for row in table.rows()}
    figures = ResultFile.read(paths[0]).result.metrics["all"]
    assert rows["constant"][2].startswith(f"{100 * figures['published']['t2i_r1']:.1f}")
    assert rows["constant"][6].startswith(f"{100 * figures['strict']['t2i_r1']:.1f}")
    ties = {(row[0], row[3]): row[4:] for row in page.section("left-out").one("table").rows()}
    worst, best = figures["ties"]["t2i_mrr"]
    mrr = figures["strict"]["t2i_mrr"]
    expected = [f"{100 * item:.2f}" for item in (worst, mrr, best)]
    assert ties["constant", "MRR, text to image"] == expected
    assert ties["constant", "MedR, image to text"][0] == "120"


def test_different_sets_never_share_a_table_or_a_best(tmp_path: Path) -> None:
    paths = []
    for model, pairs in (("one", 120), ("two", 120), ("alone", 90)):
        made = make_paired(0.5 if model == "one" else 1.0, pairs=pairs)
        paths.append(write(result("paired-image-text", model, made), made, tmp_path / model))
    page = page_of(paths, tmp_path / "report.html")
    first, second = (
        page.section(f"paired-image-text-{number}-leaderboard").all("table")[0] for number in (1, 2)
    )
    assert [row[0] for row in first.rows()] == ["one", "two", "chance"] and first.all("strong")
    assert [row[0] for row in second.rows()] == ["alone", "chance"] and not second.all("strong")
    assert "120 pairs" in first.one("caption").text and "90 pairs" in second.one("caption").text
    assert "not comparable with those of the other sets" in page.section("paired-image-text-2").text


def test_same_tiles_with_other_points_form_another_set() -> None:
    made = make_geolocalization(modes=("text",))
    other = replace(made, n={**made.n, "points/cones": 7})
    sets = result_sets(
        files(result("geolocalization", "a", made), result("geolocalization", "b", other))
    )
    assert [len(item.entries) for item in sets] == [1, 1]
    assert sets[0].set_hash == sets[1].set_hash


def test_vision_only_model_is_listed_for_its_query_modes(
    results: list[Path], tmp_path: Path
) -> None:
    page = page_of(results, tmp_path / "report.html")
    table = page.section("geolocalization-3-leaderboard").one("table")
    bodies = {
        body.all("tr")[0].text: [row.children[0].text for row in body.all("tr")[1:]]
        for body in table.all("tbody")
        if body.attributes.get("class") != "chance"
    }
    assert len(table.all("tbody")) == 2 * len(bodies)
    assert list(bodies) == ["text queries", "image queries", "hybrid queries"]
    assert "eyes-only" in bodies["image queries"] and "eyes-only" not in bodies["text queries"]
    matrix = page.section("geolocalization-3-per-class").all("table")[0]
    column = heads(matrix).index("eyes-only")
    by_mode = [
        [row.children[column].text for row in body.all("tr")[1:]] for body in matrix.all("tbody")
    ]
    assert by_mode[0] == ["–", "–"] and by_mode[2] == ["–", "–"] and "–" not in by_mode[1]


def test_reference_metrics_are_marked_and_never_ranked(results: list[Path], tmp_path: Path) -> None:
    references = [
        Elsewhere("paired-image-text", "famous", metrics={"t2i_r1": 0.999, "t2i_medr": 1.0}),
        Elsewhere("geolocalization", "famous", group="text", metrics={"auprc": 0.5, "best.f1": 1}),
        Elsewhere("landform", "famous", metrics={"no such figure": 1.0}),
    ]
    page = page_of(results, tmp_path / "report.html", references=references)
    text_to_image, image_to_text = page.section("paired-image-text-1-leaderboard").all("table")
    (foreign,) = text_to_image.all("tbody", class_="foreign")
    assert not image_to_text.all("tbody", class_="foreign")
    assert "A paper, table 2; N: 2,287 pairs" in foreign.text and not foreign.all("strong")
    cells = [cell.text for cell in foreign.all("tr")[1].children]
    assert cells[2:] == ["99.9", "–", "–", "1", "–", "–", "–", "–"]
    assert "evaluated by its authors" in page.section("paired-image-text-1-leaderboard").text
    # Beside figures of a paper it must be plain which protocol is whose.
    assert "published" in heads(text_to_image)
    geo = page.section("geolocalization-3-leaderboard").one("table").one("tbody", class_="foreign")
    assert "famous (text queries)" in geo.text and "50.0" in geo.text
    assert not page.section("landform-2-leaderboard").all("tbody", class_="foreign")


def test_classes_are_sorted_from_easiest_to_hardest() -> None:
    made = make_landform(1.2)
    (result_set,) = result_sets(files(result("landform", "a", made)))
    first, *others = per_class_tables(result_set)
    assert first.first and first.protocol == "both protocols" and not any(o.first for o in others)
    facts = sum(column.is_constant for column in first.columns)
    values = [row.cells[facts].value for row in first.rows]
    assert len(values) == 8 and values == sorted(values, key=lambda value: -(value or 0))
    assert [table.metric.heading for table in others] == ["nDCG@10", "Hit@10", "R-Prec"]


def test_classes_have_separate_tables_if_protocols_differ() -> None:
    (result_set,) = result_sets(files(result("landform", "a", make_landform(constant=True))))
    tables = per_class_tables(result_set)
    assert [table.protocol for table in tables] == ["strict"] * 4 + ["published"] * 4
    assert [table.first for table in tables] == [True] + [False] * 7


def test_landforms_are_shown_with_the_ceiling() -> None:
    made = make_geolocalization()
    (result_set,) = result_sets(files(result("geolocalization", "a", made)))
    first = per_class_tables(result_set)[0]
    strict = made.groups["cones/text"].strict
    row = {(row.section, row.name): row for row in first.rows}["text queries", "cones"]
    assert [cell.text() for cell in row.cells[:4]] == [
        str(made.n["points/cones"]),
        str(strict["relevant_tiles"]),
        f"{100 * made.groups['cones/text'].chance['strict']['average_precision']:.1f}",
        f"{100 * strict['ceiling']['average_precision']:.1f}",
    ]
    assert row.cells[4].value == pytest.approx(strict["average_precision"])
    assert re.search(r"Intervals are from spatial blocks: \d+.? for cones", first.note)
    best = next(table for table in per_class_tables(result_set) if table.metric.key == "best.f1")
    cells = {(row.section, row.name): row.cells for row in best.rows}["text queries", "cones"]
    expected = made.groups["cones/text"].chance[best.protocol]["best"]["f1"]
    assert cells[0].text() == f"{100 * expected:.1f}"


def test_models_with_one_name_are_distinguished() -> None:
    made = make_landform()
    plain = result("landform", "model", made)
    official = replace(plain, model={**plain.model, "prompts": {"preset": "official"}})
    half = replace(plain, model={**plain.model, "dtype": "float16"})
    own = replace(plain, model={**plain.model, "checkpoint": "/somewhere/mine.pt"})

    def labels(*results: RunResult) -> set[str]:
        (result_set,) = result_sets(files(*results))
        return {entry.label for entry in result_set.entries}

    assert labels(plain, official, own) == {"model", "model+official", "model+mine.pt"}
    version = replace(plain, model={**plain.model, "checkpoint": "/a/v1.5"})
    theirs = replace(plain, model={**plain.model, "prompts": {"preset": "MTEB's"}})
    assert labels(version, theirs) == {"model+v1.5", "model"}
    assert labels(plain, half) == {"model (float32)", "model (float16)"}
    assert len(labels(plain, plain, plain)) == 3


def test_a_model_has_one_colour_on_the_whole_page() -> None:
    results = [
        result(task, f"model-{number:02d}", make(0.2 + 0.1 * number))
        for task, make in (("landform", make_landform), ("paired-image-text", make_paired))
        for number in range(9)
    ]
    hues = [
        {entry.label: entry.hue for entry in item.entries} for item in result_sets(files(*results))
    ]
    assert hues[0] == hues[1]
    assert sorted(hues[0].values()) == [0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert hues[0]["model-00"] == 1 and hues[0]["model-08"] == 0


def test_missing_metric_is_a_dash() -> None:
    made = result("landform", "a", make_landform())
    figures = dict(made.metrics["all"])
    figures["strict"] = {k: v for k, v in figures["strict"].items() if k != "ndcg@10"}
    (result_set,) = result_sets(files(replace(made, metrics={"all": figures})))
    (table,) = leaderboards(result_set)
    (row,) = [row for row in table.rows if row.kind == "model"]
    assert [cell.text() for cell in row.cells].count("") == 1
