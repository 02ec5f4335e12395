"""Tables of one evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marsretrieval.metrics import landform, paired
from marsretrieval.report.render import print_evaluation
from marsretrieval.report.table import ResultTable
from marsretrieval.report.tables import evaluation_tables
from tests.metrics.inputs import geo_input, landform_input, paired_input, strict_geo, unit


def cells(table: ResultTable) -> dict[str, list[str]]:
    """Map row names to their texts with intervals."""
    return {
        row.name: [
            f"{cell.text()} {cell.interval() if cell.metric.percent else ''}".strip()
            for cell in row.cells
        ]
        for row in table.rows
    }


def headings(table: ResultTable) -> list[str]:
    return [column.heading for column in table.columns]


def test_pair_metrics_are_shown_with_intervals() -> None:
    figures = paired.evaluate(**paired_input(), resamples=50).to_dict()
    (table,) = evaluation_tables(figures)
    assert table.title == "paired-image-text: 150 pairs"
    assert headings(table) == ["published", "strict", "chance"]
    texts = cells(table)
    assert len(texts) == 10 and len(table.sections) == 4
    low, high = (100 * figure for figure in figures["intervals"]["strict"]["t2i_r10"])
    expected = f"{100 * figures['strict']['t2i_r10']:.1f} [{low:.1f}, {high:.1f}]"
    assert texts["text to image R@10"] == [expected, expected, "6.7"]
    assert texts["image to text MedR"] == ["2", "2", "75.5"]


def test_class_table_preserves_brackets_in_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = landform_input(images=90)
    made["labels"] = [f"[red]{label}" for label in made["labels"]]
    made["query_names"] = [f"[red]{name}" for name in made["query_names"]]
    figures = landform.evaluate(**made, resamples=0).to_dict()
    overall, classes = evaluation_tables(figures, title="[mine]")
    by_chance = f"{100 * figures['chance']['strict']['mAP']:.1f}"
    assert cells(overall)["mAP"] == [f"{100 * figures['strict']['mAP']:.1f}"] * 2 + [by_chance]
    assert classes.title == "per class, both protocols"
    assert len(cells(classes)) == 9
    print_evaluation(figures)
    assert "[red]class_00" in capsys.readouterr().out
    first = figures["strict"]["per_class"]["[red]class_00"]
    assert cells(classes)["[red]class_00"][0] == f"{100 * first['mAP']:.1f}"
    expected = figures["chance"]["strict"]["per_class"]["[red]class_00"]["mAP"]
    assert classes.columns[4].heading == "mAP" and classes.columns[4].over == "by chance"
    assert cells(classes)["[red]class_00"][4] == f"{100 * expected:.1f}"


def test_classes_have_separate_tables_if_protocols_differ(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = [f"class {row // 20}" for row in range(60)]
    same = unit(np.ones((60, 4)))
    names = sorted(set(labels))
    figures = landform.evaluate(
        same, same[:3], labels=labels, image_ids=list(map(str, range(60))), query_names=names,
        resamples=0,
    ).to_dict()  # fmt: skip
    titles = [table.title for table in evaluation_tables(figures)]
    assert titles[1:] == ["per class, published", "per class, strict"]
    print_evaluation(figures)
    output = capsys.readouterr().out
    assert "Tied scores: strict mAP is between 0." in output and "and 1.0000." in output


def test_point_table_has_additional_metrics(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = geo_input(tiles=900)
    figures: dict[str, Any] = strict_geo(
        made["scores"], made["corners"], made["truth"], resamples=50
    ).to_dict()
    (table,) = evaluation_tables(figures)
    texts = cells(table)
    best = figures["strict"]["best"]
    assert texts["at K"][1] == f"{best['k']:,}"
    assert texts["precision at K"][1] == f"{100 * best['precision']:.1f}"
    assert texts["relevant tiles"] == ["", str(figures["strict"]["relevant_tiles"]), "", ""]
    chance = figures["chance"]
    assert headings(table)[2:] == [
        "chance, published",
        "chance, strict",
    ]
    assert texts["AUPRC / AP"][2:] == [
        f"{100 * chance['published']['auprc']:.1f}",
        f"{100 * chance['strict']['average_precision']:.1f}",
    ]
    assert texts["AUPRC / AP"][0].startswith(f"{100 * figures['published']['auprc']:.1f} [")
    print_evaluation(figures)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == table.title
    assert "bootstrap" in lines[-1]
