"""Tests of the benchmark runner: results, resumption, failures, exit codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from marsretrieval import evaluation
from marsretrieval.encoders import LoadOptions, ModelSpec
from marsretrieval.errors import ModalityError, StoreError
from marsretrieval.results import MEAN, PROTOCOLS, find_results, read_result
from marsretrieval.tasks import TASKS, Settings, find_task
from tests.tasks.oracle import class_folders, oracle_spec, pairs_tar, tiles_folder

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and results that the tests copy."""
    folder = tmp_path_factory.mktemp("shared")
    pairs_tar(folder / "data")
    tiles_folder(folder / "data")
    class_folders(folder / "data" / "Mars-Landforms", {"plains": 4, "yardangs": 3, "landslides": 2})
    return folder


@pytest.fixture(scope="module")
def shared_outcomes(shared: Path) -> list[evaluation.Finished]:
    return list(evaluation.run(planned(shared / "data", shared)))


@pytest.fixture(scope="module")
def failing_outcomes(shared: Path) -> dict[str, list[evaluation.Finished]]:
    """Outcomes per model of a run of two that fail and one that does not."""
    specs = [oracle_spec("broken"), oracle_spec("exploding"), oracle_spec()]
    finished = list(evaluation.run(planned(shared / "data", shared / "failing", *specs)))
    assert len(finished) == 9
    return {spec.id: finished[3 * number : 3 * number + 3] for number, spec in enumerate(specs)}


@pytest.fixture
def data(shared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shared / "data", tmp_path / "data")


@pytest.fixture
def first(
    shared: Path, shared_outcomes: list[evaluation.Finished], tmp_path: Path
) -> list[evaluation.Finished]:
    """Outcomes of a first run, whose results are copied to the test's folder."""
    shutil.copytree(shared / "results", tmp_path / "results")
    return shared_outcomes


def planned(data: Path, tmp_path: Path, *records: ModelSpec, **changes: object) -> list:
    arguments: dict = {
        "data": data,
        "results": tmp_path / "results",
        "options": LoadOptions(),
        "settings": Settings(resamples=20),
    }
    return evaluation.plan(records or [oracle_spec()], TASKS, **{**arguments, **changes})


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def tiles_store(results: Path) -> Path:
    (store,) = (results / "oracle" / "embeddings").glob("Mars-Global-Geolocalization-*/images")
    return store


def test_a_run_writes_a_result_for_every_pair(shared_outcomes: list[evaluation.Finished]) -> None:
    assert [outcome.error for outcome in shared_outcomes] == [None] * 3
    for outcome in shared_outcomes:
        result = read_result(outcome.job.result_path)
        assert result == outcome.result
        assert result.data["set_hash"]
        assert result.data["skipped"] == []
        assert result.versions["marsretrieval"]
        assert result.hardware["peak_memory_bytes"] > 2**20
        for figures in result.metrics.values():
            assert all(figures[protocol] for protocol in PROTOCOLS)
        folder, name = outcome.job.folder, outcome.job.task.name
        queries = pq.read_table(folder / f"{name}.queries.parquet")
        hits = pq.read_table(folder / f"{name}.hits.parquet")
        groups = {group for group in result.metrics if not group.startswith(MEAN)}
        assert set(queries["group"].to_pylist()) == groups
        assert hits.num_rows
        json.dumps(result.to_dict(), allow_nan=False)


def test_a_second_run_computes_nothing(
    data: Path,
    first: list[evaluation.Finished],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = files(tmp_path / "results")
    jobs = planned(data, tmp_path)
    assert {job.status for job in jobs} == {"done"}
    monkeypatch.setattr("marsretrieval.evaluation.runner.load", pytest.fail)
    second = list(evaluation.run(jobs))
    assert [outcome.result for outcome in second] == [outcome.result for outcome in first]
    assert not any(outcome.computed for outcome in second)
    assert files(tmp_path / "results") == before


def test_force_computes_again_with_the_same_metrics(
    data: Path, first: list[evaluation.Finished], tmp_path: Path
) -> None:
    jobs = planned(data, tmp_path, force=True)
    assert {job.status for job in jobs} == {"to do"}
    second = list(evaluation.run(jobs))
    assert all(outcome.computed for outcome in second)
    for one, two in zip(first, second, strict=True):
        assert one.result and two.result
        assert one.result.metrics == two.result.metrics


def test_results_on_changed_data_keep_the_earlier_ones(
    data: Path, first: list[evaluation.Finished], tmp_path: Path
) -> None:
    class_folders(data / "Mars-Landforms", {"pitted_cones": 3})
    jobs = planned(data, tmp_path)
    assert [job.task.name for job in jobs if job.status == "to do"] == ["landform"]
    (finished,) = [outcome for outcome in evaluation.run(jobs) if outcome.computed]
    assert finished.result and finished.result.data["n"]["images"] == 12
    folder = tmp_path / "results" / "oracle"
    assert read_result(folder / "landform.json") == first[1].result
    assert finished.path is not None and finished.path.name.startswith("landform.set-")
    assert read_result(finished.path) == finished.result
    assert not (folder / "superseded").exists()
    assert {job.status for job in planned(data, tmp_path)} == {"done"}


def test_a_model_that_fails_does_not_stop_the_others(
    failing_outcomes: dict[str, list[evaluation.Finished]],
) -> None:
    assert all(outcome.error for outcome in failing_outcomes["broken"])
    assert [outcome.error for outcome in failing_outcomes["oracle"]] == [None] * 3
    assert not any(outcome.job.result_path.exists() for outcome in failing_outcomes["broken"])


def test_an_encoder_that_raises_anything_does_not_stop_the_others(
    failing_outcomes: dict[str, list[evaluation.Finished]],
) -> None:
    exploded = failing_outcomes["exploding"]
    assert all("a kernel was lost" in str(outcome.error) for outcome in exploded)
    assert [outcome.error for outcome in failing_outcomes["oracle"]] == [None] * 3


def test_invalid_dataset_metadata_is_named(data: Path, tmp_path: Path) -> None:
    (data / "planet.json").write_text("[]")
    finished = list(evaluation.run(planned(data, tmp_path)))
    assert all("planet.json: not a JSON object" in str(outcome.error) for outcome in finished)


def test_modality_is_checked_before_anything_is_loaded(data: Path, tmp_path: Path) -> None:
    blind = oracle_spec("broken", modalities=frozenset({"image"}))
    with pytest.raises(ModalityError, match="broken has no text encoder"):
        planned(data, tmp_path, blind)
    assert not (tmp_path / "results").exists()


def test_existing_store_is_used_for_geolocalization(
    data: Path, first: list[evaluation.Finished], tmp_path: Path
) -> None:
    (data / "Mars-Global-Geolocalization" / "tiles" / "000000.tar").unlink()
    jobs = evaluation.plan(
        [oracle_spec()], [find_task("geolocalization")], data=data, results=tmp_path / "other",
        options=LoadOptions(), settings=Settings(resamples=20),
        tiles_store=tiles_store(tmp_path / "results"),
    )  # fmt: skip
    (second,) = evaluation.run(jobs)
    assert first[2].result and second.result
    assert second.result.metrics == first[2].result.metrics


def test_variants_of_a_model_have_separate_results(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(b"x")
    names = {
        evaluation.variant(oracle_spec(), options)
        for options in (
            LoadOptions(),
            LoadOptions(dtype="float16"),
            LoadOptions(prompts="official"),
            LoadOptions(checkpoint=checkpoint),
        )
    }
    assert {"oracle", "oracle+float16", "oracle+official"} < names
    assert len(names) == 4


@pytest.mark.usefixtures("first")
def test_results_are_found_in_any_folder(tmp_path: Path, marsretrieval: Command) -> None:
    names = [path.stem for path in find_results([tmp_path / "results"])]
    assert names == ["geolocalization", "landform", "paired-image-text"]
    assert "landslides/hybrid" in marsretrieval("report", tmp_path / "results", "--details").stdout
    (tmp_path / "results" / "oracle" / "landform.json").write_text("{}")
    partly = marsretrieval("report", tmp_path / "results", "--json", code=1)
    assert "left out" in partly.stderr and "landform.json" in partly.stderr
    assert len(json.loads(partly.stdout)) == 2


@pytest.mark.usefixtures("first")
def test_an_unfinished_store_is_not_benchmarked(data: Path, tmp_path: Path) -> None:
    store = tiles_store(tmp_path / "results")
    for entry in (store / "shards").glob("*.json"):
        entry.unlink()
    with pytest.raises(StoreError, match="incomplete"):
        planned(data, tmp_path, tiles_store=store)


MODEL = "tests.tasks.oracle:OracleEncoder"


def test_command_runs_a_custom_class(data: Path, tmp_path: Path, marsretrieval: Command) -> None:
    run = ("run", "-m", MODEL, "-t", "all", "--data", data, "--results", tmp_path / "r")
    plan = marsretrieval(*run, "--resamples", 20, "--dry-run", "--json")
    assert [row["status"] for row in json.loads(plan.stdout)] == ["to do"] * 3
    assert not (tmp_path / "r").exists()
    done = marsretrieval(*run, "--resamples", 20, "--json")
    assert len(json.loads(done.stdout)["results"]) == 3
    table = marsretrieval(*run, "--resamples", 20)
    assert table.stderr.count("already done") == 3
    assert "published" in table.stdout and "strict" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "mars-nanno", "-t", "landform"], 2, "Did you mean"),
        (["-m", MODEL, "-t", "landfrom"], 2, "Did you mean landform"),
        (["-m", "no.such.module:Class", "-t", "landform"], 2, "no.such.module"),
        (["-m", MODEL, "-t", "landform", "--prompts", "mine"], 2, "official"),
        (["-m", MODEL, "-t", "landform", "--dtype", "int4", "--dry-run"], 2, "unknown dtype"),
        (["-m", MODEL, "-t", "landform", "--checkpoint", "nowhere.pt"], 2, "nowhere.pt"),
        (["-m", MODEL, "-t", "landform", "--data", "nowhere"], 1, "data synth"),
    ],
)
def test_invalid_input_is_one_line_and_an_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    data: Path,
    tmp_path: Path,
    marsretrieval: Command,
) -> None:
    defaults = [] if "--data" in arguments else ["--data", data]
    done = marsretrieval("run", *arguments, *defaults, "--results", tmp_path / "r", code=code)
    assert words in done.stderr
    assert not (tmp_path / "r").exists()


def test_results_that_cannot_be_written_are_named(
    data: Path, tmp_path: Path, marsretrieval: Command
) -> None:
    (tmp_path / "r").write_text("a file, not a folder")
    run = ("run", "-m", MODEL, "-t", "landform", "--data", data, "--results", tmp_path / "r")
    for more in ([], ["--dry-run"]):
        done = marsretrieval(*run, *more, code=1)
        assert "cannot be written" in done.stderr
        assert "loading" not in done.stderr and done.stdout == ""


def test_ctrl_c_saves_completed_work(data: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "from tests.tasks.oracle import OracleEncoder\n"
        "class Slow(OracleEncoder):\n"
        "    def encode_preprocessed(self, features):\n"
        "        time.sleep(0.1)\n"
        "        return super().encode_preprocessed(features)\n"
    )
    (tmp_path / "tests").symlink_to(Path(__file__).parents[1])
    arguments = [
        sys.executable, "-m", "marsretrieval", "run", "-m", "slow:Slow", "-t", "landform",
        "-t", "geo", "--data", data, "--results", tmp_path / "r", "--batch-size", "4",
        "--resamples", "20",
    ]  # fmt: skip
    running = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    finished = tmp_path / "r" / "slow-Slow" / "landform.json"
    deadline = time.monotonic() + 60
    while not finished.exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    assert read_result(finished)
    assert not finished.with_name("geolocalization.json").exists()
