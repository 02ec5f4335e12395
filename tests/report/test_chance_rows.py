"""Chance in every table, and marks on intervals from too few blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from marsretrieval.report.table import DAGGER, chance_of, interval_note
from marsretrieval.report.tables import model_tables
from marsretrieval.results import RunResult
from tests.report.made import (
    csv_of,
    latex_of,
    make_geolocalization,
    make_landform,
    make_paired,
    markdown_of,
    print_results,
    result,
)

TASKS = {
    "paired-image-text": make_paired,
    "landform": make_landform,
    "geolocalization": make_geolocalization,
}


def made(task: str, **changes: Any) -> list[RunResult]:
    """Write results of two models, with `changes` of all evaluations of the second."""
    first, second = (result(task, name, TASKS[task](noise)) for name, noise in
                     (("a", 0.4), ("b", 1.2)))  # fmt: skip
    metrics = {group: item | changes for group, item in second.metrics.items()}
    return [first, replace(second, metrics=metrics)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("details", [False, True])
def test_every_section_of_every_table_ends_with_chance(task: str, details: bool) -> None:
    (table,) = model_tables(made(task), details=details)
    for section in table.sections:
        *models, last = section
        assert [row.kind == "chance" for row in section] == [False, False, True]
        assert last.name == "chance" and {row.name for row in models} == {"a", "b"}
        filled = [cell for cell in last.cells if cell.value is not None]
        assert filled and not any(cell.best or cell.low is not None for cell in filled)


@pytest.mark.parametrize("task", TASKS)
def test_every_format_shows_chance(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = made(task)
    sections = len(model_tables(results)[0].folded().sections)
    print_results(results)
    terminal = capsys.readouterr().out
    assert sum(" chance " in line for line in terminal.splitlines()) == sections
    assert markdown_of(results).count("| chance |") == sections
    assert latex_of(results).count("& chance &") == sections
    assert ",random ranking," in csv_of(results)
    for text in (terminal, markdown_of(results), latex_of(results)):
        assert "Chance: expected value for a random ranking" in " ".join(text.split())


def test_results_without_chance_have_no_chance_row() -> None:
    results = [
        replace(item, metrics={
            group: {k: v for k, v in metrics.items() if k not in ("chance", "interval_basis")}
            for group, metrics in item.metrics.items()
        })
        for item in made("geolocalization")
    ]  # fmt: skip
    (table,) = model_tables(results, details=True)
    assert not any(row.kind == "chance" for row in table.rows) and not table.note
    mixed = model_tables([results[0], made("geolocalization")[1]])[0]
    assert [row.name for row in mixed.sections[0]][-1] == "chance"


def test_chance_is_per_set_of_items() -> None:
    other = {"published": {"mAP": 0.5}, "strict": {"mAP": 0.5}}
    rows = model_tables(made("landform", chance=other))[0].folded().rows
    assert [row.name for row in rows if row.kind == "chance"] == ["chance (a)", "chance (b)"]
    assert chance_of({"a": {"chance": other}, "b": {"chance": other}})[0][0] == "chance"


def test_intervals_from_few_blocks_are_marked() -> None:
    few = {p: {"unit": "spatial blocks", "count": 4} for p in ("published", "strict")}
    many = {p: {"unit": "spatial blocks", "count": 12} for p in ("published", "strict")}
    metrics = made("geolocalization")[0].metrics
    for basis, mark in ((few, True), (many, False)):
        one = replace(made("geolocalization")[0], metrics={
            group: item | {"interval_basis": basis} for group, item in metrics.items()
        })  # fmt: skip
        (table,) = model_tables([one], details=True)
        marks = [
            cell.interval().endswith(DAGGER)
            for row in table.rows
            for cell in row.cells
            if cell.low is not None
        ]
        assert marks and set(marks) == {mark}
        assert (f"4{DAGGER}" in table.note) == mark == ("Unreliable" in table.note)
        assert (DAGGER in markdown_of([one])) == (r"\textdagger{}" in latex_of([one])) == mark
        assert f",spatial blocks,{4 if mark else 12},," in csv_of([one])


def test_note_names_the_resampled_unit() -> None:
    def basis(count: int, unit: str = "spatial blocks") -> dict[str, Any]:
        return {"interval_basis": {"strict": {"unit": unit, "count": count}}}

    assert interval_note([("all", basis(1234, "pairs"))]) == "Intervals are from 1,234 pairs."
    counts = {"fans/text": 4, "fans/image": 4, "cones/text": 11, "mean over landforms/text": 4}
    note = interval_note((group, basis(count)) for group, count in counts.items())
    assert note == (
        f"Intervals are from spatial blocks: 4{DAGGER} for fans, 11 for cones, at least 4{DAGGER} "
        f"for the mean over landforms. {DAGGER} Unreliable: from fewer than 10 spatial blocks."
    )
    assert interval_note([("all", {})]) == ""
