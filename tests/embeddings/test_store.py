"""Reading a store: rows, damage and export."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marsretrieval import geo
from marsretrieval.datasets import Shard
from marsretrieval.embeddings import (
    EmbeddingStore,
    build_store,
    export_parquet,
    open_store,
    verify_store,
)
from marsretrieval.errors import OutputError, StoreError, StoreMismatchError, UsageError
from tests.fakes import FakeEncoder, FakeSource, png_bytes


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    build_store(FakeEncoder(), FakeSource(counts=(5, 0, 3, 4)), tmp_path / "store")
    return open_store(tmp_path / "store")


def test_blocks_are_windows_on_the_files(store: EmbeddingStore) -> None:
    blocks = list(store.blocks())
    assert [(block.start, len(block)) for block in blocks] == [(0, 5), (5, 0), (5, 3), (8, 4)]
    for block in blocks:
        assert block.vectors.shape == (len(block), 32)
        assert not block.vectors.flags.owndata and not block.vectors.flags.writeable
    assert next(store.blocks()) is blocks[0]


def test_rows_are_returned_in_any_order(store: EmbeddingStore) -> None:
    ids, vectors = store.load()
    positions = store.positions()
    rows = np.array([11, 0, 5, 4, 0, 7, 8])
    assert store.ids(rows) == [ids[row] for row in rows]
    np.testing.assert_array_equal(store.vectors(rows).astype(np.float32), vectors[rows])
    columns = store.take(rows)
    assert columns.ids == store.ids(rows)
    np.testing.assert_array_equal(np.column_stack([columns.lon, columns.lat]), positions[rows])
    assert columns.sources[0] == "000003.tar:tile-003003.png"
    np.testing.assert_allclose(columns.width_deg, 0.2, rtol=1e-6)
    assert store.take([]).ids == [] and store.vectors([]).shape == (0, 32)
    for wrong in (-1, 12):
        with pytest.raises(IndexError):
            store.take([0, wrong])


def test_longitudes_are_stored_from_180_west(tmp_path: Path) -> None:
    class East(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            from dataclasses import replace

            for record in super().read(shard):
                yield replace(record, lon=record.lon % 360)  # type: ignore[type-var]

    build_store(FakeEncoder(), East(), tmp_path / "east")
    build_store(FakeEncoder(), FakeSource(), tmp_path / "west")
    east, west = (open_store(tmp_path / name).positions() for name in ("east", "west"))
    np.testing.assert_allclose(east, west, atol=1e-9)


def test_contents_identify_the_images(store: EmbeddingStore) -> None:
    assert store.content_hashes()[0] == hashlib.sha256(png_bytes(0)).digest()[:16]
    assert len(set(store.content_hashes())) == store.rows


def test_the_set_hash_does_not_depend_on_shards_or_model(tmp_path: Path) -> None:
    class Renumbered(FakeSource):
        """Source with the rows of (5, 3) in other shards."""

        def read(self, shard: Any, *, images: bool = True) -> Any:
            rows = [*FakeSource((5,)).read(FakeSource((5,)).shards()[0])]
            return iter({"000000": rows[:2], "000001": rows[2:]}[shard.name])

    build_store(FakeEncoder(), FakeSource((5,)), tmp_path / "a")
    build_store(FakeEncoder(seed=1), Renumbered((2, 3)), tmp_path / "b", dtype="float32")
    build_store(FakeEncoder(), FakeSource((5,), versions={"000000": 1}), tmp_path / "c")
    a, b, c = (open_store(tmp_path / name).set_hash for name in "abc")
    assert a == b != c


def test_differences_to_another_encoder_are_listed(store: EmbeddingStore) -> None:
    other = {**FakeEncoder().fingerprint, "dtype": "float16", "preprocessing": {"size": 17}}
    with pytest.raises(StoreMismatchError) as caught:
        store.require_encoder(other)
    assert "dtype: float32 in the store, float16 now" in str(caught.value)
    assert "preprocessing.size: 16 in the store, 17 now" in str(caught.value)
    assert "weights_sha256" not in str(caught.value)


def flip(path: Path, share: int) -> None:
    data = bytearray(path.read_bytes())
    data[share] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_flipped_byte_is_detected_and_its_shard_named(store: EmbeddingStore, share: float) -> None:
    path = store.path / "shards" / "000002.arrow"
    flip(path, int(path.stat().st_size * share))
    inventory = open_store(store.path).verify()
    assert inventory and all(text.startswith("shard 000002: ") for text in inventory)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _same_size_of_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [_truncate, _same_size_of_zeros, Path.unlink])
def test_a_damaged_shard_is_named_when_it_is_read(
    store: EmbeddingStore, damage: Callable[[Path], None]
) -> None:
    damage(store.path / "shards" / "000002.arrow")
    again = open_store(store.path)
    assert again.ids([0]) == ["tile-000000"]
    with pytest.raises(StoreError, match=r"000002\.arrow"):
        again.load()
    assert [text[:13] for text in again.verify()] == ["shard 000002:"]


def test_build_repairs_damage_visible_without_reading(store: EmbeddingStore) -> None:
    _truncate(store.path / "shards" / "000002.arrow")
    (store.path / "shards" / "000000.json").write_text("{")
    with pytest.raises(StoreError, match=r"000000\.json"):
        open_store(store.path)
    report = build_store(FakeEncoder(), FakeSource(counts=(5, 0, 3, 4)), store.path)
    assert report.embedded == 8
    assert open_store(store.path).verify() == []


def test_columns_of_another_kind_are_refused(store: EmbeddingStore) -> None:
    path = store.path / "shards" / "000002.arrow"
    table = pa.table({"id": ["x", "y", "z"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    entry = json.loads(path.with_suffix(".json").read_text())
    entry["bytes"] = path.stat().st_size
    path.with_suffix(".json").write_text(json.dumps(entry))
    with pytest.raises(StoreError, match="columns are not those of the store"):
        open_store(store.path).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: "{", "not readable as JSON"),
        (lambda value: "[]", "not a JSON object"),
        (lambda value: json.dumps({**value, "schema_version": 9}), "store format 9"),
        (lambda value: json.dumps({"schema_version": 1}), "missing field 'kind'"),
        (lambda value: json.dumps({**value, "dtype": "int8"}), "int8"),
        (lambda value: json.dumps({**value, "extra": 1}), "unknown field 'extra'"),
    ],
)
def test_damaged_manifests(
    store: EmbeddingStore, change: Callable[[dict[str, Any]], str], message: str
) -> None:
    path = store.path / "manifest.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(StoreError, match=message):
        open_store(store.path)
    with pytest.raises(StoreError, match=message):
        build_store(FakeEncoder(), FakeSource(), store.path)
    build_store(FakeEncoder(), FakeSource(), store.path, force=True)
    assert open_store(store.path).verify() == []
    assert len(list((store.path / "shards").iterdir())) == 6


def test_documented_read_methods(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "STORE.md"
    ours, plain, fast = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(store.path.parent)
    names: dict[str, Any] = {"queries": FakeEncoder().encode_texts(["dunes"])}
    exec(ours, names)
    assert names["hits"].ids == store.ids(names["ranking"].rows[0])
    exec(plain, names)
    assert names["table"].column("id").to_pylist() == store.load()[0]
    ring = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    planet = {"type": "Polygon", "coordinates": [ring]}
    Path("region.geojson").write_text(json.dumps(planet))
    exec(fast, names)
    assert names["ids"] == names["hits"].ids
    assert names["scores"].max() == names["ranking"].scores[0, 0]


def test_verify_finds_wrong_vectors_and_repeated_ids(tmp_path: Path) -> None:
    class Repeated(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            return super().read(self.shards()[0])

    build_store(FakeEncoder(), Repeated((2, 2)), tmp_path)
    inventory = open_store(tmp_path).verify()
    assert "shard 000001: id tile-000000 is also in shard 000000" in inventory


def rings(value: bytes) -> list[list[tuple[float, float]]]:
    """Return the outer rings of a WKB polygon or multipolygon."""
    order, kind, count = struct.unpack_from("<BII", value)
    assert order == 1
    if kind == 6:
        points, offset = [], 9
        for _ in range(count):
            points += rings(value[offset:])
            offset += 13 + 16 * len(points[-1])
        return points
    assert (kind, count) == (3, 1)
    (corners,) = struct.unpack_from("<I", value, 9)
    numbers = struct.unpack_from(f"<{2 * corners}d", value, 13)
    return [list(zip(numbers[::2], numbers[1::2], strict=True))]


def test_export_is_geoparquet_of_mars(store: EmbeddingStore, tmp_path: Path) -> None:
    path = tmp_path / "out" / "store.parquet"
    export_parquet(store, path)
    table = pq.read_table(path)
    ids, vectors = store.load()
    assert table.column("id").to_pylist() == ids
    halves = np.stack([np.array(row) for row in table.column("vector").to_pylist()])
    np.testing.assert_array_equal(halves.astype(np.float32), vectors)
    record = json.loads(pq.read_metadata(path).metadata[b"geo"])
    column = record["columns"][record["primary_column"]]
    assert (record["version"], column["encoding"]) == ("1.1.0", "WKB")
    assert column["geometry_types"] == ["Polygon"]
    assert column["crs"]["id"] == {"authority": "IAU", "code": 49900, "version": 2015}
    corners = [xy for value in table.column("geometry").to_pylist() for xy in rings(value)[0]]
    lon, lat = np.array(corners).T
    assert column["bbox"] == [lon.min(), lat.min(), lon.max(), lat.max()]
    assert rings(table.column("geometry")[0].as_py()) == geo.footprint(-179.9, -79.9, 0.2, 0.2)


def test_export_without_positions_and_of_unfinished_stores(tmp_path: Path) -> None:
    source = FakeSource(with_positions=False)
    build_store(FakeEncoder(), source, tmp_path / "store", part=(1, 2))
    with pytest.raises(StoreError, match="1 of 3 shards is not embedded yet"):
        export_parquet(open_store(tmp_path / "store"), tmp_path / "out.parquet")
    build_store(FakeEncoder(), source, tmp_path / "store", dtype="float16")
    export_parquet(open_store(tmp_path / "store"), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("geometry").null_count == 12
    with pytest.raises(OutputError):
        export_parquet(open_store(tmp_path / "store"), tmp_path / "out.parquet" / "x.parquet")
    with pytest.raises(UsageError, match="not a Parquet file name"):
        export_parquet(open_store(tmp_path / "store"), tmp_path / "out.csv")


def test_repair_rebuilds_only_damaged_shards(tmp_path: Path) -> None:
    source = FakeSource()
    build_store(FakeEncoder(), source, tmp_path)
    before = open_store(tmp_path).load()[1]
    flipped = tmp_path / "shards" / "000001.arrow"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    (tmp_path / "shards" / "000002.json").write_text("{")
    inventory = verify_store(tmp_path)
    assert [problem.shard for problem in inventory.problems] == ["000001", "000002"]
    assert inventory.dropped == () and build_store(FakeEncoder(), source, tmp_path).reused == 8

    repaired = verify_store(tmp_path, repair=True)
    assert repaired.dropped == repaired.to_embed == ("000001",)
    assert open_store(tmp_path).missing == ["000001"]
    source.reads.clear()
    assert build_store(FakeEncoder(), source, tmp_path).embedded == 3
    assert source.reads == ["000001"]
    assert verify_store(tmp_path, repair=True).problems == ()
    np.testing.assert_array_equal(open_store(tmp_path).load()[1], before)


def test_repair_keeps_problems_of_the_source(tmp_path: Path) -> None:
    class Twins(FakeSource):
        def read(self, shard: Any, *, images: bool = True) -> Any:
            return super().read(Shard("000000", "", 3))

    build_store(FakeEncoder(), Twins(counts=(3, 3)), tmp_path)
    inventory = verify_store(tmp_path, repair=True)
    assert len(inventory.problems) == 3 and inventory.dropped == () and inventory.to_embed == ()
    assert open_store(tmp_path).complete
