from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval import evaluation
from marsretrieval.datasets.verify import verify
from marsretrieval.encoders import LoadOptions
from marsretrieval.errors import DatasetNotFoundError, UnknownNameError
from marsretrieval.tasks import TASKS, Settings
from tests.datasets.download.servers import picture
from tests.datasets.verify.sets import check, landforms, pairs, write_planet
from tests.tasks.oracle import class_folders, oracle_spec, pairs_tar, tiles_folder


def test_all_datasets_of_a_folder_or_the_selected_ones(tmp_path: Path) -> None:
    pairs(tmp_path / "Mars-VL-Pairs", ("a", picture(1), "one"))
    landforms(tmp_path / "Mars-Landforms", [{"id": "a", "image": picture(1), "label": "x"}])
    write_planet(tmp_path, seed=7)
    inventory = verify(tmp_path, workers=1)
    assert [dataset.dataset for dataset in inventory.datasets] == ["paired", "landform"]
    assert inventory.datasets[0].origin == {
        "synthetic": True,
        "version": 1,
        "seed": 7,
        "size": "tiny",
    }
    assert inventory.ok()
    one = verify(tmp_path, tasks=["landform_retrieval"], workers=1)
    assert [dataset.dataset for dataset in one.datasets] == ["landform"]
    with pytest.raises(DatasetNotFoundError, match="no data of geolocalization"):
        verify(tmp_path, tasks=["geo"])
    with pytest.raises(UnknownNameError):
        verify(tmp_path, tasks=["paird"])


@pytest.mark.parametrize("kind", ["paired", "landform", "tiles", "images"])
def test_dataset_kind_from_its_first_image(kind: str, tmp_path: Path) -> None:
    if kind == "paired":
        pairs(tmp_path / "mine", ("a", picture(1), "one"))
    elif kind == "landform":
        (tmp_path / "mine/dunes").mkdir(parents=True)
        (tmp_path / "mine/dunes/a.jpg").write_bytes(picture(1))
    else:
        name = "E1_0_N2_0.jpg" if kind == "tiles" else "a.jpg"
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / name).write_bytes(picture(1))
    assert check(tmp_path / "mine").dataset == kind


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match="no images"):
        verify(tmp_path)


def test_strict_counts_notes_too(tmp_path: Path) -> None:
    (tmp_path / "ground_truth").mkdir()
    (tmp_path / "ground_truth/a.csv").write_text("lon,lat\n1,2\n")
    inventory = verify(tmp_path, workers=1)
    assert inventory.ok()
    assert not inventory.ok(strict=True)


def test_the_set_hash_is_that_of_results(tmp_path: Path) -> None:
    data = tmp_path / "data"
    pairs_tar(data)
    tiles_folder(data)
    class_folders(data / "Mars-Landforms", {"plains": 4, "yardangs": 3})
    next((data / "Mars-Landforms").rglob("*.png")).write_bytes(b"damaged")
    jobs = evaluation.plan(
        [oracle_spec()],
        TASKS,
        data=data,
        results=tmp_path / "results",
        options=LoadOptions(),
        settings=Settings(resamples=0),
    )
    results = {item.job.task.name: item.result for item in evaluation.run(jobs)}
    inventory = verify(data, workers=1)
    assert not inventory.ok()
    assert len(inventory.datasets) == 3
    for dataset in inventory.datasets:
        task = "paired-image-text" if dataset.dataset == "paired" else dataset.dataset
        result = results[task]
        assert result is not None
        assert result.data["set_hash"] == dataset.set_hash
