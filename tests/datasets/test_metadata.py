"""Metadata files of Hugging Face's ImageFolder, and tables of pairs of open_clip."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import marsretrieval as mr
from marsretrieval.datasets import Record, Skipped, open_images, open_sources, read_annotations
from marsretrieval.datasets.verify import verify
from marsretrieval.errors import DataError, DatasetNotFoundError, TableError
from marsretrieval.tasks import find_task
from tests.datasets.layouts import problem_of, read_all, write_parquet
from tests.fakes import png_bytes

CAPTIONS = {"a": "a dark dune", "b": 'a "fresh" crater, small', "c": "ripples\nand dunes"}
LABELS = {"a": "dune", "b": "crater", "c": "dune"}


def put(folder: Path, names: Sequence[str] = tuple(CAPTIONS)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / f"{name}.png").write_bytes(png_bytes(seed))
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]], delimiter: str = ",") -> Path:
    """Write rows in the format of the extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def image_folder(folder: Path, suffix: str) -> Path:
    put(folder / "images")
    rows = [
        {"file_name": f"images/{name}.png", "text": text, "label": LABELS[name], "lon": 10.5,
         "lat": -4.5}
        for name, text in CAPTIONS.items()
    ]  # fmt: skip
    write_rows(folder / f"metadata{suffix}", rows)
    return folder


def pairs(folder: Path, name: str = "pairs.tsv", *, absolute: bool = False) -> Path:
    put(folder / "images")
    root = f"{folder.absolute()}/" if absolute else ""
    rows = [
        {"filepath": f"{root}images/{key}.png", "title": text, "label": LABELS[key], "lon": 10.5,
         "lat": -4.5}
        for key, text in CAPTIONS.items()
    ]  # fmt: skip
    return write_rows(folder / name, rows, "\t" if name.endswith(".tsv") else ",")


def sidecars(folder: Path) -> Path:
    """The same images and annotations with a JSON file beside each image."""
    put(folder / "images")
    for name, text in CAPTIONS.items():
        fields = {"caption": text, "label": LABELS[name], "lon": 10.5, "lat": -4.5}
        (folder / "images" / f"{name}.json").write_text(json.dumps(fields))
    return folder


def class_folders(folder: Path) -> Path:
    """The same images and labels with one subfolder per class."""
    for seed, (name, label) in enumerate(LABELS.items()):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{name}.png").write_bytes(png_bytes(seed))
    return folder


def described(items: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [
        (item.id, item.caption, item.original_caption, item.lon, item.lat, item.data)
        for item in items
    ]


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "metadata.csv": lambda folder: image_folder(folder, ".csv"),
    "metadata.jsonl": lambda folder: image_folder(folder, ".jsonl"),
    "metadata.parquet": lambda folder: image_folder(folder, ".parquet"),
    "tabs": pairs,
    "commas": lambda folder: pairs(folder, "pairs.csv"),
    "absolute": lambda folder: pairs(folder, absolute=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_items_of_sidecar_files(layout: str, tmp_path: Path) -> None:
    expected = read_all(open_images(sidecars(tmp_path / "side")))
    source = pickle.loads(pickle.dumps(open_images(LAYOUTS[layout](tmp_path / "set"))))
    records = read_all(source)
    assert described(records) == described(expected)
    assert [record.label for record in records] == list(LABELS.values())
    assert [record.warnings for record in records] == [()] * 3
    annotated, skipped = read_annotations(source)
    assert [record.caption for record in annotated] == list(CAPTIONS.values())
    assert skipped == []
    assert [shard.rows for shard in source.shards()] == [3]


class Grid:
    """Mean brightness on a grid; a text is a random vector."""

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        grey = [np.asarray(image.convert("L").resize((6, 6)), float) / 255 for image in images]
        return np.stack([values.ravel() + 0.01 for values in grey])

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(len(text)).random(36) for text in texts])


@pytest.mark.parametrize("task", ["paired", "landform"])
def test_a_run_has_the_same_metrics_in_every_layout(task: str, tmp_path: Path) -> None:
    baseline = sidecars if task == "paired" else class_folders
    metrics = {}
    for name, write in {"baseline": baseline, **LAYOUTS}.items():
        results = mr.evaluate(
            Grid(), task, data=write(tmp_path / name), results=tmp_path / f"r-{name}", resamples=5
        )
        metrics[name] = results[0].to_dict()["metrics"]
    assert metrics["baseline"]
    assert metrics == dict.fromkeys(metrics, metrics["baseline"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_verify_and_tasks_read_every_layout(layout: str, tmp_path: Path) -> None:
    path = LAYOUTS[layout](tmp_path / "set")
    (dataset,) = verify(path, workers=1).datasets
    assert (dataset.dataset, dataset.counts["pairs"], dataset.problems) == ("paired", 3, [])
    data = find_task("paired-image-text").open(path)
    assert list(data.annotations.values()) == list(CAPTIONS.values())
    assert set(find_task("landform").open(path).annotations.values()) == {"dune", "crater"}


def test_a_file_is_no_data_of_geolocalization(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="a file, not a folder"):
        find_task("geolocalization").open(pairs(tmp_path))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_datasets_library_reads_the_same_rows(suffix: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder = image_folder(tmp_path / "set", suffix)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    records = read_all(open_images(folder))
    assert loaded["text"] == [record.caption for record in records]
    assert loaded["label"] == [record.label for record in records]
    for row, record in zip(loaded, records, strict=True):
        pixels = np.asarray(Image.open(folder / f"{record.id}.png").convert("RGB"))
        assert np.array_equal(np.asarray(row["image"].convert("RGB")), pixels)
    loaded.to_parquet(str(tmp_path / "set.parquet"))
    loaded.save_to_disk(str(tmp_path / "disk"))
    for path in (tmp_path / "set.parquet", tmp_path / "disk"):
        written = read_all(open_images(path))
        assert [(item.caption, item.label, item.lon) for item in written] == [
            (record.caption, record.label, record.lon) for record in records
        ]
        assert [item.data for item in written] == [record.data for record in records]


def test_every_subfolder_may_have_its_own_file(tmp_path: Path) -> None:
    put(tmp_path / "train", ["a"])
    put(tmp_path / "test", ["b"])
    write_rows(tmp_path / "train" / "metadata.csv", [{"file_name": "./a.png", "text": "one"}])
    write_rows(
        tmp_path / "test" / "metadata.jsonl", [{"image_file_name": "b.png", "caption": "two"}]
    )
    records = read_all(open_images(tmp_path))
    assert [(record.id, record.caption, record.label) for record in records] == [
        ("test/b", "two", None),
        ("train/a", "one", None),
    ]


def test_missing_and_unnamed_images_are_named(tmp_path: Path) -> None:
    put(tmp_path, ["a", "b"])
    path = write_rows(
        tmp_path / "metadata.csv",
        [{"file_name": "a.png", "text": " "}, {"file_name": "gone.png", "text": "x"}],
    )
    first, second, gone = read_all(open_images(tmp_path))
    assert problem_of(first) == f"{path}: line 2: its caption is empty"
    assert problem_of(second) == "no row of a metadata file names it"
    assert isinstance(first, Record) and isinstance(second, Record)
    assert isinstance(gone, Skipped)
    assert gone.reason == f"cannot be read (No such file or directory) (named by {path}: line 3)"
    with pytest.raises(DataError, match=r"3 images, none with a caption .*csv: line 3") as raised:
        find_task("paired-image-text").open(tmp_path)
    assert "text" in str(raised.value.remedy)
    (dataset,) = verify(tmp_path, tasks=["paired"], workers=1).datasets
    counts = {problem.kind: problem.count for problem in dataset.problems}
    assert counts["unreadable-image"] == 1 and counts["wrong-annotation"] == 2


def test_a_row_takes_precedence_over_the_file_beside_the_image(tmp_path: Path) -> None:
    put(tmp_path, ["a"])
    (tmp_path / "a.json").write_text('{"caption": "old", "label": "dune", "valid": 0.5}')
    write_rows(tmp_path / "metadata.csv", [{"file_name": "a.png", "text": "new", "valid": ""}])
    (record,) = read_all(open_images(tmp_path))
    assert (record.caption, record.label, record.valid) == ("new", "dune", 0.5)


def test_a_class_label_of_a_parquet_file_has_its_name(tmp_path: Path) -> None:
    put(tmp_path, ["a", "b"])
    columns = {"file_name": ["b.png", "a.png"], "label": [1, -1]}
    write_parquet(tmp_path / "metadata.parquet", columns, ["crater", "dune"])
    assert [record.label for record in read_all(open_images(tmp_path))] == [None, "dune"]


def test_a_metadata_parquet_with_images_is_a_parquet_dataset(tmp_path: Path) -> None:
    write_parquet(tmp_path / "metadata.parquet", {"image": [png_bytes(0)], "text": ["a"]})
    source = open_images(tmp_path)
    assert source.kind == "parquet"
    assert [record.caption for record in read_all(source)] == ["a"]


def test_images_outside_the_folder_of_a_table(tmp_path: Path) -> None:
    put(tmp_path / "far" / "in", ["a"])
    path = write_rows(
        tmp_path / "lists" / "x.csv",
        [{"filepath": str(tmp_path / "far" / "in" / "a.png"), "title": "t"}],
    )
    source = open_images(path)
    assert (source.kind, source.name) == ("csv", str(path))
    assert [(record.id, record.caption) for record in read_all(source)] == [("a", "t")]


def test_a_table_beside_another_source(tmp_path: Path) -> None:
    first, second = pairs(tmp_path / "one"), pairs(tmp_path / "two", "more.csv")
    ids = [item.id for item in read_all(open_sources([first, second]))]
    assert ids == ["images/a", "images/b", "images/c", "more/images/a", "more/images/b",
                   "more/images/c"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "name,text\na.png,x\n", "no column 'file_name' .columns: name, text"),
        ("metadata.csv", "mask_file_name,text\na.png,x\n", "no column 'file_name'"),
        ("metadata.csv", "file_name,image_file_name\na.png,a.png\n", "both file_name and image_f"),
        ("metadata.csv", "file_name,text,text\na.png,x,y\n", "'text' appears twice"),
        ("metadata.csv", "", "no column 'file_name' .columns: none"),
        ("metadata.csv", "file_name,text\n", "has no rows"),
        (
            "metadata.csv",
            "file_name,text\na.png,x\n./a.png,y\n",
            "line 3: names a.png again .*ne 2",
        ),
        ("metadata.csv", "file_name,text\na.png,d\xfcne\n", "line 2 is not UTF-8"),
        ("metadata.csv", "file_name,text\n../a.png,x\n", "line 2: its image is outside"),
        ("metadata.csv", "file_name,text\n/a.png,x\n", "line 2: its image is outside"),
        ("metadata.csv", "file_name,text\n,x\n", "line 2: the path of its image is missing"),
        ("metadata.csv", "file_name,text\na.png,x, y\n", "line 2 has 3 values, the header 2"),
        ("metadata.csv", 'file_name,text\na.png,"x\nb.png,y\n', "line 2: a quoted value is not cl"),
        ("metadata.csv", "file_name,text\n#a.png,x,y\n", "comments between the rows left out: li"),
        ("metadata.jsonl", "", "has no rows"),
        ("metadata.jsonl", '{"file_name": "a.png"}\n[1]\n', "line 2: a list, not an object"),
        ("metadata.jsonl", '{"file_name": "a.png"}\n{"file', "line 2: not readable as JSON"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png"}\n{"text": "x"}',
            "line 2: no column 'file_name'",
        ),
        ("metadata.jsonl", '{"file_name": 7}', "line 1: the path of its image should be text"),
        ("metadata.parquet", "x", "metadata.parquet: not a readable Parquet file"),
    ],
)
def test_invalid_metadata_files(name: str, text: str, words: str, tmp_path: Path) -> None:
    put(tmp_path, ["a"])
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises((DataError, TableError), match=words) as raised:
        open_images(tmp_path)
    assert str(tmp_path / name) in raised.value.message
    assert raised.value.remedy and "\n" not in str(raised.value.message)


def test_two_metadata_files_in_one_folder(tmp_path: Path) -> None:
    image_folder(tmp_path, ".csv")
    image_folder(tmp_path, ".jsonl")
    with pytest.raises(DataError, match=r"holds both metadata\.csv and metadata\.jsonl"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("filepath\tcaption\na.png\tx\n", "no column 'title' .columns: filepath, caption"),
        ("file_name\ttext\na.png\tx\n", "no column 'filepath'"),
        ("filepath\ttitle\na.png\tx\na.png\ty\n", "line 3: names a.png again"),
        ("filepath\ttitle\n../a.png\tx\n", "line 2: its image is outside"),
    ],
)
def test_invalid_tables_of_pairs(text: str, words: str, tmp_path: Path) -> None:
    path = put(tmp_path, ["a"]) / "x.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as raised:
        open_images(path)
    assert raised.value.remedy
