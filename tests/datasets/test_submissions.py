"""Embeddings, labels and predictions supplied by the user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.datasets.submissions import read_labels, read_predictions, read_vectors
from marsretrieval.errors import DataError, DatasetNotFoundError, TableError

HEAD = "image_name,similarity,lon,lat\n"


def predictions(folder: Path, text: str) -> Path:
    path = folder / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_vectors_are_read_unchanged(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, dtype=dtype))
    vectors = read_vectors(tmp_path / "v.npy")
    assert vectors.dtype == dtype and np.array_equal(vectors, np.eye(3))


def test_wrong_vectors_are_named_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    holes = np.eye(3)
    holes[1, 2] = np.nan
    for array, words in (
        (holes, r"NaN or infinity in 1 row .first: row 1"),
        (np.eye(3, dtype=int), "type int"),
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((0, 3)), r"shape \(0, 3\)"),
    ):
        np.save(path, array)
        with pytest.raises(DataError, match=words) as raised:
            read_vectors(path)
        assert "v.npy" in str(raised.value)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"v\.npy: not a .npy file"):
        read_vectors(path)
    np.savez(tmp_path / "several.npz", a=np.eye(2))
    with pytest.raises(DataError, match="archive of several arrays"):
        read_vectors(tmp_path / "several.npz")
    for data in (b"", b"\x93NUMPY", b"1,2,3\n"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"v\.npy: not a .npy file"):
            read_vectors(path)
    with pytest.raises(DatasetNotFoundError):
        read_vectors(tmp_path / "nowhere.npy")


def test_labels_are_three_lists_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    fields = {"labels": ["a", "b"], "image_ids": ["1", "2"], "query_names": ["a"]}
    path.write_text(json.dumps({**fields, "more": 1}))
    labels = read_labels(path)
    assert (labels.labels, labels.image_ids, labels.query_names) == tuple(fields.values())
    for wrong, message in (
        ({**fields, "labels": "ab"}, "'labels' is 'ab': Input should be a valid array"),
        ({**fields, "image_ids": [1, 2]}, r"'image_ids\[0\]' is 1: Input should be a valid string"),
        ({"labels": []}, "missing field 'image_ids'"),
        ([1], "not a JSON object"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=rf"labels\.json: {message}"):
            read_labels(path)
    path.write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        read_labels(path)


def test_only_tile_names_give_a_corner(tmp_path: Path) -> None:
    path = predictions(
        tmp_path,
        "\ufeffimage_name,rank,similarity,lon,lat\n"
        "E137_2_N_4_6.png,1,0.9,137.2,-4.6\n"
        "tiles/E_180_0_N0_0.png,2,0.8,-180,0\n"
        "E179_8_N79_8.png,3,0.7,,\n"
        "crater 5,4,-0.6,350.5,12\n",
    )
    ranking = read_predictions(path)
    assert ranking.ids[0] == "E137_2_N_4_6.png" and ranking.ids[3] == "crater 5"
    assert ranking.scores.tolist() == [0.9, 0.8, 0.7, -0.6]
    assert ranking.published[:2].tolist() == [[137.2, -4.6], [-180, 0]]
    assert np.isnan(ranking.published[2]).all()
    assert ranking.published[3].tolist() == [350.5, 12]
    expected = [[137.3, -4.5], [-179.9, 0.1], [179.9, 79.9], [350.5, 12]]
    assert ranking.centres == pytest.approx(np.array(expected))
    coarse = read_predictions(path, tile_deg=1.0).centres
    assert coarse[0].tolist() == pytest.approx([137.7, -4.1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column image_name, similarity, lon, lat .columns: none"),
        ("image_name,points,lon,lat\nx,1,2,3\n", "no column similarity .columns: image_name, p"),
        (HEAD, "no predictions, only a header"),
        (HEAD + "x,0.5,1,2\nx,high,1,2\n", "line 3: similarity 'high' is not a finite number"),
        (HEAD + "x,0.5,1\n", "line 2: incomplete position"),
        (HEAD + "x,0.5,,\n", "line 2: no position"),
        (HEAD + "E1_2_N3_4.png,0.5,1.2,\n", "line 2: incomplete position"),
        (HEAD + "x,nan,1,2\n", "line 2: similarity 'nan' is not a finite number"),
        (HEAD + "x,inf,1,2\n", "line 2: similarity 'inf' is not a finite number"),
        (HEAD + "x,1,1,2\ny,2,1,2\nx,3,1,2\n", r"1 tile listed more than once: x .line 2, line 4."),
        (HEAD + "x,0.5,361,2\n", "longitude 361"),
        (HEAD + "x,0.5,1,-90.5\n", "latitude -90.5"),
    ],
)
def test_wrong_predictions_are_named_by_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=words) as raised:
        read_predictions(predictions(tmp_path, text))
    assert "predictions.csv" in str(raised.value)


def test_files_that_are_not_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"image_name\xff\x00")
    with pytest.raises(TableError, match=r"p\.csv"):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(TableError, match="not readable"):
        read_predictions(tmp_path)
    with pytest.raises(DatasetNotFoundError):
        read_predictions(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", ", "])
def test_headers_accept_delimiters_capitals_and_spaces(delimiter: str, tmp_path: Path) -> None:
    rows = [["Image_Name", "SIMILARITY", "Lon", "LAT"], ["E1_0_N2_0.png", "0.5", "1.0", "2.0"]]
    text = "".join(f"{delimiter.join(row)}\n" for row in rows)
    ranking = read_predictions(predictions(tmp_path, text))
    assert (ranking.ids, ranking.scores.tolist()) == (["E1_0_N2_0.png"], [0.5])
    assert ranking.centres.tolist() == [[1.1, 2.1]]


def test_position_columns_take_precedence_over_the_tile_name(tmp_path: Path) -> None:
    text = HEAD + "E10_0_N0_0.png,0.5,50,20\nE10_0_N1_0.png,0.4,10.1,1.1\nE0_0_N0_0,0.3,360,0\n"
    ranking = read_predictions(predictions(tmp_path, text))
    assert ranking.centres.tolist() == [[50, 20], [10.1, 1.1], [0.1, 0.1]]
    assert ranking.published.tolist() == [[50, 20], [10.1, 1.1], [360, 0]]
    (note,) = ranking.notes
    assert "1 positions are neither corner nor centre" in note and "line 2" in note


def test_columns_of_a_search_are_accepted(tmp_path: Path) -> None:
    text = (
        "rank,score,id,lon,lat,quad,source,footprint\n"
        '1,0.9,E10_0_N0_0,10.1,0.1,E008_N00,a.tar:x.png,"POLYGON ((10 0, 10.2 0))"\n'
        "2,0.8,mine,50.5,20.5,,b.png,\n"
    )
    ranking = read_predictions(predictions(tmp_path, text))
    assert ranking.ids == ["E10_0_N0_0", "mine"]
    assert ranking.centres.tolist() == [[10.1, 0.1], [50.5, 20.5]]
    assert ranking.published.tolist() == [[10.0, 0.0], [50.5, 20.5]]
