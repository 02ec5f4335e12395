"""Thumbnails are written with the hits, so reports need no data."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from marsretrieval import evaluation
from marsretrieval.datasets import Record, open_images
from marsretrieval.encoders import LoadOptions
from marsretrieval.report.html import write_html
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import move_superseded
from marsretrieval.tasks import TASKS, Hits, Settings
from marsretrieval.tasks.thumbnails import shown_hits
from tests.tasks.oracle import class_folders, oracle_spec, pairs_tar, tiles_folder

Finished = tuple[list[Path], list[str]]  # results, lines on stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thumbnails") / "data"
    pairs_tar(folder)
    tiles_folder(folder)
    class_folders(folder / "Mars-Landforms", {"plains": 4, "yardangs": 3, "landslides": 2})
    return folder


def run(data: Path, tmp_path: Path, **options: object) -> Finished:
    lines: list[str] = []
    jobs = evaluation.plan(
        [oracle_spec()], TASKS, data=data, results=tmp_path / "results", options=LoadOptions(),
        settings=Settings(resamples=20), **options,
    )  # fmt: skip
    finished = list(evaluation.run(jobs, say=lines.append))
    assert [job.error for job in finished] == [None] * 3
    return [job.path for job in finished if job.path], lines


@pytest.fixture(scope="module")
def finished(data: Path) -> Finished:
    """Evaluate all tasks once; tests must not change the results."""
    return run(data, data.parent)


def copy_results(finished: Finished, folder: Path) -> list[Path]:
    """Copy the results to `folder`/results and return their paths."""
    paths, _ = finished
    results = paths[0].parents[1]
    shutil.copytree(results, folder / "results")
    return [folder / "results" / path.relative_to(results) for path in paths]


def rows(path: Path) -> list[dict]:
    return pq.read_table(path.with_suffix(".thumbnails.parquet")).to_pylist()


def test_a_report_needs_no_data(data: Path, finished: Finished, tmp_path: Path) -> None:
    paths, _ = finished
    out = tmp_path / "report.html"
    removed = (data, paths[0].parent / "embeddings")
    for number, folder in enumerate(removed):
        folder.rename(tmp_path / f"{number}")
    try:
        report = write_html([ResultFile.read(path) for path in paths], out)
    finally:
        for number, folder in enumerate(removed):
            (tmp_path / f"{number}").rename(folder)
    assert report.images > 20 and report.damaged == []
    assert not [note for note in report.notes if "thumbnail" in note]
    text = out.read_text()
    assert 'class="noimg"' not in text and "caption of" not in text
    assert "Example images of the image query" in text


def test_a_thumbnail_is_the_image_of_its_id(data: Path, finished: Finished) -> None:
    paths, _ = finished
    source = open_images(data / "Mars-VL-Pairs")
    items = [item for shard in source.shards() for item in source.read(shard)]
    records = {item.id: item for item in items if isinstance(item, Record)}
    pairs = rows(paths[0])
    assert pairs and len({row["id"] for row in pairs}) == len(pairs)
    for row in pairs:
        original = records[row["id"]]
        assert row["caption"] == original.caption
        with (
            Image.open(io.BytesIO(row["image"])) as small,
            Image.open(io.BytesIO(original.data)) as large,
        ):
            assert small.format == "WEBP" and max(small.size) <= 128
            expected = np.asarray(large.convert("RGB").resize((4, 4)), dtype=int)
            assert abs(np.asarray(small.convert("RGB").resize((4, 4))) - expected).mean() < 20


def test_changed_images_are_counted_without_failing_the_run(
    data: Path, finished: Finished, tmp_path: Path
) -> None:
    paths, lines = finished
    assert not [line for line in lines if "thumbnail" in line]
    store = next((paths[0].parent / "embeddings").glob("Mars-Global*")) / "images"
    tiles = data / "Mars-Global-Geolocalization" / "tiles" / "000000.tar"
    tiles.rename(tmp_path / "intact.tar")
    tiles.write_bytes(b"no tar")
    jobs = evaluation.plan(
        [oracle_spec()], TASKS[2:], data=data, results=tmp_path / "other", options=LoadOptions(),
        settings=Settings(resamples=20), tiles_store=store,
    )  # fmt: skip
    lines = []
    try:
        (job,) = evaluation.run(jobs, say=lines.append)
    finally:
        (tmp_path / "intact.tar").replace(tiles)
    assert job.error is None and job.path and job.result
    (warning,) = [line for line in lines if "thumbnails for the report cannot be made" in line]
    assert warning.startswith("warning: ") and warning in job.result.data["notes"]
    assert all(row["query"] for row in rows(job.path))  # example images only


def test_force_writes_them_again_and_a_second_run_does_not(
    data: Path, finished: Finished, tmp_path: Path
) -> None:
    paths = copy_results(finished, tmp_path)
    before = rows(paths[1])
    thumbnails = paths[1].with_suffix(".thumbnails.parquet")
    thumbnails.unlink()
    run(data, tmp_path)
    assert not thumbnails.exists()
    run(data, tmp_path, force=True)
    assert rows(paths[1]) == before


def test_thumbnails_move_with_a_superseded_result(finished: Finished, tmp_path: Path) -> None:
    paths = copy_results(finished, tmp_path)
    folder = move_superseded(paths[0])
    assert len(list(folder.glob("*.thumbnails.parquet"))) == 1


def test_the_queries_shown_are_the_same_for_every_model() -> None:
    query_names = []
    for seed in (0, 1):
        hits = Hits()
        rng = np.random.default_rng(seed)
        for query in rng.permutation(30):
            for rank in range(1, 11):
                for group in ("t2i", "i2t"):
                    hits.append(group, f"q{query:02d}", rank, f"x{rng.integers(99)}", 0.5,
                                relevant=False)  # fmt: skip
        query_names.append(shown_hits(hits.to_table()))
    for group, queries, ranks in (("t2i", 6, 6), ("i2t", 4, 3)):
        first, second = ([row for row in rows if row["group"] == group] for rows in query_names)
        assert {row["query"] for row in first} == {row["query"] for row in second}
        assert len({row["query"] for row in first}) == queries
        assert len(first) == queries * ranks and {"q00", "q29"} <= {row["query"] for row in first}
