"""Chance in every table, and marks on intervals from too few blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from marsretrieval.report.boards import boards
from marsretrieval.report.chance import DAGGER, chance_of, interval_note
from marsretrieval.report.formats import latex, markdown, tidy_csv
from marsretrieval.report.leaderboard import leaderboards
from marsretrieval.results import RunResult
from tests.report.made import make_geolocalization, make_landform, make_paired, result

TASKS = {
    "paired-image-text": make_paired,
    "landform": make_landform,
    "geolocalization": make_geolocalization,
}


def made(task: str, **changes: Any) -> list[RunResult]:
    """Two models; `changes` of every evaluation of the second."""
    first, second = (result(task, name, TASKS[task](noise)) for name, noise in
                     (("a", 0.4), ("b", 1.2)))  # fmt: skip
    metrics = {group: each | changes for group, each in second.metrics.items()}
    return [first, replace(second, metrics=metrics)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("details", [False, True])
def test_every_section_of_every_table_ends_with_chance(task: str, details: bool) -> None:
    (board,) = boards(made(task), details=details)
    for section in board.sections:
        *models, last = section
        assert [row.chance for row in section] == [False, False, True]
        assert last.model == "chance" and {row.model for row in models} == {"a", "b"}
        shown = [figure for figure in last.figures if figure is not None]
        assert shown and not any(figure.best or figure.low is not None for figure in shown)


@pytest.mark.parametrize("task", TASKS)
def test_every_format_shows_chance(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = made(task)
    sections = len(boards(results)[0].sections)
    leaderboards(results)
    terminal = capsys.readouterr().out
    assert sum(" chance " in line for line in terminal.splitlines()) == sections
    assert markdown(results).count("| chance |") == sections
    assert latex(results).count("& chance &") == sections
    assert ",random ranking," in tidy_csv(results)
    for text in (terminal, markdown(results), latex(results)):
        assert "Chance: the expectation of a random ranking" in " ".join(text.split())


def test_results_without_chance_have_no_such_row() -> None:
    results = [
        replace(each, metrics={
            group: {k: v for k, v in metrics.items() if k not in ("chance", "interval_basis")}
            for group, metrics in each.metrics.items()
        })
        for each in made("geolocalization")
    ]  # fmt: skip
    (board,) = boards(results, details=True)
    assert not any(row.chance for row in board.rows) and not board.note
    mixed = boards([results[0], made("geolocalization")[1]])[0]
    assert [row.model for row in mixed.sections[0]][-1] == "chance"


def test_models_over_other_items_have_a_chance_of_their_own() -> None:
    other = {"published": {"mAP": 0.5}, "strict": {"mAP": 0.5}}
    rows = boards(made("landform", chance=other))[0].rows
    assert [row.model for row in rows if row.chance] == ["chance (a)", "chance (b)"]
    assert chance_of({"a": {"chance": other}, "b": {"chance": other}})[0][0] == "chance"


def test_intervals_from_few_blocks_are_marked() -> None:
    few = {p: {"unit": "spatial blocks", "count": 4} for p in ("published", "strict")}
    many = {p: {"unit": "spatial blocks", "count": 12} for p in ("published", "strict")}
    metrics = made("geolocalization")[0].metrics
    for basis, mark in ((few, True), (many, False)):
        one = replace(made("geolocalization")[0], metrics={
            group: each | {"interval_basis": basis} for group, each in metrics.items()
        })  # fmt: skip
        (board,) = boards([one], details=True)
        marks = [
            figure.interval(column).endswith(DAGGER)
            for row in board.rows for column, figure in row.cells()
            if figure is not None and figure.low is not None
        ]  # fmt: skip
        assert marks and set(marks) == {mark}
        assert (f"4{DAGGER}" in board.note) == mark == ("Unreliable" in board.note)
        assert (DAGGER in markdown([one])) == (r"\textdagger{}" in latex([one])) == mark
        assert f",spatial blocks,{4 if mark else 12}\n" in tidy_csv([one])


def test_the_note_names_what_was_resampled() -> None:
    def basis(count: int, unit: str = "spatial blocks") -> dict[str, Any]:
        return {"interval_basis": {"strict": {"unit": unit, "count": count}}}

    assert interval_note([("all", basis(1234, "pairs"))]) == "Intervals are from 1,234 pairs."
    counts = {"fans/text": 4, "fans/image": 4, "cones/text": 11, "mean over landforms/text": 4}
    note = interval_note((group, basis(count)) for group, count in counts.items())
    assert note == (
        f"Intervals are from spatial blocks: fans 4{DAGGER}, cones 11, the mean over landforms at "
        f"least 4{DAGGER}. {DAGGER} Unreliable: from fewer than 10 spatial blocks."
    )
    assert interval_note([("all", {})]) == ""
