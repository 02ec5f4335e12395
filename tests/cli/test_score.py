"""Tests of the score commands: metrics, files, exit codes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from tests.metrics.inputs import flat, geo_input, landform_input, paired_input
from tests.shared import shared_file

KEYS = {"task", "n", "published", "strict", "intervals", "ties", "chance", "interval_basis"}


def call(*arguments: str | Path | float, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["score", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def scored(out: Path, *arguments: str | Path | float) -> dict[str, Any]:
    assert call(*arguments, "--json", out).stdout == ""
    figures: dict[str, Any] = json.loads(out.read_text())
    assert figures.keys() - {"data"} == KEYS
    return figures


def assert_same(actual: Any, expected: Any) -> None:
    actual, expected = dict(flat(actual)), dict(flat(expected))
    assert actual.keys() == expected.keys()
    assert max(abs(actual[key] - expected[key]) for key in expected) <= 1e-6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the inputs of all three tasks into one folder."""
    folder = tmp_path_factory.mktemp("mine")
    pairs = paired_input(pairs=60)
    np.save(folder / "pair_images.npy", pairs["images"])
    np.save(folder / "pair_texts.npy", pairs["texts"])
    made = landform_input(images=90)
    np.save(folder / "images.npy", made.pop("images"))
    np.save(folder / "queries.npy", made.pop("queries"))
    (folder / "labels.json").write_text(json.dumps(made))
    tiles = geo_input(tiles=300, points=30)
    with (folder / "predictions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image_name", "similarity", "lon", "lat"])
        for row, (score, corner) in enumerate(zip(tiles["scores"], tiles["corners"], strict=True)):
            table.writerow([f"tile {row}", repr(float(score)), *map(float, corner)])
    np.savetxt(folder / "truth.csv", tiles["truth"], delimiter=",", header="lon,lat", comments="")
    return folder


def paired(files: Path) -> tuple[str | Path, ...]:
    return ("paired", "--images", files / "pair_images.npy", "--texts", files / "pair_texts.npy")


def landform(files: Path, **swapped: Path) -> tuple[str | Path, ...]:
    return ("landform", "--images", swapped.get("images", files / "images.npy"),
            "--labels", swapped.get("labels", files / "labels.json"),
            "--queries", files / "queries.npy")  # fmt: skip


def geolocalization(files: Path, **swapped: Path) -> tuple[str | Path, ...]:
    return ("geolocalization", "--predictions", swapped.get("p", files / "predictions.csv"),
            "--ground-truth", swapped.get("g", files / "truth.csv"))  # fmt: skip


def test_the_published_metrics_of_the_paper(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    quick = ("--resamples", 0)
    for case in json.loads(shared_file("golden/golden.json").read_text()):
        if case["task"] == "paired":
            with np.load(shared_file(f"golden/{case['file']}")) as arrays:
                np.save(tmp_path / "i.npy", arrays["image_features"])
                np.save(tmp_path / "t.npy", arrays["text_features"])
            verb = ("paired", "--images", tmp_path / "i.npy", "--texts", tmp_path / "t.npy")
        elif case["task"] == "landform":
            with np.load(shared_file(f"golden/{case['file']}")) as arrays:
                np.save(tmp_path / "i.npy", arrays["image_features"])
                np.save(tmp_path / "q.npy", arrays["query_features"])
            verb = ("landform", "--images", tmp_path / "i.npy", "--queries", tmp_path / "q.npy",
                    "--labels", shared_file(f"golden/{case['labels']}"))  # fmt: skip
        elif case["task"] == "geolocalization":
            verb = ("geolocalization", "--radius", case["radius_deg"], "--max-k", case["max_k"],
                    "--predictions", shared_file(f"golden/{case['predictions']}"),
                    "--ground-truth", shared_file(f"golden/{case['ground_truth']}"))  # fmt: skip
        else:
            continue
        assert_same(scored(out, *verb, *quick)["published"], case["metrics"])


def test_json_is_the_complete_evaluation(files: Path, tmp_path: Path) -> None:
    for verb, task, figure in (
        (paired(files), "paired-image-text", "t2i_mrr"),
        (landform(files), "landform", "mAP"),
        (geolocalization(files), "geolocalization", "average_precision"),
    ):
        evaluation = scored(tmp_path / task / "out.json", *verb, "--resamples", 40)
        assert evaluation["task"] == task and evaluation["n"]
        low, high = evaluation["intervals"]["strict"][figure]
        assert low <= evaluation["strict"][figure] <= high
        output = call(*verb, "--resamples", 40, "--json", "-").stdout
        assert json.loads(output) == evaluation
        other = call(*verb, "--resamples", 40, "--seed", 9, "--json", "-").stdout
        assert json.loads(other)["strict"] == evaluation["strict"]
        assert json.loads(other)["intervals"] != evaluation["intervals"]


def test_table_shows_both_protocols(files: Path) -> None:
    for verb, words in (
        (paired(files), ("published", "strict", "image to text R@1", "60 pairs")),
        (landform(files), ("mAP", "nDCG@10", "class_08", "90 images, 9 classes")),
        (geolocalization(files), ("AUPRC", "ceiling", "best F1", "30 points")),
    ):
        done = call(*verb, "--resamples", 20)
        for word in words:
            assert word in done.stdout, word
        lines = done.stderr.splitlines()
        assert len(lines) == (verb[0] == "geolocalization")
        assert all("30 points lie within the tiles' coverage" in line for line in lines)


def test_line_order_does_not_change_strict_metrics(files: Path, tmp_path: Path) -> None:
    head, *rows = (files / "predictions.csv").read_text().splitlines()
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("\n".join([head, *rows[::-1]]) + "\n")
    first = scored(tmp_path / "a.json", *geolocalization(files))
    assert scored(tmp_path / "b.json", *geolocalization(files, p=mixed)) == first


def test_tile_names_move_strict_to_the_centre_and_leave_published(tmp_path: Path) -> None:
    # The point is 0.45 degrees from the corner, 0.59 from the centre.
    (tmp_path / "truth.csv").write_text("lon,lat\n9.55,0\n")
    for name, near in (("E10_0_N0_0.png", 0.0), ("mine", 1.0)):
        (tmp_path / "p.csv").write_text(f"image_name,similarity,lon,lat\n{name},0.5,10.0,0.0\n")
        verb = geolocalization(tmp_path, p=tmp_path / "p.csv")
        evaluation = scored(tmp_path / "out.json", *verb)
        assert evaluation["published"]["best"]["f1"] == 1
        assert evaluation["strict"]["average_precision"] == near
        wider = scored(tmp_path / "out.json", *verb, "--radius", 0.6)
        assert wider["strict"]["average_precision"] == 1
        finer = scored(tmp_path / "out.json", *verb, "--tile-deg", 0.02)
        assert finer["strict"]["average_precision"] == 1


def test_longitudes_up_to_360_are_used_as_written_by_published(tmp_path: Path) -> None:
    for tile, point, published in ((200, 200.3, 1), (-160, -159.7, 1), (200, -159.7, 0)):
        (tmp_path / "predictions.csv").write_text(
            f"image_name,similarity,lon,lat\nx,0.5,{tile},10\n"
        )
        (tmp_path / "truth.csv").write_text(f"lon,lat\n{point},10\n")
        evaluation = scored(tmp_path / "out.json", *geolocalization(tmp_path))
        assert evaluation["published"]["best"]["f1"] == published
        assert evaluation["strict"]["average_precision"] == 1


def test_failures_are_exit_code_1(files: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.load(files / "pair_texts.npy")[:-1])
    np.save(tmp_path / "long.npy", 3 * np.load(files / "pair_texts.npy"))
    np.save(tmp_path / "nan.npy", np.full((60, 16), np.nan))
    (tmp_path / "columns.csv").write_text("name,score\nx,1\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "file").write_text("")
    images = ("paired", "--images", files / "pair_images.npy")
    for verb, words in (
        ((*images, "--texts", tmp_path / "nowhere.npy"), "nowhere.npy: no such file"),
        ((*images, "--texts", tmp_path / "short.npy"), "60 images, 59 texts"),
        ((*images, "--texts", tmp_path / "long.npy"), "not of unit length"),
        ((*images, "--texts", tmp_path / "nan.npy"), "nan.npy: NaN or infinity in 60 rows"),
        ((*images, "--texts", files / "labels.json"), "not a .npy file of numbers"),
        ((*paired(files), "--json", tmp_path / "file" / "out.json"), "cannot be written"),
        (landform(files, labels=files / "truth.csv"), "not readable as JSON"),
        (landform(files, images=files / "pair_images.npy"), "counts do not match"),
        (geolocalization(files, p=tmp_path / "columns.csv"), "no column 'lon'"),
        (geolocalization(files, p=tmp_path / "empty.csv"), "no column image_name"),
        (geolocalization(files, g=tmp_path / "columns.csv"), "no column 'lon'"),
        (geolocalization(files, g=tmp_path / "nowhere.csv"), "no such file"),
    ):
        done = call(*verb, code=1)
        assert words in done.stderr.replace("\n", " "), done.stderr
        assert done.stdout == ""


def test_errors_of_missing_and_damaged_files_have_a_remedy(files: Path, tmp_path: Path) -> None:
    texts = ("--texts", files / "pair_texts.npy")
    missing = call("paired", "--images", files / "pair_image.npy", *texts, code=1).stderr
    assert f"Did you mean {files / 'pair_images.npy'}" in missing
    (tmp_path / "labels.json").write_text('{"labels": [')
    for labels, remedy in (
        (tmp_path / "labels.json", "Check that it is the right file"),
        (tmp_path / "label.json", f"Did you mean {tmp_path / 'labels.json'}?"),
        (tmp_path, "Name a file in it."),
        (tmp_path / "x" / "y.json", f"there is no folder {tmp_path / 'x'}."),
    ):
        assert remedy in call(*landform(files, labels=labels), code=1).stderr
    folder = ("landform", "--run", tmp_path, "--name", "x", "--data", tmp_path)
    assert call(*folder, code=1).stderr.splitlines()[-1].strip()


def test_errors_of_the_metrics_name_all_files(files: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.npy"
    np.save(short, np.load(files / "pair_texts.npy")[1:])
    failed = call(
        "paired", "--images", files / "pair_images.npy", "--texts", short, code=1
    ).stderr.splitlines()
    assert failed[0] == (
        f"error: counts do not match: 60 images, 59 texts "
        f"(images: {files / 'pair_images.npy'}, texts: {short})"
    )
    assert failed[1].strip().startswith("Give inputs of the same items")
    fewer = tmp_path / "labels.json"
    lists = json.loads((files / "labels.json").read_text())
    fewer.write_text(json.dumps(lists | {"labels": lists["labels"][1:]}))
    failed = call(
        "landform", "--images", files / "images.npy", "--labels", fewer,
        "--queries", files / "queries.npy", code=1,
    ).stderr.splitlines()  # fmt: skip
    assert "90 images, 89 labels, 90 image_ids" in failed[0]
    assert all(str(file) in failed[0] for file in (files / "images.npy", fewer))
    assert str(files / "queries.npy") in failed[0]


def test_unmatched_labels_and_queries_are_reported(files: Path, tmp_path: Path) -> None:
    labels = json.loads((files / "labels.json").read_text())
    first = labels["query_names"][0]
    labels["query_names"][0] = "nothing of the kind"
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    done = call(*landform(files, labels=tmp_path / "labels.json"), "--json", "-")
    assert "1 queries have no image and no score: nothing of the kind" in done.stderr
    assert f"1 labels have no query, their images are distractors: {first}" in done.stderr
    assert json.loads(done.stdout)["n"]["classes"] == len(labels["query_names"]) - 1


def test_usage_errors_are_exit_code_2(files: Path) -> None:
    verb = geolocalization(files)
    for more in (("--radius", 0), ("--radius", "nan"), ("--radius", 181), ("--tile-deg", -1),
                 ("--max-k", 0), ("--max-k", 10**11), ("--resamples", -1), ("--resamples", 10**11),
                 ("--seed", "x"), ("--seed", -1), ("--seed", 10**30), ("--radius", "inf"),
                 ("--tile-deg", "nan")):  # fmt: skip
        call(*verb, *more, code=2)
    call("paired", "--images", files / "pair_images.npy", code=2)
    call("nonsense", code=2)


def test_the_installed_command_prints_only_json(files: Path) -> None:
    arguments = [str(argument) for argument in (*landform(files), "--resamples", 10, "--json", "-")]
    done = subprocess.run(
        [sys.executable, "-m", "marsretrieval", "score", *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["n"] == {"images": 90, "classes": 9}
    assert done.stderr == ""


def test_every_numeric_option_has_bounds() -> None:
    for command in (
        ("run", "-m", "mars-nano", "-t", "landform", "--seed", -1),
        ("run", "-m", "mars-nano", "-t", "landform", "--resamples", 10**11),
        ("run", "-m", "mars-nano", "-t", "landform", "--workers", 10**9),
        ("run", "-m", "mars-nano", "-t", "landform", "--batch-size", 10**11),
        ("run", "-m", "mars-nano", "-t", "landform", "--device", "tpu", "--dry-run"),
        ("compare", "a", "b", "--seed", -1),
        ("compare", "a", "b", "--resamples", 10**11),
        ("compare", "a", "b", "--top", 10**30),
        ("search", "--store", "s", "--text", "x", "--min-score", "nan"),
        ("search", "--store", "s", "--text", "x", "--merge-deg", "inf"),
        ("search", "--store", "s", "--text", "x", "--heatmap-cell", "nan"),
        ("search", "--store", "s", "--text", "x", "--mix", "nan"),
        ("data", "synth", "--out", "planet", "--seed", -1, "--dry-run"),
        ("data", "tiles", "--out", "t", "--size", "nan"),
        ("data", "tiles", "--out", "t", "--drop-empty", "nan"),
        ("data", "download", "landform", "--workers", 10**9),
        ("demo", "--seed", -1),
    ):
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert done.exit_code == 2, (command, done.stderr, done.exception)
        assert "Traceback" not in done.stderr
        option = next(word for word in command[::-1] if str(word).startswith("--") and (
            word != "--dry-run"))  # fmt: skip
        assert str(option) in done.stderr or "unknown device 'tpu'" in done.stderr, done.stderr


@pytest.fixture
def half_covered(tmp_path: Path) -> tuple[str | Path, ...]:
    """Write two points, one of them near the only tile."""
    (tmp_path / "p.csv").write_text("image_name,similarity,lon,lat\nx,0.5,10,10\n")
    (tmp_path / "g.tsv").write_text("lon\tlat\tname\n10.2\t10\ta\n90\t10\tb\n\t\tc\n")
    return geolocalization(tmp_path, p=tmp_path / "p.csv", g=tmp_path / "g.tsv")


def test_coverage_is_shown_and_can_be_chosen(
    half_covered: tuple[str | Path, ...], tmp_path: Path
) -> None:
    done = call(*half_covered, "--json", "-")
    assert "1 of 2 points lies within the tiles' coverage (0.5 degrees" in done.stderr
    assert "1 row without a position left out (line 4)" in done.stderr
    figures = json.loads(done.stdout)
    truth = figures["data"]["ground_truth"]
    assert (truth["points"], truth["covered"], truth["skipped"]) == (2, 1, 1)
    assert figures["n"]["points"] == 2 and figures["strict"]["average_precision"] == 0.5
    covered = scored(tmp_path / "out.json", *half_covered, "--covered-only")
    assert covered["n"]["points"] == 1 and covered["strict"]["average_precision"] == 1
    assert covered["data"]["covered_only"] and covered["data"]["ground_truth"]["points"] == 2
    (tmp_path / "g.tsv").write_text("lon,lat\n90,10\n")
    assert "no point lies within" in call(*half_covered, "--covered-only", code=1).stderr


def test_columns_and_west_longitudes_by_options(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("image_name,similarity,lon,lat\nx,0.5,-10,10\n")
    (tmp_path / "truth.csv").write_text("a,b,lon,lat\n10,10,50,50\n")
    verb = geolocalization(tmp_path)
    options = ("--lon-column", "a", "--lat-column", "b")
    west = scored(tmp_path / "out.json", *verb, *options, "--lon-west")
    assert west["strict"]["average_precision"] == west["published"]["best"]["f1"] == 1
    assert west["data"]["ground_truth"]["columns"] == ["a", "b"]
    east = call(*verb, *options, "--json", "-")
    assert "longitudes may be positive to the west" in east.stderr
    assert json.loads(east.stdout)["strict"]["average_precision"] == 0
