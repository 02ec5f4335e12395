"""One set of images and annotations gives the same items in every layout."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.datasets import (
    ImageSource,
    Record,
    content_hash,
    decode_rgb,
    open_images,
    read_annotations,
    set_hash,
)
from tests.datasets.layouts import encoded, read_all, write_parquet, write_tar

# What is told of an image: the fields of its JSON, and what a record makes of them.
FIELDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "caption": {"caption": "a dune"},
    "two captions": {"refined_caption": "a dark dune", "ori_caption": "dune"},
    "captions inside": {"caption": {"refined_caption": "a dark dune", "ori_caption": "dune"}},
    "captions in text": {"caption": '{"refined_caption": "a dark dune", "ori_caption": "dune"}'},
    "label": {"label": "dune"},
    "centre": {"center": [137.3, -4.5]},
    "bounds": {"bounds": [137.2, -4.6, 137.6, -4.2]},
    "all": {"caption": "a dune", "label": "dune", "center": [0.1, 0.1]},
}
BARE = Record(id="", data=b"", source="")
TOLD: dict[str, Record] = {
    "nothing": BARE,
    "caption": replace(BARE, caption="a dune"),
    **dict.fromkeys(
        ("two captions", "captions inside", "captions in text"),
        replace(BARE, caption="a dark dune", original_caption="dune"),
    ),
    "label": replace(BARE, label="dune"),
    "centre": replace(BARE, lon=137.3, lat=-4.5),
    "bounds": replace(BARE, lon=137.4, lat=-4.4, width_deg=0.4, height_deg=0.4),
    "all": replace(BARE, caption="a dune", label="dune", lon=0.1, lat=0.1),
}
IMAGES = {
    "a.png": encoded("L"),
    "b.jpg": encoded("RGB", kind="JPEG"),
    "c.tif": encoded("I;16", kind="TIFF"),
    "d.webp": encoded("RGB", kind="WEBP"),
    "e.gif": encoded("P", kind="GIF"),
    "f.jp2": encoded("RGB", kind="JPEG2000"),
}


@dataclass(frozen=True)
class Layout:
    """Writer of IMAGES with `fields`; `lacks` are the fields that the layout does not support."""

    name: str
    lacks: frozenset[str] = frozenset()

    def write(self, folder: Path, fields: dict[str, Any]) -> ImageSource:
        text = json.dumps(fields).encode()
        members = [
            member
            for name, data in IMAGES.items()
            for member in ((name, data), (f"{name[0]}.json", text))
        ]
        if self.name in ("tar", "packed"):
            suffix, mode = (".tar", "w") if self.name == "tar" else (".tar.gz", "w:gz")
            for part in (0, 1):
                write_tar(folder / f"{part}{suffix}", members[6 * part : 6 * part + 6], mode)
        elif self.name == "parquet":
            self._parquet(folder, fields)
        else:
            below = folder / "dune" if self.name == "classes" else folder
            below.mkdir(parents=True)
            for name, data in members:
                (below / name).write_bytes(data)
        return open_images(folder)

    def _parquet(self, folder: Path, fields: dict[str, Any]) -> None:
        columns: dict[str, Any] = {
            "image": [{"bytes": data, "path": name} for name, data in IMAGES.items()],
            "id": [name[0] for name in IMAGES],
        }
        names = None
        for name, value in fields.items():
            if name == "label":
                columns["label"], names = [1] * len(IMAGES), ["crater", value]
            elif name == "center":
                columns["lon"], columns["lat"] = ([item] * len(IMAGES) for item in value)
            elif isinstance(value, str):
                columns[name] = [value] * len(IMAGES)
            else:
                columns[name] = [json.dumps(value)] * len(IMAGES)
        write_parquet(folder / "data" / "a.parquet", columns, names, row_group_size=4)


LAYOUTS = [
    Layout("tar"),
    Layout("packed"),
    Layout("folder"),
    Layout("classes", lacks=frozenset({"label"})),
    Layout("parquet", lacks=frozenset({"bounds"})),
]


@pytest.mark.parametrize("description", FIELDS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_reader_gives_every_annotation_and_every_image(
    layout: Layout, description: str, tmp_path: Path
) -> None:
    fields = {
        name: value for name, value in FIELDS[description].items() if name not in layout.lacks
    }
    expected = TOLD[description] if fields else BARE
    source = pickle.loads(pickle.dumps(layout.write(tmp_path / "set", fields)))
    if source.kind == "classes":
        expected = replace(expected, label="dune")
    records = read_all(source)
    assert [record.id.removeprefix("dune/") for record in records] == list("abcdef")
    for record, data in zip(records, IMAGES.values(), strict=True):
        assert record.data == data
        bare = replace(record, id="", data=b"", source="")
        position = (bare.lon, bare.lat, bare.width_deg, bare.height_deg)
        assert position == pytest.approx(
            (expected.lon, expected.lat, expected.width_deg, expected.height_deg)
        )
        nowhere = {"lon": None, "lat": None, "width_deg": None, "height_deg": None}
        assert replace(bare, **nowhere) == replace(expected, **nowhere)
        image = decode_rgb(record.data, record.source)
        assert (image.mode, image.size) == ("RGB", (12, 9))
        assert np.asarray(image).std() > 5
    annotated, skipped = read_annotations(source)
    assert annotated == [replace(record, data=b"") for record in records]
    assert skipped == []


def test_one_set_has_one_hash_in_every_layout(tmp_path: Path) -> None:
    hashes = set()
    for layout in LAYOUTS:
        records = read_all(layout.write(tmp_path / layout.name, {}))
        hashes.add(
            set_hash(
                (record.id.removeprefix("dune/"), content_hash(record.data)) for record in records
            )
        )
    assert len(hashes) == 1
