"""User-defined tasks and vision-only models on the command line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.report.grouping import labels
from marsretrieval.results import read_result
from tests.report.made import make_landform, result, write
from tests.tasks.oracle import class_folders, pairs_tar, tiles_folder

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "task.md"
MODELS = """
import numpy as np


class Grey:
    def encode_images(self, images):
        levels = [int(np.asarray(image.convert("L")).mean()) // 8 for image in images]
        return np.eye(32)[levels] + 0.1


class Dim(Grey):
    def encode_images(self, images):
        return super().encode_images(images) + np.linspace(0, 3, 32) ** 2

"""


def command(folder: Path, *arguments: object, code: int = 0) -> Result:
    """Run the command line in a folder, with its modules imported again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for module in ("models_of_own_task", "same_class"):
            patch.delitem(sys.modules, module, raising=False)
        done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == code, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    pairs_tar(folder / "data")
    tiles_folder(folder / "data")
    counts = {"plains": 4, "yardangs": 3, "landslides": 2, "pitted_cones": 3}
    class_folders(folder / "data" / "Mars-Landforms", counts)
    (folder / "models_of_own_task.py").write_text(MODELS)
    blocks = re.findall(r"```python\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.S)
    (folder / "same_class.py").write_text(next(block for block in blocks if "SameClass" in block))
    return folder


def test_custom_task_is_run_reported_and_compared(folder: Path) -> None:
    run = ("run", "-m", "models_of_own_task:Grey", "-m", "models_of_own_task:Dim",
           "-t", "same_class:SameClass", "--resamples", 20)  # fmt: skip
    command(folder, *run)
    assert command(folder, *run).stderr.count("already done") == 2
    table = command(folder, "report", "results")
    assert "same-class" in table.stdout and "models_of_own_task-Grey" in table.stdout
    for output in ("page.html", "t.md", "t.csv", "t.tex", "t.json"):
        command(folder, "report", "results", "-o", output)
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "Images of the same class" in page and "models_of_own_task-Dim" in page
    compared = command(
        folder, "compare", "models_of_own_task:Grey", "models_of_own_task-Dim",
        "-t", "same-class", "--json", "--resamples", 20,
    )  # fmt: skip
    (comparison,) = json.loads(compared.stdout)["comparisons"]
    path = folder / "results" / "models_of_own_task-Grey" / "same-class.json"
    expected = read_result(path).metrics["all"]["strict"]["mAP"]
    assert comparison["groups"]["all"]["differences"]["mAP"]["a"] == pytest.approx(expected)
    assert comparison["a"] == "models_of_own_task-Grey"
    with (folder / "same_class.py").open("a") as file:
        file.write("# edited\n")
    assert command(folder, *run).stderr.count("computing again") == 2


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("same_class:Other", "cannot be imported"),
        ("nowhere:Task", "cannot be imported"),
        ("models_of_own_task:Grey", "lacks name"),
    ],
)
def test_class_that_is_not_a_task_is_refused(folder: Path, task: str, words: str) -> None:
    done = command(folder, "run", "-m", "mars-nano", "-t", task, code=2)
    assert words in done.stderr


def test_all_tasks_of_a_vision_only_model(folder: Path) -> None:
    run = ("run", "-m", "models_of_own_task:Grey", "--resamples", 20, "--results", "r")
    done = command(folder, *run, "-t", "all", "--json")
    assert [Path(path).name for path in json.loads(done.stdout)["results"]] == [
        "geolocalization.json"
    ]
    assert [pair["task"] for pair in json.loads(done.stdout)["skipped"]] == [
        "paired-image-text",
        "landform",
    ]
    assert done.stderr.count("skipped: models_of_own_task:Grey has no text encoder") == 2
    assert "no text encoder" in command(folder, *run, "-t", "landform", code=2).stderr
    assert "no text encoder" in command(folder, *run, "-t", "all", "-t", "landform", code=2).stderr


def test_a_dry_run_refuses_what_the_run_would(folder: Path) -> None:
    (folder / "mine.pt").write_bytes(b"x")
    run = ("run", "-t", "geolocalization", "--checkpoint", "mine.pt", "--results", "d", "--dry-run")
    assert "not a folder" in command(folder, *run, "-m", "bge-vl-large", code=1).stderr
    assert "--check" in command(folder, *run, "-m", "models_of_own_task:Grey", code=2).stderr
    assert not (folder / "d").exists()


def test_run_reports_progress_at_once(folder: Path) -> None:
    done = command(folder, "run", "-m", "models_of_own_task:Grey", "-t", "geo", "--results", "r")
    assert done.stderr.startswith("reading models and data")


def test_a_name_is_the_same_everywhere(folder: Path) -> None:
    for name in ("first", "second"):
        command(folder, "run", "-m", "models_of_own_task:Grey", "-t", "geo", "--name", name,
                "--results", "n", "--resamples", 20)  # fmt: skip
    table = command(folder, "report", "n", "--csv").stdout
    assert {line.partition(",")[0] for line in table.splitlines()[1:]} == {
        "first",
        "second",
        "chance",
    }
    compared = command(folder, "compare", "first", "second", "--results", "n", "--json",
                       "--resamples", 10)  # fmt: skip
    (comparison,) = json.loads(compared.stdout)["comparisons"]
    assert (comparison["a"], comparison["b"]) == ("first", "second")


def test_only_rows_of_one_name_are_renamed(tmp_path: Path) -> None:
    outcome = make_landform()
    plain, other = (result("landform", name, outcome) for name in ("m", "other"))
    path = write(plain, outcome, tmp_path)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "seed": 1, "settings": {"seed": 1, "resamples": 50}}))
    assert labels([plain, read_result(path), other]) == [
        "m (seed 0)",
        "m (seed 1, 50 resamples)",
        "other",
    ]


def test_options_of_catalogues_are_refused_by_their_names(folder: Path) -> None:
    refused = command(folder, "run", "-m", "models_of_own_task:Grey", "-t", "landform",
                      "--covered-only", code=2)  # fmt: skip
    assert "--covered-only: applies to point catalogues" in refused.stderr
    assert "--lon-column" not in refused.stderr
