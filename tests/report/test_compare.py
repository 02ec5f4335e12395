"""Comparison of two models on the same items: metrics, query changes and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.errors import DataError, UsageError
from marsretrieval.report.compare import Comparison, compare_results
from marsretrieval.report.render import print_comparison
from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_geolocalization, make_landform, make_paired, result, write

MAKERS: dict[str, Callable[..., Any]] = {
    "paired-image-text": make_paired,
    "landform": make_landform,
    "geolocalization": make_geolocalization,
}


def file_of(results: list[Path], model: str, task: str) -> ResultFile:
    (path,) = [item for item in results if item.parts[-2:] == (model, f"{task}.json")]
    return ResultFile.read(path)


def compared(results: list[Path], task: str, **more: Any) -> Comparison:
    a, b = (file_of(results, model, task) for model in ("blurred-2", "sharp-1"))
    return compare_results(a, b, **{"resamples": 50, **more})


def changed(
    folder: Path, task: str = "paired-image-text", noise: float = 0.4, **more: Any
) -> ResultFile:
    """Write a result of another model."""
    outcome = MAKERS[task](noise, **more)
    return ResultFile.read(write(result(task, "other", outcome), outcome, folder / "other"))


def look_up(figures: Any, key: str) -> float:
    for part in (key,) if key in figures else key.split("."):
        figures = figures[part]
    return float(figures)


@pytest.mark.parametrize("protocol", ["strict", "published"])
@pytest.mark.parametrize("task", MAKERS)
def test_differences_equal_the_metric_differences(
    results: list[Path], task: str, protocol: str
) -> None:
    comparison = compared(results, task, protocol=protocol)
    a, b = (file_of(results, model, task).result.metrics for model in ("blurred-2", "sharp-1"))
    assert (comparison.a, comparison.b) == ("blurred-2", "sharp-1")
    count = 0
    for group in comparison.groups:
        name = "all" if "all" in a else group.name
        for key, item in group.differences.items():
            assert item.a == pytest.approx(look_up(a[name][protocol], key), abs=1e-12)
            assert item.b == pytest.approx(look_up(b[name][protocol], key), abs=1e-12)
            assert item.low is not None and item.high is not None
            assert item.low <= item.difference <= item.high
            count += 1
    assert count == {"paired-image-text": 8, "landform": 4, "geolocalization": 18}[task]


@pytest.mark.parametrize("task", MAKERS)
def test_query_values_average_to_the_metric(results: list[Path], task: str) -> None:
    for group in compared(results, task).groups:
        if not group.per_query:
            continue
        moved = sum(item.difference for item in group.moved) / group.queries
        delta = group.differences[group.per_query]
        assert moved == pytest.approx(delta.difference, abs=1e-9)
        assert group.better + group.worse == len(group.moved) <= group.queries
        order = [item.difference for item in group.moved]
        assert order == sorted(order, reverse=True)
        assert group.gains(2) == [m for m in group.moved[:2] if m.difference > 0]
        assert all(m.difference < 0 for m in group.losses(3))


def test_ranks_are_those_of_the_tables(results: list[Path]) -> None:
    first = compared(results, "paired-image-text").groups[0]
    for model, side in (("blurred-2", "rank_a"), ("sharp-1", "rank_b")):
        table = file_of(results, model, "paired-image-text").queries
        assert table is not None
        ranks = dict(zip(*(table.column(n).to_pylist() for n in ("id", "i2t_rank")), strict=True))
        assert all(getattr(item, side) == ranks[item.name] for item in first.moved)
    points = compared(results, "geolocalization").groups[0]
    table = file_of(results, "sharp-1", "geolocalization").queries
    assert table is not None
    rank_of = {
        f"{row['lon']:.3f} {row['lat']:.3f}": row["found_at"]
        for row in table.to_pylist()
        if row["group"] == points.name
    }
    assert all(item.rank_b == rank_of[item.name] for item in points.moved)


@pytest.mark.parametrize("task", MAKERS)
def test_swapping_flips_every_sign(results: list[Path], task: str) -> None:
    a, b = (file_of(results, model, task) for model in ("blurred-2", "sharp-1"))
    forward, back = (compare_results(*pair, resamples=50) for pair in ((a, b), (b, a)))
    for one, other in zip(forward.groups, back.groups, strict=True):
        for key, item in one.differences.items():
            assert item.difference == -other.differences[key].difference
            assert item.p == other.differences[key].p
            if item.low is not None:
                assert item.low == pytest.approx(-(other.differences[key].high or 0), abs=1e-12)
        assert (one.better, one.worse) == (other.worse, other.better)
        assert {m.name for m in one.moved} == {m.name for m in other.moved}


@pytest.mark.parametrize("task", MAKERS)
def test_a_model_against_itself(results: list[Path], task: str) -> None:
    one = file_of(results, "sharp-1", task)
    comparison = compare_results(one, one, resamples=50)
    assert comparison.a == comparison.b == "sharp-1"
    for group in comparison.groups:
        assert not group.moved
        for difference in group.differences.values():
            assert difference.difference == 0 and difference.p in (1, None)
            assert (difference.low, difference.high) in ((0, 0), (None, None))


def test_the_order_of_the_rows_does_not_matter(results: list[Path], tmp_path: Path) -> None:
    original = file_of(results, "sharp-1", "paired-image-text")
    queries = original.queries
    assert queries is not None and original.path is not None
    copy = tmp_path / "paired-image-text.json"
    copy.write_bytes(original.path.read_bytes())
    order = np.random.default_rng(0).permutation(queries.num_rows)
    pq.write_table(queries.take(pa.array(order)), copy.with_suffix(".queries.parquet"))
    a = file_of(results, "blurred-2", "paired-image-text")
    comparisons = [
        compare_results(a, item, resamples=50) for item in (original, ResultFile.read(copy))
    ]
    assert comparisons[0].to_dict() == comparisons[1].to_dict()


# What is refused


def test_another_n_names_the_pairs(results: list[Path], tmp_path: Path) -> None:
    a = file_of(results, "sharp-1", "paired-image-text")
    with pytest.raises(DataError) as refused:
        compare_results(a, changed(tmp_path, pairs=118))
    message = str(refused.value)
    assert "120 pairs in A, 118 in B" in message and "set hash" in message
    assert "pairs in A only: pair-0118, pair-0119" in message


def test_same_ids_with_other_content_are_reported(results: list[Path], tmp_path: Path) -> None:
    a = file_of(results, "sharp-1", "paired-image-text")
    skipped = [{"id": "pair-9", "source": "x", "reason": "damaged"}]
    outcome = make_paired()
    made = result("paired-image-text", "other", replace(outcome, set_hash="f" * 64),
                  data={"skipped": skipped})  # fmt: skip
    with pytest.raises(DataError) as refused:
        compare_results(a, ResultFile.read(write(made, outcome, tmp_path)))
    message = str(refused.value)
    assert "the same pairs, so images, captions or labels have changed" in message
    assert "left out of B only: pair-9 (damaged)" in message


def test_differing_classes_tiles_and_points_are_named(results: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classes in A only: landform_07"):
        a = file_of(results, "sharp-1", "landform")
        compare_results(a, changed(tmp_path, "landform", classes=7))
    a = file_of(results, "sharp-1", "geolocalization")
    with pytest.raises(DataError, match=r"tiles in A only: .* and \d+ more"):
        compare_results(a, changed(tmp_path, "geolocalization", tiles=500))
    other = tmp_path / "moved" / "geolocalization.json"
    other.parent.mkdir()
    assert a.path is not None and a.queries is not None
    other.write_bytes(a.path.read_bytes())
    lon = a.queries.column("lon").to_numpy().copy()
    lon[0] += 0.0001
    table = a.queries.set_column(1, "lon", pa.array(lon))
    pq.write_table(table, other.with_suffix(".queries.parquet"))
    b = ResultFile.read(other)
    for pair in ((a, b), (b, a)):
        message = r"other points of cones/text: .* in A only; .* in B only"
        with pytest.raises(DataError, match=message):
            compare_results(*pair)


def test_two_tasks_and_an_unknown_protocol_are_usage_errors(results: list[Path]) -> None:
    a, b = (file_of(results, "sharp-1", task) for task in ("landform", "geolocalization"))
    with pytest.raises(UsageError, match="two tasks: landform and geolocalization"):
        compare_results(a, b)
    with pytest.raises(UsageError, match="unknown protocol 'both'"):
        compare_results(a, a, protocol="both")


def test_ties_leave_the_published_protocol_without_queries(tmp_path: Path) -> None:
    tied = changed(tmp_path, constant=True)
    with pytest.raises(DataError, match="tied scores"):
        compare_results(tied, tied, protocol="published")
    assert compare_results(tied, tied, resamples=20).groups


@pytest.mark.parametrize("kind", ["queries", "hits"])
def test_a_missing_table_is_named(results: list[Path], tmp_path: Path, kind: str) -> None:
    a = changed(tmp_path, "geolocalization")
    beside = a.beside(kind)
    assert beside is not None
    beside.unlink()
    with pytest.raises(DataError, match=rf"geolocalization\.{kind}\.parquet: missing or empty"):
        compare_results(file_of(results, "sharp-1", "geolocalization"), a)


@pytest.mark.parametrize("kind", ["queries", "hits"])
def test_a_table_without_positions_is_named(results: list[Path], tmp_path: Path, kind: str) -> None:
    a = changed(tmp_path, "geolocalization")
    beside = a.beside(kind)
    assert beside is not None
    pq.write_table(pq.read_table(beside).drop_columns(["lat"]), beside)
    with pytest.raises(DataError, match=rf"{kind}\.parquet: no column 'lat'"):
        compare_results(file_of(results, "sharp-1", "geolocalization"), ResultFile.read(a.path))  # type: ignore[arg-type]


def test_tables_of_another_run_are_detected(results: list[Path], tmp_path: Path) -> None:
    a = file_of(results, "sharp-1", "landform")
    outcome = make_landform(2.0)
    path = write(a.result, outcome, tmp_path)
    with pytest.raises(DataError, match=r"mAP of .* by its tables"):
        compare_results(a, ResultFile.read(path))


# The command


def call(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    assert "Traceback" not in done.stderr
    return done


def test_models_are_given_by_folder_or_name(results: list[Path]) -> None:
    folder = results[0].parent.parent
    outputs = [
        json.loads(call("blurred-2", "sharp-1", "--results", folder, *more, "--json").stdout)
        for more in (["--resamples", "30"], ["--resamples", "30", "-t", "landform"])
    ]
    tasks = [[item["task"] for item in value["comparisons"]] for value in outputs]
    assert tasks == [list(MAKERS), ["landform"]]
    full = outputs[0]["comparisons"][0]
    assert full["data"]["set_hash"] and full["data"]["n"] == {"pairs": 120}
    assert full["groups"]["image to text"]["differences"]["i2t_mrr"]["p"] is not None
    by_path = call(folder / "blurred-2", folder / "sharp-1", "--resamples", "30", "--json").stdout
    assert json.loads(by_path) == outputs[0]


def test_results_of_one_model_only_are_reported_and_the_rest_compared(results: list[Path]) -> None:
    folder = results[0].parent.parent
    done = call(folder / "sharp-1", folder / "eyes-only", "--resamples", "20")
    assert "landform: only A has a result" in done.stderr
    assert "geolocalization, strict" in done.stdout
    assert "mean over landforms/image" in done.stdout and "cones/text" not in done.stdout


def test_a_refused_task_does_not_stop_the_others(results: list[Path], tmp_path: Path) -> None:
    for task, more in (("paired-image-text", {"pairs": 90}), ("landform", {})):
        changed(tmp_path, task, **more)
    folder = results[0].parent.parent
    arguments = (folder / "sharp-1", tmp_path / "other", "--resamples", "20")
    done = call(*arguments, code=1)
    assert "refused: paired-image-text: results of different items" in done.stderr
    assert "landform, strict" in done.stdout
    value = json.loads(call(*arguments, "--json", code=1).stdout)
    assert len(value["refused"]) == 1 and len(value["comparisons"]) == 1


def test_damaged_result_is_skipped_and_the_rest_compared(
    results: list[Path], tmp_path: Path
) -> None:
    folders = {path.parent.name: path.parent for path in results}
    shutil.copytree(folders["blurred-2"], tmp_path / "a")
    (tmp_path / "a" / "landform.json").write_text("{")
    done = call(tmp_path / "a", folders["sharp-1"], "--resamples", "0", "--json", code=1)
    assert "left out: " in done.stderr and "landform: only B has a result" in done.stderr
    assert len(json.loads(done.stdout)["comparisons"]) == 2
    more = ("-t", "paired-image-text", "--resamples", "0")
    assert "left out" not in call(tmp_path / "a", folders["sharp-1"], *more).stderr


def test_invalid_paths_have_distinct_errors(results: list[Path], tmp_path: Path) -> None:
    folder = results[0].parent.parent
    assert "Did you mean sharp-1" in call("sharp", "x", "--results", folder, code=2).stderr
    assert "several results" in call(folder, folder / "sharp-1", code=2).stderr
    assert "no folder" in call("a", "b", "--results", tmp_path / "none", code=1).stderr
    (tmp_path / "empty").mkdir()
    done = call(folder / "sharp-1", tmp_path / "empty", code=1)
    assert "no task with results of both" in done.stderr
    landform, paired = (
        folder / "sharp-1" / f"{task}.json" for task in ("landform", "paired-image-text")
    )
    assert "two tasks" in call(landform, paired, code=2).stderr


def test_output_shows_metrics_and_largest_query_changes(
    results: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(compared(results, "landform"), top=1)
    output = capsys.readouterr().out
    assert "A: blurred-2" in output and "B: sharp-1" in output
    assert "of 8 classes, " in output and " better in B" in output
    gain = compared(results, "landform").groups[0].moved[0]
    assert f"gain  {gain.name}: {100 * gain.a:.1f} -> {100 * gain.b:.1f}" in output
    assert "Paired bootstrap over queries, 50 resamples" in " ".join(output.split())
    print_comparison(compared(results, "paired-image-text"), top=0)
    assert "gain" not in capsys.readouterr().out
    comparison = compared(results, "geolocalization")
    points = [n for name, n in comparison.data["n"].items() if name.startswith("points/")]
    print_comparison(comparison)
    heading = " ".join(capsys.readouterr().out.split("A:")[0].split())
    assert f"{len(points)} landforms, {sum(points)} points (set " in heading


def test_means_over_other_landforms_are_not_compared(results: list[Path], tmp_path: Path) -> None:
    """B has no image query of one landform, so its mean is over other landforms."""
    a = file_of(results, "blurred-2", "geolocalization")
    made = changed(tmp_path, "geolocalization", 1.2)
    assert made.path is not None
    value = json.loads(made.path.read_text())
    del value["metrics"]["cones/image"]
    made.path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="no metrics of cones/image, which its tables contain"):
        compare_results(a, ResultFile.read(made.path), resamples=20)
    for kind in ("queries", "hits"):
        path = made.path.with_suffix(f".{kind}.parquet")
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.not_equal(table.column("group"), "cones/image")), path)
    comparison = compare_results(a, ResultFile.read(made.path), resamples=20)
    means = [group.name for group in comparison.groups if group.name.startswith("mean")]
    assert means == ["mean over landforms/text", "mean over landforms/hybrid"]
