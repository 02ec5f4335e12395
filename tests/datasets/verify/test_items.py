"""The columns give back what was put in, and take a fraction of the memory."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.datasets import _scan, open_images
from marsretrieval.datasets._items import Item, Items
from tests.datasets.layouts import write_tar
from tests.datasets.verify.sets import tiles

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(-180, 360, allow_nan=False)
item = st.builds(
    Item,
    id=texts,
    source=texts.map("data/tiles/E000_N00.tar:{}".format),
    content=st.binary(min_size=16, max_size=16),
    size=st.tuples(st.integers(1, 40_000), st.integers(1, 40_000)),
    caption=st.none() | texts,
    label=st.none() | texts,
    position=st.none() | st.tuples(numbers, numbers),
    width_deg=st.none() | numbers,
    height_deg=st.none() | numbers,
    likeness=st.none(),
)


@given(st.lists(st.lists(item, max_size=5), max_size=4))
def test_what_goes_in_comes_out(shards: list[list[Item]]) -> None:
    items = Items()
    for shard in shards:
        items.extend(pickle.loads(pickle.dumps(Items.of(shard))))
    expected = [each for shard in shards for each in shard]
    assert list(items) == expected
    assert list(items) == expected, "and again"
    assert len(items) == len(expected)
    assert items.sizes().tolist() == [list(each.size) for each in expected]


def test_a_prefix_tells_the_rows_of_two_files_apart() -> None:
    one = Items.of([Item("0", "a.parquet:row 0", bytes(16), (1, 1), *[None] * 6)])
    both = Items()
    both.extend(one, prefix="a:")
    both.extend(one, prefix="b:")
    assert [each.id for each in both] == ["a:0", "b:0"]


def test_a_tile_takes_a_tenth_of_a_kilobyte() -> None:
    shard = [
        Item(
            f"E{n}_2_N3_4", f"data/Mars-Global-Geolocalization/tiles/E000_N00.tar:E{n}_2_N3_4.png",
            bytes(16), (512, 512), None, None, (n / 5, 3.5), 0.2, 0.2, None,
        )
        for n in range(400)
    ]  # fmt: skip
    assert len(pickle.dumps(Items.of(shard))) < 100 * 400
    assert sys.getsizeof(shard[0]) + sys.getsizeof(shard[0].source) > 100
    likeness = np.arange(4, dtype=np.uint64)
    (kept,) = Items.of([Item("a", "a", bytes(16), (1, 1), "c", "l", None, None, None, likeness)])
    assert kept.likeness is not None
    assert kept.likeness.tolist() == [0, 1, 2, 3]


def test_one_large_tar_becomes_columns_bit_by_bit(tmp_path: Path, monkeypatch) -> None:
    source = open_images(write_tar(tmp_path / "a.tar", tiles({(0, 0): 9})))
    whole = list(_scan.scan(source, likeness=False).items)
    monkeypatch.setattr(_scan, "_IN_OBJECTS", 2)
    assert list(_scan.scan(source, likeness=False).items) == whole
    assert len(whole) == 9
