"""Results and embeddings of models that changed afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from marsretrieval import evaluation
from marsretrieval.embeddings import open_store
from marsretrieval.encoders import LoadOptions, find
from marsretrieval.encoders.identity import code_sha256
from marsretrieval.errors import MarsRetrievalError, UsageError
from marsretrieval.results import find_results, read_result
from marsretrieval.tasks import Settings, find_task
from tests.tasks.oracle import class_folders

MODEL = """
import numpy as np
{more}

class Grey:
{body}
    def encode_images(self, images):
        rows = []
        for image in images:
            level = int(np.asarray(image.convert("L")).mean()) // 8
            {check}
            row = np.ones(40)
            row[(level + {shift}) % 32] += 5
            rows.append(row)
        return np.array(rows)

    def encode_texts(self, texts):
        return np.ones((len(texts), 40)) + np.eye(40)[[len(text) % 40 for text in texts]]
"""


def source(*, shift: int = 0, more: str = "", body: str = "", check: str = "pass") -> str:
    return MODEL.format(shift=shift, more=more, body=body, check=check)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Write the class of a model to a file and return its name for `find`."""
    module = f"model_of_{tmp_path.name}".replace("-", "_")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**changes: object) -> str:
        (tmp_path / f"{module}.py").write_text(source(**changes))  # type: ignore[arg-type]
        return f"{module}:Grey"

    yield write
    sys.modules.pop(module, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data" / "Mars-Landforms", {"plains": 3, "yardangs": 3}).parent


def planned(model: str, folder: Path, **changes: object) -> list[evaluation.Job]:
    arguments: dict = {
        "data": folder,
        "results": folder.parent / "results",
        "options": LoadOptions(),
        "settings": Settings(resamples=20),
    }
    return evaluation.plan([find(model)], [find_task("landform")], **{**arguments, **changes})


def run(model: str, folder: Path, **changes: object) -> tuple[evaluation.Finished, list[str]]:
    lines: list[str] = []
    (finished,) = evaluation.run(planned(model, folder, **changes), say=lines.append, batch_size=2)
    return finished, lines


def vectors(finished: evaluation.Finished) -> np.ndarray:
    return open_store(finished.job.store).load()[1]


def names(data: Path) -> list[str]:
    return [path.name for path in find_results([data.parent / "results"])]


def test_edited_class_is_computed_again_with_the_reason(
    write: Callable[..., str], data: Path
) -> None:
    model = write()
    first, _ = run(model, data)
    before = vectors(first)
    assert planned(model, data)[0].status == "done"
    write(shift=3)
    again, lines = run(model, data)
    assert again.computed and not np.array_equal(vectors(again), before)
    assert sum("the file of its class has changed" in line for line in lines) == 1
    assert sum("embeddings are computed again" in line for line in lines) == 1
    assert names(data) == ["landform.json"]
    (superseded,) = (again.job.folder / "superseded").glob("*.landform.json")
    assert first.result is not None
    assert read_result(superseded).to_dict() == first.result.to_dict()
    assert planned(model, data)[0].status == "done"


@pytest.mark.parametrize("body", ["    fingerprint = {'version': 1}\n", ""])
def test_edit_is_detected_with_any_fingerprint(
    body: str, write: Callable[..., str], data: Path
) -> None:
    first, _ = run(write(body=body), data)
    before = vectors(first)
    again, _ = run(write(body=body, shift=3), data)
    assert again.computed and not np.array_equal(vectors(again), before)


def test_a_fingerprint_that_needs_an_instance_is_compared(
    write: Callable[..., str], data: Path
) -> None:
    (data / "weights.txt").write_text("1")
    body = (
        "    def __init__(self):\n"
        f"        self.fingerprint = {{'weights': open({str(data / 'weights.txt')!r}).read()}}\n"
    )
    model = write(body=body)
    first, _ = run(model, data)
    outcome, _ = run(model, data)
    assert first.computed and not outcome.computed
    (data / "weights.txt").write_text("2")
    again, lines = run(model, data)
    assert again.computed
    assert any("the model has changed (weights)" in line for line in lines)


def test_a_class_fingerprint_is_part_of_the_request(write: Callable[..., str], data: Path) -> None:
    more = f"VERSION = open({str(data / 'version.txt')!r}).read()"
    (data / "version.txt").write_text("1")
    model = write(more=more, body="    fingerprint = {'version': VERSION}\n")
    run(model, data)
    (data / "version.txt").write_text("2")
    sys.modules.pop(model.partition(":")[0])
    (job,) = planned(model, data)
    assert (job.status, job.reason) == ("to do", "its fingerprint has changed")


def test_repaired_crash_leaves_no_mixed_results(write: Callable[..., str], data: Path) -> None:
    bad = "assert level != 3, 'a level that is not handled'"
    failed, _ = run(write(shift=5, check=bad), data)
    assert failed.error is not None or failed.result
    good, _ = run(write(), data)
    assert good.error is None
    reference, _ = run(write(), data, results=data.parent / "other")
    assert np.array_equal(vectors(good), vectors(reference))


def test_force_embeds_again_and_an_interrupted_one_is_not_done(
    write: Callable[..., str], data: Path
) -> None:
    helper = data / "level.txt"
    helper.write_text("0")
    more = f"def SHIFT(): return int(open({str(helper)!r}).read())"
    model = write(more=more, shift="SHIFT()")
    first, _ = run(model, data)
    before = vectors(first)
    helper.write_text("4")  # unseen: neither the source nor a fingerprint changes
    assert not run(model, data)[0].computed
    helper.write_text("nothing that is a number")
    failed, _ = run(model, data, force=True)
    assert failed.error is not None
    helper.write_text("4")
    again, lines = run(model, data)
    assert again.computed and "was interrupted" in " ".join(lines)
    assert not np.array_equal(vectors(again), before)
    helper.write_text("6")
    forced, _ = run(model, data, force=True)
    assert not np.array_equal(vectors(forced), vectors(again)) or forced.computed
    assert names(data) == ["landform.json"]
    assert not list(forced.job.folder.glob(".*"))


def test_a_store_of_another_encoder_in_the_cache_is_rebuilt(
    write: Callable[..., str], data: Path
) -> None:
    model = write()
    first, _ = run(model, data)
    manifest = first.job.store / "manifest.json"
    value = json.loads(manifest.read_text())
    value["encoder"]["source_sha256"] = "another"
    manifest.write_text(json.dumps(value))
    (first.job.cache / "model.json").unlink()  # as older versions left it
    again, lines = run(model, data, settings=Settings(seed=1, resamples=20))
    assert again.error is None and again.computed
    assert sum("embeddings are computed again" in line for line in lines) == 1


def test_dataset_with_removed_images_is_embedded_again(
    write: Callable[..., str], data: Path
) -> None:
    model = write()
    run(model, data)
    for path in (data / "Mars-Landforms" / "yardangs").iterdir():
        path.unlink()
    (data / "Mars-Landforms" / "yardangs").rmdir()
    class_folders(data / "Mars-Landforms", {"landslides": 2})
    again, _ = run(model, data)
    assert again.error is None and again.result and again.result.data["n"]["images"] == 5


def test_a_class_redefined_in_a_notebook_is_another_model() -> None:
    hashes = []
    for shift in (1, 2, 1):
        space: dict = {"__name__": "of_no_file"}
        exec(f"class Mine:\n    def encode_images(self, images):\n        return {shift}\n", space)
        hashes.append(code_sha256(space["Mine"]))
    assert hashes[0] == hashes[2] != hashes[1]
    assert all(hashes)


def test_results_of_other_seeds_resamples_and_datasets_coexist(
    write: Callable[..., str], data: Path
) -> None:
    model = write()
    run(model, data)
    other = class_folders(data.parent / "b" / "Mars-Landforms", {"plains": 2, "landslides": 2})
    for changes in (
        {"settings": Settings(seed=1, resamples=20)},
        {"settings": Settings(resamples=30)},
        {"data": other.parent},
        {"data": other.parent, "settings": Settings(seed=1, resamples=20)},
    ):
        finished, lines = run(model, data, **changes)
        assert finished.computed and not [line for line in lines if "superseded" in line]
        assert planned(model, data, **changes)[0].status == "done"
    assert planned(model, data)[0].status == "done"
    file_names = sorted(
        name.replace(name[name.find("set-") + 4 :][:8], "X") if "set-" in name else name
        for name in names(data)
    )
    assert file_names == [
        "landform.json",
        "landform.resamples-30.json",
        "landform.seed-1.json",
        "landform.set-X.json",
        "landform.set-X.seed-1.json",
    ]
    folder = planned(model, data)[0].folder
    assert len(list(folder.glob("*.queries.parquet"))) == 5
    write(shift=2)
    run(model, data, settings=Settings(seed=1, resamples=20))
    (superseded,) = (folder / "superseded").glob("*.json")
    assert superseded.name.endswith(".landform.seed-1.json")


@pytest.mark.parametrize("created", ["../../../x", "/etc/x", "a/b", "", "\x1b[2J", 7])
def test_result_cannot_choose_its_backup_path(
    created: object, write: Callable[..., str], data: Path
) -> None:
    model = write()
    first, _ = run(model, data)
    assert first.path is not None
    value = json.loads(first.path.read_text())
    first.path.write_text(json.dumps({**value, "created": created}))
    before = set(data.parent.rglob("*"))
    run(write(shift=1), data)
    new = {path for path in set(data.parent.rglob("*")) - before if path.is_file()}
    moved = [path for path in new if path.name.endswith("landform.json")]
    assert [path.parent for path in moved] == [first.path.parent / "superseded"]
    assert len(list((first.path.parent / "superseded").iterdir())) == 4


def test_custom_name(write: Callable[..., str], data: Path) -> None:
    model = write()
    finished, _ = run(model, data, name="baseline-1")
    assert finished.job.folder.name == "baseline-1"
    assert finished.result and finished.result.model["label"] == "baseline-1"
    for name in ("../x", "a/b", "", ".", "superseded", "a\x1b"):
        with pytest.raises(UsageError, match="--name"):
            planned(model, data, name=name)
    with pytest.raises(UsageError, match="holds results of"):
        planned("mars-nano", data, name="baseline-1")


def test_a_failed_run_leaves_no_empty_folder(write: Callable[..., str], data: Path) -> None:
    model = write(body="    def __init__(self):\n        raise OSError('no weights')\n")
    failed, _ = run(model, data)
    assert failed.error is not None
    assert not (data.parent / "results").exists()


def test_plan_refuses_what_loading_would_refuse(write: Callable[..., str], data: Path) -> None:
    checkpoint = data / "mine.pt"
    checkpoint.write_bytes(b"x")
    for model, words in (
        (write(), "does not accept --checkpoint"),
        ("bge-vl-large", "not a folder"),
    ):
        (job,) = planned(model, data, options=LoadOptions(checkpoint=checkpoint))
        assert job.status == "refused" and words in str(job.refusal)
        (finished,) = evaluation.run([job])
        assert isinstance(finished.error, MarsRetrievalError)
    assert not (data.parent / "results").exists()


def test_the_command_embeds_again_with_force(data: Path, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("SHIFT = 0\n")
    (tmp_path / "mine.py").write_text(source(more="from helper import SHIFT", shift="SHIFT"))  # type: ignore[arg-type]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def command(*more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "marsretrieval", "run", "-m", "mine:Grey", "-t", "landform",
             "--data", str(data), "--results", "r", "--resamples", "20", *more],
            capture_output=True, text=True, cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    command()
    (cache,) = (tmp_path / "r" / "mine-Grey" / "embeddings").iterdir()
    before = open_store(cache / "images").load()[1]
    (tmp_path / "helper.py").write_text("SHIFT = 3\n")
    assert "already done" in command()
    assert "already done" not in command("--force")
    assert not np.array_equal(open_store(cache / "images").load()[1], before)
