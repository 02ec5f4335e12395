"""Tests of embeddings computed elsewhere: the same metrics as `run`, checked ids and formats."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from typer.testing import Result

import marsretrieval as mr
from marsretrieval.datasets import Record, decode_rgb
from marsretrieval.datasets.embedding_files import read_embeddings
from marsretrieval.errors import DataError, ModalityError
from marsretrieval.evaluation.external import score_embeddings
from marsretrieval.report.compare import compare_results
from marsretrieval.report.result_files import ResultFile
from marsretrieval.report.tables import model_tables
from marsretrieval.tasks import LandformRetrieval, Settings, find_task
from marsretrieval.tasks.external import list_items
from tests.fakes import FakeEncoder

TASKS = ("paired-image-text", "landform", "geolocalization")


class Model(FakeEncoder):
    """Encoder with a name of its own."""


def embed(planet: Path, task: Any) -> dict[str, tuple[list[str], np.ndarray]]:
    """Embed the items of a task outside the package's own pipeline."""
    encoder = Model()
    data = task.open(planet)
    items = list_items(task, data)
    pixels = {}
    sources = [("", data.source)]
    if task.name == "geolocalization":
        sources += [(f"{name}/", examples) for name, examples in data.annotations.examples.items()]
    for prefix, source in sources:
        for shard in source.shards():
            for record in source.read(shard):
                assert isinstance(record, Record)
                pixels[f"{prefix}{record.id}"] = decode_rgb(record.data, record.source)
    columns: dict[str, tuple[list[str], np.ndarray]] = {}
    for kind in dict.fromkeys(item.kind for item in items):
        chosen = [item for item in items if item.kind == kind]
        if kind in ("image", "example"):
            vectors = encoder.encode_images([pixels[item.id] for item in chosen])
        else:
            role = "caption" if kind == "text" else "query"
            vectors = encoder.encode_texts([item.text for item in chosen], role=role)
        columns[kind] = ([item.id for item in chosen], vectors)
    return columns


def write_npz(path: Path, columns: dict[str, tuple[list[str], np.ndarray]]) -> Path:
    arrays = {kind: vectors for kind, (_, vectors) in columns.items()}
    ids = {f"{kind}_ids": np.array(keys) for kind, (keys, _) in columns.items()}
    np.savez(path, **arrays, **ids)
    return path


@pytest.mark.parametrize("name", TASKS)
def test_the_result_equals_that_of_run(name: str, tiny_planet: Path, tmp_path: Path) -> None:
    columns = {
        kind: (keys[::-1], vectors[::-1])
        for kind, (keys, vectors) in embed(tiny_planet, find_task(name)).items()
    }
    path, result = score_embeddings(
        find_task(name), write_npz(tmp_path / "E.npz", columns), data=tiny_planet, name="mine",
        results=tmp_path / "r", settings=Settings(resamples=10),
    )  # fmt: skip
    own = mr.evaluate(Model(), name, data=tiny_planet, results=tmp_path / "r", resamples=10)
    assert result.metrics == own[0].metrics
    assert result.data["set_hash"] == own[0].data["set_hash"]
    assert result.computed_elsewhere and "weights_sha256" not in result.model
    assert json.loads(path.read_text())["model"]["source"]["name"] == "E.npz"
    (table,) = model_tables([result, own[0]])
    assert "mine [computed elsewhere]" in {row.name for row in table.rows}
    comparison = compare_results(ResultFile.read(path), ResultFile.read(own.paths[0]), resamples=10)
    assert all(
        difference.difference == 0
        for group in comparison.groups
        for difference in group.differences.values()
    )


def test_formats_hold_the_same(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    ids = ["a", "b", "c"]
    np.savez(tmp_path / "e.npz", images=vectors, images_ids=np.array(ids))
    save_file({"image": vectors}, tmp_path / "e.safetensors", {"image_ids": json.dumps(ids)})
    columns = {"id": ids, "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for suffix in ("npz", "safetensors", "parquet"):
        file = read_embeddings(tmp_path / f"e.{suffix}")
        assert file.sets["image"].ids == ("a", "b", "c")
        np.testing.assert_allclose(file.sets["image"].vectors, unit, rtol=1e-6)
        assert "3 rows of kind 'image' scaled" in file.notes[0]


def test_ids_are_checked_and_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", image=np.eye(4), image_ids=np.array(["a", "b", "x", "a"]))
    file = read_embeddings(tmp_path / "e.npz")
    with pytest.raises(DataError, match=r"1 missing \(c\); 1 extra \(x\); 1 double \(a\)"):
        file.match("image", ["a", "b", "c"])
    np.savez(tmp_path / "plain.npz", image=np.eye(4))
    with pytest.raises(DataError, match="4 rows of kind 'image' without ids for 3 items"):
        read_embeddings(tmp_path / "plain.npz").match("image", ["a", "b", "c"])


def test_ids_of_shards_are_checked_after_the_last_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", image=np.eye(4), image_ids=np.array(["d", "b", "x", "a"]))
    match = read_embeddings(tmp_path / "e.npz").match_shards("image", ["a", "b", "c", "d"])
    numbers, vectors = match.take(["a", "unlabelled", "b"])
    assert numbers == [0, 2] and vectors.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    numbers, vectors = match.take(["c"])
    assert numbers == [] and vectors.shape == (0, 4)
    with pytest.raises(DataError, match=r"1 missing \(c\); 1 extra \(x\)"):
        match.finish(["d"])
    np.savez(tmp_path / "plain.npz", image=np.eye(2))
    plain = read_embeddings(tmp_path / "plain.npz")
    assert plain.match_shards("image", ["b", "a"]).take(["a"])[1].tolist() == [[0, 1]]
    with pytest.raises(DataError, match="2 rows of kind 'image' without ids for 1 item"):
        plain.match_shards("image", ["a"])


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", image=np.eye(2), image_ids=np.array(["a", "b"], dtype=object))
    with pytest.raises(DataError, match="Python objects") as caught:
        read_embeddings(tmp_path / "e.npz")
    assert "allow_pickle" not in str(caught.value)


def test_image_queries_need_no_texts(tiny_planet: Path, tmp_path: Path) -> None:
    columns = embed(tiny_planet, LandformRetrieval(queries="images"))
    file = write_npz(tmp_path / "E.npz", columns)
    options: dict[str, Any] = {"data": tiny_planet, "name": "v", "results": tmp_path / "r"}
    with pytest.raises(ModalityError, match="no vectors of kind 'prompt'"):
        score_embeddings(LandformRetrieval(), file, **options)
    path, result = score_embeddings(LandformRetrieval(queries="images"), file, **options)
    assert path.name == "landform.queries-images.json" and result.options == {"queries": "images"}


def test_vectors_that_are_not_finite_or_zero_are_named(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[1], vectors[2, 0] = 0, np.nan
    columns = {"id": list("abcd"), "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"image: 2 rows not finite or zero \(b, c\)"):
        read_embeddings(tmp_path / "e.parquet")
    np.savez(tmp_path / "e.npz", image=np.eye(3), prompt=np.eye(4))
    with pytest.raises(DataError, match="different dimensions: image 3, prompt 4"):
        read_embeddings(tmp_path / "e.npz")


def test_kinds_may_alternate_in_parquet(tmp_path: Path) -> None:
    columns = {
        "id": ["a", "x", "b"], "kind": ["image", "prompt", "image"],
        "vector": pa.array(np.eye(3).tolist(), pa.list_(pa.float64())),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "e.parquet", row_group_size=2)
    sets = read_embeddings(tmp_path / "e.parquet").sets
    assert sets["image"].ids == ("a", "b") and sets["prompt"].ids == ("x",)
    np.testing.assert_array_equal(sets["image"].vectors, np.eye(3)[[0, 2]])


def test_items_left_out_are_counted(
    tiny_planet: Path, tmp_path: Path, marsretrieval: Callable[..., Result]
) -> None:
    folder = tmp_path / "planet"
    shutil.copytree(tiny_planet / "Mars-Global-Geolocalization", folder)
    path = min((folder / "tiles").glob("*.tar"))
    with tarfile.open(path) as tar:
        member = next(member for member in tar if member.name.endswith(".png"))
        image = tar.extractfile(member)
        assert image is not None
        data = image.read()
    with tarfile.open(path, "a") as tar:
        tar.addfile(member, io.BytesIO(data))
    done = marsretrieval(
        "data", "items", "-t", "geolocalization", "--data", folder, "-o", tmp_path / "i.csv",
        "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["left_out"] == 1
    assert "1 item left out" in done.stderr and "occurs earlier in this tar" in done.stderr
