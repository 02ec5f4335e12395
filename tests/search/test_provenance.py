"""The record of a search in every format, read back by other programs and by the package."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from marsretrieval import __version__
from marsretrieval.api import open_store
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import DataError
from marsretrieval.io import sha256_json
from marsretrieval.search import read_provenance
from marsretrieval.search.provenance import (
    FileReference,
    compare_store,
    provenance,
    read_request,
    sidecar_path,
)
from tests.fakes import FakeEncoder, png_bytes
from tests.search.places import Place, make_store

pytest.importorskip("pyogrio")
pytest.importorskip("rasterio")

TILES: list[Place] = [(0.1, 0.1, 0.2), (0.3, 0.1, 0.2), (0.5, 0.1, 0.2), (0.7, 0.1, 0.2)]
HITS = (
    ".csv",
    ".geojson",
    ".json",
    ".parquet",
    ".gpkg",
    ".fgb",
    ".shp",
    ".shp.zip",
    ".png",
    ".svg",
    ".pdf",
)
HEATS = (".tif", ".png", ".svg", ".pdf")


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return make_store(tmp_path_factory.mktemp("mars") / "store", TILES)


@pytest.fixture(scope="module")
def result(embeddings: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Any:
    image = tmp_path_factory.mktemp("images") / "example (1).png"
    image.write_bytes(png_bytes(3))
    store = open_store(embeddings.path, encoder=FakeEncoder())
    text = "dünes \\ (pitted)"
    return store.search(text, images=image, not_text="ice", bbox="0,-1,1,1", k=3)


def check(record: dict[str, Any], embeddings: EmbeddingStore) -> None:
    assert (record["generator"], record["version"]) == ("marsretrieval", __version__)
    assert record["query"] == "dünes \\ (pitted), 1 example image, not ice"
    assert record["model"] == embeddings.encoder["id"] and record["rows"] == 4
    assert record["weights_hash"] == sha256_json(embeddings.encoder)
    assert record["set_hash"] == embeddings.set_hash
    assert len(record["prompts"]) == 6 and "ice" in record["prompts"][-1]
    assert record["date"].endswith("Z")
    request = read_request(record, Path("x"))
    assert request.text == ("dünes \\ (pitted)",) and request.negative_text == ("ice",)
    assert request.bbox == "0,-1,1,1" and request.k == 3
    (image,) = request.images
    assert image.check(Path("x"), "example image").endswith("example (1).png")


@pytest.mark.parametrize("suffix", HITS)
def test_hits(tmp_path: Path, result: Any, embeddings: EmbeddingStore, suffix: str) -> None:
    written = result.write(tmp_path / f"hits{suffix}")
    sidecar = sidecar_path(written[0])
    assert (sidecar in written) == (suffix in (".csv", ".shp", ".shp.zip", ".fgb"))
    check(read_provenance(written[0]), embeddings)


@pytest.mark.parametrize("suffix", HEATS)
def test_heat_maps(tmp_path: Path, result: Any, embeddings: EmbeddingStore, suffix: str) -> None:
    result.heatmap(tmp_path / f"heat{suffix}")
    check(read_provenance(tmp_path / f"heat{suffix}"), embeddings)


def test_other_programs_find_it(tmp_path: Path, result: Any) -> None:
    import pyarrow.parquet as pq
    import pyogrio
    import rasterio

    for name in ("hits.parquet", "hits.gpkg", "hits.png"):
        result.write(tmp_path / name)
    result.heatmap(tmp_path / "heat.tif")
    texts = [
        pq.read_schema(tmp_path / "hits.parquet").metadata[b"marsretrieval"],
        Image.open(tmp_path / "hits.png").text["marsretrieval"],  # type: ignore[attr-defined]
    ]
    with rasterio.open(tmp_path / "heat.tif") as file:
        texts.append(file.tags()["MARSRETRIEVAL"])
    for text in texts:
        assert json.loads(text)["not_text"] == ["ice"]
    metadata = pyogrio.read_info(tmp_path / "hits.gpkg", layer="hits")["dataset_metadata"]
    (text,) = metadata.values()
    assert json.loads(text)["marsretrieval"]["query"].startswith("dünes")


def test_files_without_a_record(tmp_path: Path, result: Any) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read_provenance(tmp_path / "gone.csv")
    (csv, sidecar) = result.write(tmp_path / "hits.csv")
    sidecar.unlink()
    with pytest.raises(DataError, match=r"would be in hits\.csv\.json"):
        read_provenance(csv)
    Image.new("L", (4, 4)).save(tmp_path / "other.png")
    for name, content in (("a.gpkg", b"x"), ("b.parquet", b"x"), ("c.svg", b"<"), ("d.pdf", b"x"),
                          ("e.geojson", b"[1]"), ("f.txt", b""), ("g.tif", b"x"),
                          ("h.html", b"<p>")):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read_provenance(tmp_path / name)
    with pytest.raises(DataError, match=r"other\.png: no record"):
        read_provenance(tmp_path / "other.png")
    with pytest.raises(DataError, match="no request"):
        read_request(provenance({"text": "dunes"}), Path("x.csv"))
    with pytest.raises(DataError, match="'k' is 'many'"):
        read_request({"request": {"stores": ["s"], "k": "many"}}, Path("x.csv"))


def test_changed_files_of_a_request(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"1")
    reference = FileReference.from_value(image, "image")
    assert reference.check(Path("hits.csv"), "example image") == str(image)
    image.write_bytes(b"2")
    with pytest.raises(DataError, match=r"a\.png: changed since hits\.csv was made"):
        reference.check(Path("hits.csv"), "example image")
    image.unlink()
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        reference.check(Path("hits.csv"), "example image")
    with pytest.raises(DataError, match="given in Python"):
        FileReference.from_value(Image.new("L", (2, 2)), "image").check(Path("x"), "example image")


def test_differences_of_a_store(tmp_path: Path, embeddings: EmbeddingStore) -> None:
    record = provenance({"model": embeddings.encoder["id"]}, embeddings)
    assert compare_store(record, embeddings) == []
    other = make_store(tmp_path / "store", TILES[:3])
    assert [item["what"] for item in compare_store(record, other)] == ["rows", "set_hash"]


def test_a_pdf_reader_shows_the_query(tmp_path: Path, result: Any) -> None:
    import shutil

    if shutil.which("pdfinfo") is None:
        pytest.skip("no pdfinfo")
    (path,) = result.write(tmp_path / "hits.pdf")
    text = subprocess.run(["pdfinfo", path], capture_output=True, text=True, check=True).stdout
    assert "dünes" in text and "weights_hash" in text
