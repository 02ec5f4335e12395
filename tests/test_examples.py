"""Run every example on the synthetic planet."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm_command import warm_command

EXAMPLES = Path(__file__).parent.parent / "examples"
COMMAND = Path(sys.executable).parent / "marsretrieval"
LETTERS = """
class Letters:
    def encode_images(self, images):
        return [[*image.convert("L").resize((3, 3)).tobytes()] for image in images]

    def encode_texts(self, texts):
        return [[text.count(letter) + 1 for letter in "aeiounrst"] for text in texts]
"""


def call(*words: object, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, "PATH": path, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def command() -> Iterator[Path]:
    """Start a process that runs marsretrieval in forks."""
    with warm_command() as program:
        yield program


def test_own_model_is_benchmarked_from_its_file(tiny_planet: Path, tmp_path: Path) -> None:
    where = ("--data", tiny_planet, "--results", tmp_path / "results")
    done = call(
        COMMAND, "run", "-m", "own_model:Spectrum", "-t", "geolocalization", *where, cwd=EXAMPLES
    )
    assert done.returncode == 0, done.stderr
    (result,) = (tmp_path / "results").glob("*/geolocalization.json")
    metrics = json.loads(result.read_text())["metrics"]
    strict = metrics["mean over landforms/image"]["strict"]
    chance = max(
        evaluation["strict"]["chance_precision"]
        for name, evaluation in metrics.items()
        if "mean" not in name
    )
    assert strict["average_precision"] > chance


def test_own_model_is_twenty_lines() -> None:
    text = (EXAMPLES / "own_model.py").read_text()
    assert len(text[text.index("class ") :].strip().splitlines()) <= 20


def test_prompts_are_compared(tiny_planet: Path, tmp_path: Path) -> None:
    script = EXAMPLES / "compare_prompts.py"
    templates = ("a photo of {}, a type of martian terrain", "{}")
    done = call(sys.executable, script, "--data", tiny_planet, *templates, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("mAP ")]
    assert [re.split(r"\s{2,}", line)[-1] for line in lines] == [*templates, "(mean of all)"]
    first, second = (float(line.split()[1]) for line in lines[:2])
    change, low, high = map(float, re.findall(r"[+-]\d\.\d+", lines[1]))
    assert first > 0.8  # on terrain that the model was trained on
    assert change == pytest.approx(second - first, abs=0.0011)
    assert low <= change <= high
    wrong = call(sys.executable, script, "--data", tiny_planet, "no place for a name", cwd=tmp_path)
    assert wrong.returncode == 2


@pytest.mark.parametrize("box", ["-180,-4,-176,0", "178,-4,-178,0"])
def test_a_region_is_searched(box: str, tiny_planet: Path, tmp_path: Path, command: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    (tmp_path / "letters.py").write_text(LETTERS)
    done = call(
        "bash",
        EXAMPLES / "search_region.sh",
        "pitted cones",
        box,
        cwd=tmp_path,
        PATH=f"{command.parent}:{os.environ['PATH']}",
        MODEL="letters:Letters",
        TILES=str(tiny_planet / "Mars-Global-Geolocalization" / "tiles"),
        STORE=str(tmp_path / "own.store"),
        OUT=str(tmp_path / "out"),
        COUNT="1000",
    )
    assert done.returncode == 0, done.stderr
    hits = geopandas.read_file(tmp_path / "out" / "pitted_cones.gpkg")
    rows = list(csv.DictReader((tmp_path / "out" / "pitted_cones.csv").open()))
    assert len(rows) == len(hits) == 400
    assert (tmp_path / "out" / "pitted_cones.png").stat().st_size > 10_000
    west, east = float(box.split(",")[0]), float(box.split(",")[2])
    for row in rows:
        lon = float(row["lon"])
        assert west <= lon <= east if west < east else lon >= west or lon <= east


@pytest.mark.parametrize(("first", "number", "part"), [(1, 3, "3/8"), (0, 0, "1/8")])
def test_slurm_array_distributes_the_shards(
    first: int, number: int, part: str, tmp_path: Path
) -> None:
    (tmp_path / "marsretrieval").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "marsretrieval").chmod(0o755)
    done = call(
        "bash",
        EXAMPLES / "slurm_embed.sh",
        cwd=tmp_path,
        PATH=f"{tmp_path}:/usr/bin:/bin",
        SLURM_ARRAY_TASK_MIN=str(first),
        SLURM_ARRAY_TASK_ID=str(number),
        SLURM_ARRAY_TASK_COUNT="8",
        IMAGES="tiles",
        STORE="mars.store",
        MODEL="marscope",
    )
    assert done.returncode == 0, done.stderr
    assert f"--images tiles --store mars.store --shard {part} " in done.stdout


def test_all_examples_are_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".sh", ".ipynb") and path.name != "README.md":
            assert f"]({path.name})" in listed, path.name
