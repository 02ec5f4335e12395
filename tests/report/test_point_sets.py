"""Results over the same tiles and other points do not share a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from marsretrieval.evaluation.runner import hash_items as items_hash
from marsretrieval.report.tables import model_tables
from tests.report.made import make_geolocalization, result


def test_results_over_other_points_have_separate_tables() -> None:
    outcome = make_geolocalization(0.4)
    moved = {name: {**data, "n": {**outcome.n, "points/cones": 9}} for name, data in (
        ("a", {"items_hash": "1" * 64}),
        ("b", {"items_hash": "2" * 64}),
        ("c", {"items_hash": "2" * 64}),
    )}  # fmt: skip
    tables = model_tables(
        [result("geolocalization", name, outcome, data=moved[name]) for name in moved]
    )
    assert [{row.name for row in table.rows if row.kind == "model"} for table in tables] == [
        {"b", "c"}, {"a"},
    ]  # fmt: skip
    assert ", points 11111111)" in tables[1].title
    covered = {**moved["a"], "covered_only": True}
    (table,) = model_tables([result("geolocalization", "a", outcome, data=covered)])
    assert " covered points (set " in table.title


def test_items_of_a_result_do_not_depend_on_its_kinds_of_query() -> None:
    outcome = make_geolocalization(0.4)
    images = {name: group for name, group in outcome.groups.items() if name.endswith("/image")}
    assert 0 < len(images) < len(outcome.groups)
    assert items_hash(replace(outcome, groups=images)) == items_hash(outcome)
    name, group = next((name, group) for name, group in images.items() if "lon" in group.per_query)
    other = {**group.per_query, "lon": np.asarray(group.per_query["lon"]) + 1}
    groups = {**images, name: replace(group, per_query=other)}
    assert items_hash(replace(outcome, groups=groups)) != items_hash(outcome)
