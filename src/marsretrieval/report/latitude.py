"""Tables of geo-localization by latitude: one row per landform, kind of query and band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from marsretrieval.report.columns import Metric
from marsretrieval.report.grouping import ResultSet
from marsretrieval.report.table import Cell, Column, ResultTable, Row
from marsretrieval.report.tables import best_value
from marsretrieval.results import MEAN

LATITUDE_METRICS = (
    Metric(
        "average_precision",
        "AP",
        "mean, over the points of the band, of the precision at the rank that finds the point",
    ),
    Metric("recall", "recall", "share of the points of the band that the first K tiles cover"),
    Metric(
        "precision",
        "precision",
        "share near a point of those of the first K tiles that lie in the band",
    ),
)
_POINTS = Metric("points", "points", "points in the band", percent=False, better=0)


def latitude_tables(result_set: ResultSet) -> list[ResultTable]:
    """Build one table per metric: latitude bands as rows, models as columns.

    Args:
        result_set: Results of one task over the same items.

    Returns:
        Average precision, recall and precision under the strict protocol; empty if no result has
        values by latitude, as for other tasks and in results of older versions.
    """
    labels = [entry.label for entry in result_set.entries]
    bands = {entry.label: _bands(entry.metrics) for entry in result_set.entries}
    keys = {key for of_model in bands.values() for key in of_model}
    if not keys:
        return []
    modes = result_set.modes
    order = sorted(
        keys,
        key=lambda key: (
            modes.index(key[0].rpartition("/")[2]),
            key[0],
            -int(key[1].partition("..")[0]),
        ),
    )
    missing = [label for label in labels if not bands[label]]
    remarks = "Bands in degrees, ranks of the whole ranking, K: depth of the best F1 of the model."
    if missing:
        remarks += f" Without values by latitude: {', '.join(missing)}."
    return [
        ResultTable(
            f"{metric.heading} by latitude, strict: {result_set.caption}",
            {"queries": "section", "latitude": "name"},
            [Column("points", is_constant=True), *map(Column, labels)],
            [_row(key, [bands[label].get(key, {}) for label in labels], metric) for key in order],
            task=result_set.task,
            set_hash=result_set.set_hash,
            protocol="strict",
            metric=metric,
            limit=result_set.results[0].limit,
            remarks=f"{metric.heading}: {metric.meaning}. {remarks}",
            models_in_columns=True,
        )
        for metric in LATITUDE_METRICS
    ]


def _bands(metrics: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Query group and band to the values of the band."""
    return {
        (group, str(band["band"])): band
        for group, evaluation in metrics.items()
        if not group.startswith(MEAN)
        for band in evaluation.get("strict", {}).get("by_latitude") or ()
    }


def _row(key: tuple[str, str], values: Sequence[Mapping[str, Any]], metric: Metric) -> Row:
    group, band = key
    name, _, mode = group.rpartition("/")
    points = next((value["points"] for value in values if "points" in value), None)
    cells = [Cell(value.get(metric.key), metric) for value in values]
    best = best_value(cells)
    return Row(
        f"{band.replace('..', ' to ')}",
        [
            Cell(points, _POINTS),
            *(replace(cell, best=cell.has_value and cell.value == best) for cell in cells),
        ],
        f"{name}, {mode}",
        "strict",
        group=group,
    )
