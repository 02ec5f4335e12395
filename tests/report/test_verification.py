"""Result files are verified by their tables; a changed value is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from marsretrieval.evaluation.runner import hash_items
from marsretrieval.report.verification import verify_result
from marsretrieval.tasks import Outcome
from tests.report.made import make_geolocalization, make_landform, make_paired, result, write

MAKERS: dict[str, tuple[Callable[[], Outcome], int]] = {
    "paired-image-text": (make_paired, 50),
    "landform": (make_landform, 50),
    "geolocalization": (lambda: make_geolocalization(modes=("text",)), 0),
}


@pytest.fixture(params=MAKERS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a result with the hashes of a run."""
    make, resamples = MAKERS[request.param]
    outcome = make()
    made = replace(
        result(request.param, "a", outcome, data={"items_hash": hash_items(outcome)}),
        request="0" * 64,
        settings={"seed": 0, "resamples": resamples},
    )
    return write(made, outcome, tmp_path)


def change(path: Path, edit: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_results_of_a_run_are_verified(path: Path, marsretrieval: Any) -> None:
    outcome = verify_result(path)
    assert outcome.verified, outcome.differences
    metrics, intervals = (int(line.split()[0]) for line in outcome.checked[-2:])
    assert metrics >= 8 and (intervals > 0) == (path.stem != "geolocalization")
    assert "items_hash" in outcome.checked
    done = marsretrieval("results", "verify", path.parent)
    assert done.stdout.startswith(f"{path}: verified: schema")


def test_changed_metric_is_a_difference(path: Path, marsretrieval: Any) -> None:
    group, key = {
        "paired-image-text": ("all", "t2i_mrr"),
        "landform": ("all", "precision@5"),
        "geolocalization": ("cones/text", "average_precision"),
    }[path.stem]
    change(path, lambda data: data["metrics"][group]["strict"].update({key: 0.125}))
    done = marsretrieval("results", "verify", path, code=1)
    assert f"difference: {group}: strict {key} is 0.125, but 0." in done.stdout
    assert "1 file of 1 not verified" in done.stderr
    (outcome,) = json.loads(marsretrieval("results", "verify", path, "--json", code=1).stdout)
    assert not outcome["verified"] and len(outcome["differences"]) == 1


def test_changed_items_and_intervals_are_differences(path: Path) -> None:
    change(path, lambda data: data["data"].update({"set_hash": "1" * 64}))
    assert any("items_hash" in line for line in verify_result(path).differences)
    if path.stem != "geolocalization":
        key = "mAP" if path.stem == "landform" else "i2t_r5"
        change(path, lambda d: d["metrics"]["all"]["intervals"]["strict"].update({key: [0, 1]}))
        assert any(f"interval of strict {key}" in x for x in verify_result(path).differences)


def test_missing_rows_are_a_difference(path: Path) -> None:
    table: pa.Table = pq.read_table(path.with_suffix(".queries.parquet"))
    first = pc.not_equal(pa.array(range(table.num_rows)), 0)
    pq.write_table(table.filter(first), path.with_suffix(".queries.parquet"))
    assert not verify_result(path).verified


def test_results_without_tables_are_checked_in_part(path: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / path.name
    alone.parent.mkdir()
    alone.write_bytes(path.read_bytes())
    outcome = verify_result(alone)
    assert outcome.verified and any("queries.parquet is missing" in x for x in outcome.unchecked)
    change(alone, lambda data: data.update({"schema_version": 99}))
    assert "schema 99" in verify_result(alone).differences[0]
    change(path, lambda data: data.update({"request": "not a hash"}))
    assert "request is not a SHA-256" in verify_result(path).differences[0]


@pytest.mark.parametrize("name", ["resamples", "limit"])
@pytest.mark.parametrize("value", ["many", {}, 10**30])
def test_settings_of_another_type_are_named(path: Path, name: str, value: object) -> None:
    change(path, lambda data: data["settings"].update({name: value}))
    (line,) = verify_result(path).differences
    assert line.startswith("'settings'") and f"'{name}'" in line
